"""The IPVS back end's grip on the kernel (`backends.target.Target`).

Knows: ipvsadm, ip, modprobe and where IPVS keeps its settings, and the order of everything among each other. Must not
know: files, locks, receipts, people.

IPVS is not transactional. The order, in which a packet that both programs allow passes and one that both deny does not:
settings and services of marks (nothing leads there yet), sets that grow and tables (guards, policy), services and
servers (new ones before old ones go), addresses; then what goes, the other way round. ipvsadm and ip are used
instead of netlink from Python because they take a tenth of the time (docs/decisions/0017).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common import conntrack
from k8snetc.backends.common.bridges import unjudged_bridges
from k8snetc.backends.common.run import CommandError, run
from k8snetc.backends.common.settings import read_settings, setting_step
from k8snetc.backends.common.xtables.canonical import aligned
from k8snetc.backends.common.xtables.foreign import warnings
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.ipvs import changes
from k8snetc.backends.ipvs.lower import ANSWERS, KERNEL_DEFAULTS, STRICT_ARP, SYSCTLS, lower
from k8snetc.backends.ipvs.model import DEVICE
from k8snetc.backends.ipvs.state import (
    State,
    parse_connections,
    parse_services,
    print_state,
    read_state,
    state_of,
)
from k8snetc.backends.target import Change, InstallError, InstallOptions, LeftBehind, Section, Step
from k8snetc.ir.types import Program

REUSE = "net.ipv4.vs.conn_reuse_mode"
TABLE = Path("/proc/net/ip_vs")


class IpvsTarget:
    """IPVS, its device and the netfilter around it in the caller's network namespace."""

    name = "ipvs"

    def __init__(self, options: InstallOptions) -> None:
        self._options = options
        self._tools = Tools(options)

    def desired(self, program: Program) -> State:
        """What the program looks like here. Raises `UnsupportedError` with all gaps at once."""
        options = self._options
        model = lower(
            program,
            comments=options.comments,
            scheduler=options.ipvs_scheduler,
            strict_arp=options.ipvs_strict_arp,
        )
        gaps = list(unjudged_bridges(program))
        if gaps:
            raise UnsupportedError(self.name, gaps)
        state = state_of(model)
        if REUSE in state.sysctls and _release() < (5, 9):
            # There, mode 1 delays a client's connection from a port used before by a second (with conntrack).
            state = replace(state, sysctls={**state.sysctls, REUSE: "0"})
        return state

    def empty(self) -> State:
        """Nothing of ours."""
        return State()

    def grounded(self, goal: State, before: State) -> State:
        """`goal`, and the settings it doesn't speak of as they were before the first apply.

        Those of strict ARP only once nothing is served any more: until then somebody else may want them, too.
        """
        others = {s.name for s in STRICT_ARP} if goal.services else frozenset()
        was = {name: value for name, value in before.sysctls.items() if name not in others}
        return replace(goal, sysctls={**KERNEL_DEFAULTS, **was, **goal.sysctls})

    def observe(self) -> State:
        """All that is ours in the kernel."""
        seen = State()
        if TABLE.exists():
            text = run(["ipvsadm", "-Sn"])
            connections = parse_connections(TABLE.read_text("ascii")) if " -w 0\n" in text else {}
            seen = parse_services(text, connections)
        names = [s.name for s in (*SYSCTLS, *ANSWERS, *STRICT_ARP)]
        there = read_settings(names)
        values = {n: there.get(n, KERNEL_DEFAULTS.get(n, "")) for n in names}
        return replace(seen, addresses=_addresses(), sysctls=values, xtables=self._tools.observe())

    def changes(self, live: State, goal: State) -> tuple[Change, ...]:
        """Services, addresses, rules, sets and settings that differ."""
        return changes.changes(self._aligned(live, goal), goal)

    def steps(self, live: State, goal: State) -> Sequence[Step]:
        """Everything in a safe order. Raises `InstallError` where the kernel has no module for what `goal` needs."""
        missing = [m for m in _modules(goal) if not _available(m)]
        if missing:
            raise InstallError(
                f"this kernel ({os.uname().release}) lacks {', '.join(missing)}: install the modules of the kernel, "
                "or ask for another scheduler"
            )
        return tuple(self._steps(self._aligned(live, goal), goal))

    def dump(self, state: State) -> bytes:
        """The state as text of the tools."""
        return print_state(state)

    def load(self, data: bytes) -> State:
        """The state that `dump` wrote."""
        return read_state(data)

    def cut(self, old: Program | None, new: Program) -> int:
        """Forget connections that the new program would not make."""
        return conntrack.cut(old, new)

    def details(self, program: Program) -> tuple[Section, ...]:
        """Nothing: the target's own tools show counters."""
        return ()

    def left_behind(self, live: State) -> LeftBehind:
        """Servers of weight 0."""
        connections = [n for servers in live.leaving.values() for n in servers.values()]
        return LeftBehind(connections.count(0), sum(n > 0 for n in connections))

    def collecting(self, live: State) -> Sequence[Step]:
        """What takes servers of weight 0 away that have no connection."""
        return tuple(_ipvsadm("servers without connections", changes.collected_lines(live, live)))

    def warnings(self) -> tuple[str, ...]:
        """Foreign rules that come before ours."""
        return warnings(self._tools)

    def _aligned(self, live: State, goal: State) -> State:
        return replace(live, xtables=aligned(live.xtables, goal.xtables))

    def _steps(self, live: State, goal: State) -> Iterator[Step]:
        absent = [m for m in _modules(goal) if not _loaded(m)]
        if absent:
            yield Step(f"modules: load {', '.join(absent)}", lambda: _load(absent), len(absent))
        if goal.services:
            yield from _settings(live, goal)
        yield from _ipvsadm("services of marks", changes.marked_lines(live, goal))
        yield from self._tools.growing(live.xtables, goal.xtables, together=False)
        yield from _ipvsadm("services and servers", changes.service_lines(live, goal))
        coming, going = changes.address_lines(live, goal)
        yield from _ip("add", coming)
        yield from _ip("remove", going)
        yield from _ipvsadm("servers without connections", changes.collected_lines(live, goal))
        yield from _ipvsadm("services that go", changes.removal_lines(live, goal))
        yield from self._tools.shrinking(live.xtables, goal.xtables)
        if not goal.services:
            yield from _settings(live, goal)


