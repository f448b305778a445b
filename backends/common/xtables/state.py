"""What of iptables and ipset is ours, as text that compares: the state of this back end.

Knows: the text form of iptables-restore / iptables-save and ipset restore / ipset save, and which names are ours.
Must not know: programs, the kernel, what any rule means.

A chain or set is ours if its name starts with `K8SNETC-`. A *hook* is a rule in a chain that is not ours and that
jumps to one that is. Rules are kept without their `-A CHAIN`, so that a chain's rules compare under any name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from k8snetc.backends.common.xtables.model import PREFIX, Xtables
from k8snetc.ir.types import Family

Rules = tuple[str, ...]  # without `-A CHAIN `
TableKey = tuple[Family, str]
Place = tuple[Family, str]
"""A built-in chain of the filter table."""

_FLAGS = frozenset({"counters", "comment", "skbinfo"})
_UNREPORTED = frozenset({"forceadd"})  # Linux 6.18 with ipset 7.17 never prints it back
_CHOSEN = frozenset({"hashsize", "bucketsize", "initval"})
_DEFAULTS = frozenset({("maxelem", "65536"), ("family", "inet")})
_JUMPS = (f"-j {PREFIX}", f"-g {PREFIX}")
_EMPTY: Mapping[str, Rules] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Table:
    """One table of one family: our chains with their rules, and per foreign chain our hooks in it, in order."""

    chains: Mapping[str, Rules] = field(default_factory=lambda: _EMPTY)
    hooks: Mapping[str, Rules] = field(default_factory=lambda: _EMPTY)

    def __bool__(self) -> bool:
        return bool(self.chains or self.hooks)


@dataclass(frozen=True, slots=True)
class IpSet:
    """A set: its type with options as in `create NAME <type>`, and its elements as in `add NAME <element>`.

    `create` is the type with what can't be read back, "" where that is nothing more. `elements` None: rules fill the
    set at run time, so what is in it neither counts nor changes.
    """

    type: str
    elements: frozenset[str] | None = frozenset()
    create: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class State:
    """All that is ours. Tables without anything of ours are left out, so that equal states are equal values.

    `ahead`: rules of others that stand before our hooks and let packets past policy (`place`). No program wants any.
    """

    tables: Mapping[TableKey, Table] = field(default_factory=lambda: MappingProxyType({}))
    sets: Mapping[str, IpSet] = field(default_factory=lambda: MappingProxyType({}))
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ahead: Mapping[Place, Rules] = field(default_factory=lambda: MappingProxyType({}))

    def table(self, key: TableKey) -> Table:
        """That table, empty where nothing of ours is in it."""
        return self.tables.get(key) or Table()


def parse_tables(family: Family, text: str) -> dict[TableKey, Table]:
    """Read what iptables-restore reads or iptables-save prints; what isn't ours is passed over.

    Raises `ValueError` with the line for text of another kind.
    """
    tables: dict[TableKey, Table] = {}
    chains: dict[str, list[str]] = {}
    hooks: dict[str, list[str]] = {}
    table = ""
    for line in text.splitlines():
        match line[:1]:
            case "-":
                _rule(line, chains, hooks)
            case ":":
                name = line[1:].partition(" ")[0]
                if name.startswith(PREFIX):
                    chains.setdefault(name, [])
            case "*":
                table, chains, hooks = line[1:], {}, {}
            case "C" if line == "COMMIT":
                if chains or hooks:
                    tables[(family, table)] = Table(
                        {n: tuple(r) for n, r in chains.items()}, {n: tuple(r) for n, r in hooks.items()}
                    )
            case "#" | "":
                pass
            case _:
                raise ValueError(f"no line of iptables-save: {line!r}")
    return tables


def _rule(line: str, chains: dict[str, list[str]], hooks: dict[str, list[str]]) -> None:
    command, _, rest = line.partition(" ")
    chain, _, rule = rest.partition(" ")
    if command == "-N":
        chains.setdefault(chain, [])
        return
    if command == "-I":
        rule = rule.removeprefix("1 ")
    elif command != "-A":
        raise ValueError(f"no line that adds a rule: {line!r}")
    if chain.startswith(PREFIX):
        chains.setdefault(chain, []).append(rule)
    elif any(jump in rule for jump in _JUMPS):
        if command == "-I":
            hooks.setdefault(chain, []).insert(0, rule)
        else:
            hooks.setdefault(chain, []).append(rule)


def led_to(rule: str) -> str:
    """The chain of ours that a rule jumps or goes to, "" if none. It is always at the end of the rule."""
    words = rule.rsplit(" ", 2)
    jumps = words[-1].startswith(PREFIX) and words[-2:-1] in (["-j"], ["-g"])
    return words[-1] if jumps else ""


def parse_sets(text: str) -> dict[str, IpSet]:
    """Read what ipset restore reads or ipset save prints. Raises `ValueError` with the line for anything else."""
    types: dict[str, str] = {}
    elements: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        command, _, rest = line.partition(" ")
        name, _, words = rest.partition(" ")
        words = words.removesuffix(" -exist")
        if command not in ("create", "add"):
            raise ValueError(f"no line of ipset save: {line!r}")
        if not name.startswith(PREFIX):
            continue
        if command == "create":
            types[name] = set_type(words)
            elements.setdefault(name, set())
        else:
            elements.setdefault(name, set()).add(words)
    return {
        name: IpSet(kind, None if " timeout " in kind else frozenset(elements[name]))
        for name, kind in types.items()
    }


def set_type(words: str) -> str:
    """A set's type without what the kernel chooses (hash size, seed) and without defaults: comparable text,
    options sorted."""
    method, *options = words.split()
    kept: list[tuple[str, ...]] = []
    at = 0
    while at < len(options):
        name = options[at]
        if name in _UNREPORTED:
            at += 1
            continue
        if name in _FLAGS:
            kept.append((name,))
            at += 1
            continue
        value = options[at + 1] if at + 1 < len(options) else ""
        if name not in _CHOSEN and (name, value) not in _DEFAULTS:
            kept.append((name, value))
        at += 2
    return " ".join([method, *(word for option in sorted(kept) for word in option)])


def state_of(model: Xtables) -> State:
    """The state that a lowered program wants."""
    tables: dict[TableKey, Table] = {}
    for ruleset in model.rulesets:
        for table in ruleset.tables:
            hooks: dict[str, Rules] = {}
            for jump in table.jumps:
                hooks[jump.chain] = (*hooks.get(jump.chain, ()), jump.text.removeprefix(f"-A {jump.chain} "))
            chains = {c.name: tuple([rule[1:] for rule in c.rules]) for c in table.chains}
            if chains or hooks:
                tables[(ruleset.family, table.name)] = Table(chains, hooks)
    sets = {}
    for one in model.sets:
        words = one.create.removeprefix(f"create {one.name} ")
        sets[one.name] = IpSet(set_type(words), None if one.dynamic else frozenset(one.elements), words)
    # The last, unlike its default, can leave the process.
    return State(tables, sets, {s.name: s.value for s in model.sysctls}, {})


def print_state(state: State) -> bytes:
    """The state as text that `read_state` reads back. Equal for equal states.

    What stands ahead of our hooks is printed, so that it makes another state, and not read back: nobody wants it back.
    """
    parts = {"v4": "", "v6": ""}
    for (family, name), table in sorted(state.tables.items()):
        lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in sorted(table.chains))]
        for group in (table.hooks, table.chains):
            lines += (f"-A {chain} {rule}" for chain in sorted(group) for rule in group[chain])
        parts["v4" if family is Family.IPV4 else "v6"] += "\n".join([*lines, "COMMIT", ""])
    parts["sets"] = print_sets(state.sets)
    parts["dynamic"] = "".join(f"{n}\n" for n, s in sorted(state.sets.items()) if s.elements is None)
    parts["sysctls"] = "".join(f"{n}={v}\n" for n, v in sorted(state.sysctls.items()))
    if state.ahead:
        lines = [
            f"{family} {base} {r}" for (family, base), rules in sorted(state.ahead.items()) for r in rules
        ]
        parts["ahead"] = "".join(f"{line}\n" for line in lines)
    return "".join(f"{name} {len(text.encode())}\n{text}" for name, text in parts.items()).encode()


def read_state(data: bytes) -> State:
    """The state that `print_state` printed, our hooks first. Raises `ValueError` for anything else."""
    parts: dict[str, str] = {}
    at = 0
    while at < len(data):
        name, _, size = data[at : data.index(b"\n", at)].decode().partition(" ")
        at = data.index(b"\n", at) + 1 + int(size)
        parts[name] = data[at - int(size) : at].decode()
    try:
        tables = {**parse_tables(Family.IPV4, parts["v4"]), **parse_tables(Family.IPV6, parts["v6"])}
        sets = parse_sets(parts["sets"])
        sets |= {n: IpSet(sets[n].type, None) for n in parts["dynamic"].split()}
        sysctls = dict(line.split("=", 1) for line in parts["sysctls"].splitlines())
    except KeyError as e:
        raise ValueError(f"no dumped state: {e} is missing") from e
    return State(tables, sets, sysctls)


def print_sets(sets: Mapping[str, IpSet]) -> str:
    """The lines of ipset restore that make these sets."""
    return "".join(line + "\n" for name in sorted(sets) for line in set_lines(name, sets[name]))


def set_lines(name: str, one: IpSet) -> Iterable[str]:
    """The lines of ipset restore that make and fill one set."""
    yield f"create {name} {one.create or one.type}"
    for element in sorted(one.elements or ()):
        yield f"add {name} {element}"
