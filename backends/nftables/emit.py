"""The model as text that `nft -f` reads.

Knows: the syntax of nft files. Must not know: what rules are for, the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.base import Artifact
from k8snetc.backends.nftables.model import FAMILY_WORDS, TABLE, Chain, NamedSet, Rule, Ruleset, Table
from k8snetc.backends.nftables.words import SAME_BYTE_SPEC
from k8snetc.ir.types import Family


def emit(model: Ruleset, families: tuple[Family, ...]) -> tuple[Artifact, ...]:
    """All artifacts. `families` are the node's: their old tables go even where nothing replaces them."""
    artifacts = [Artifact("k8snetc.nft", ruleset_text(model, families))]
    if model.sysctls:
        lines = ["# Kernel settings. Install with: sysctl -p sysctl.conf"]
        lines += [f"{name} = {value}" for name, value in sorted(model.sysctls.items())]
        artifacts.append(Artifact("sysctl.conf", "\n".join(lines) + "\n"))
    return tuple(artifacts)


def ruleset_text(model: Ruleset, families: tuple[Family, ...]) -> str:
    """One transaction: our old tables go, the new ones come; nobody else's is touched."""
    lines = [
        "# The node's services and policies as nftables. Check with: nft -c -f k8snetc.nft",
        "# Install, all at one stroke: nft -f k8snetc.nft",
    ]
    for family in sorted(families):
        name = f"{FAMILY_WORDS[family]} {TABLE}"
        lines += [f"table {name}", f"delete table {name}"]
    for table in model.tables:
        lines.append("")
        lines.extend(table_lines(table))
    return "\n".join(lines) + "\n"


def table_lines(table: Table) -> Iterator[str]:
    """A table with everything in it."""
    yield f"table {table.words} {{"
    blocks = [list(_set_lines(s)) for s in table.sets] + [list(_chain_lines(c)) for c in table.chains]
    for at, block in enumerate(blocks):
        if at:
            yield ""
        yield from block
    yield "}"


def element(one: NamedSet, key: str) -> str:
    """One element with its comment."""
    note = one.comments.get(key)
    shown = key if note is None else f'{key} comment "{note}"'
    return f"{shown} : {one.elements[key]}" if one.is_map else shown


def rule(one: Rule) -> str:
    """One rule with its comment."""
    return f'{one.text} comment "{one.comment}"' if one.comment else one.text


def _set_lines(one: NamedSet) -> Iterator[str]:
    yield f"\t{one.word} {one.name} {{"
    for line in one.spec:
        yield f"\t\t{line}"
    if one.elements:
        yield "\t\telements = {"
        if one.comments:
            for key in one.elements:
                yield f"\t\t\t{element(one, key)},"
        elif one.is_map:
            for key, value in one.elements.items():
                yield f"\t\t\t{key} : {value},"
        else:
            # What is the same in every program doesn't deserve a line for each.
            width = 8 if SAME_BYTE_SPEC in one.spec else 1
            keys = list(one.elements)
            for at in range(0, len(keys), width):
                yield f"\t\t\t{', '.join(keys[at : at + width])},"
        yield "\t\t}"
    yield "\t}"


def _chain_lines(one: Chain) -> Iterator[str]:
    yield f"\tchain {one.name} {{"
    if one.hook:
        yield f"\t\t{one.hook}"
    for r in one.rules:
        yield f"\t\t{rule(r)}"
    yield "\t}"