def _modules(state: State) -> list[str]:
    """The kernel modules that the state needs."""
    if not state.services:
        return []
    schedulers = sorted({s.options.split()[1] for s in state.services.values()})
    return ["ip_vs", *(f"ip_vs_{s}" for s in schedulers), *(["dummy"] if state.addresses else [])]


def _loaded(module: str) -> bool:
    return Path("/sys/module", module).exists()


def _available(module: str) -> bool:
    if _loaded(module):
        return True
    try:
        run(["modprobe", "--dry-run", "--quiet", module])
    except CommandError:
        return False
    return True


def _load(modules: Sequence[str]) -> None:
    run(["modprobe", "-a", *modules])


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _addresses() -> frozenset[str] | None:
    """The addresses of the device, None where there is no device."""
    # Of all dummy devices: to ask for one that is not there would be an error.
    links = json.loads(run(["ip", "-json", "address", "show", "type", "dummy"]) or "[]")
    mine = [link for link in links if link.get("ifname") == DEVICE]
    if not mine:
        return None
    return frozenset(
        f"{a['local']}/{a['prefixlen']}"
        for link in mine
        for a in link.get("addr_info", ())
        if a.get("scope") != "link"
    )


def _ipvsadm(what: str, lines: Sequence[str]) -> Iterator[Step]:
    if lines:
        text = "".join(f"{line}\n" for line in lines)
        # Its exit code is that of the last line; what it says is about any.
        yield Step(f"IPVS: {what}", lambda: _do(["ipvsadm", "--restore"], text), len(lines))


def _ip(verb: str, lines: Sequence[str]) -> Iterator[Step]:
    if lines:
        text = "".join(f"{line}\n" for line in lines)
        yield Step(
            f"{DEVICE}: {verb} {len(lines)} addresses", lambda: _do(["ip", "-batch", "-"], text), len(lines)
        )


def _do(argv: Sequence[str], text: str) -> None:
    run(argv, text, quiet=True)


def _settings(live: State, goal: State) -> Iterable[Step]:
    for name, value in sorted(goal.sysctls.items()):
        now = live.sysctls.get(name, "")
        if now != value:
            yield setting_step(name, now, value)


def target(options: InstallOptions) -> IpvsTarget:
    """The grip of this back end (see `backends.target.target_for`)."""
    return IpvsTarget(options)
