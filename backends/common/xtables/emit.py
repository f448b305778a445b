"""The model of iptables and ipset as the text that their restore programs read.

Knows: file names, and what a person has to do with each file. Must not know: what the rules are for.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8snetc.backends.base import Artifact
from k8snetc.backends.common.xtables.model import IpSet, Ruleset, Sysctl, Table, Xtables
from k8snetc.ir.types import Family

BY_CONTENT = "A set's name is made of its content: an unchanged set is left as it is."
TOOL = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}


def emit(model: Xtables, sets_note: str = BY_CONTENT) -> tuple[Artifact, ...]:
    """All artifacts, in the order in which they are installed."""
    artifacts = []
    if model.sets:
        artifacts.append(Artifact("ipset.restore", sets_text(model.sets, sets_note)))
    if model.sysctls:
        artifacts.append(Artifact("sysctl.conf", sysctls_text(model.sysctls)))
    for ruleset in model.rulesets:
        tool = TOOL[ruleset.family]
        artifacts.extend(
            Artifact(f"{tool}-{t.name}.restore", table_text(ruleset.family, t)) for t in ruleset.tables
        )
    artifacts.extend(
        Artifact(f"{TOOL[r.family]}-jumps.restore", jumps_text(r))
        for r in model.rulesets
        if any(t.jumps for t in r.tables)
    )
    return tuple(artifacts)


def sets_text(sets: Iterable[IpSet], note: str = BY_CONTENT) -> str:
    """Text for `ipset restore`: every set, then its elements. `note` is for people."""
    lines = ["# IP sets. Install with: ipset -exist restore < ipset.restore", f"# {note}"]
    for one in sets:
        lines.append(one.create)
        lines.extend(f"add {one.name} {e}" for e in one.elements)
    return "\n".join(lines) + "\n"


def table_text(family: Family, table: Table) -> str:
    """Text for iptables-restore: our own chains, each replaced as a whole, all at once."""
    tool = TOOL[family]
    lines = [
        f"# Our chains of the {table.name} table; nobody else's. Replaces them at one stroke:",
        f"# {tool}-restore --noflush < {tool}-{table.name}.restore",
        f"*{table.name}",
    ]
    lines.extend(f":{c.name} - [0:0]" for c in table.chains)
    for chain in table.chains:
        lines.extend(chain.lines)
    lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def jumps_text(ruleset: Ruleset) -> str:
    """Text for iptables-restore: the rules in built-in chains that lead to ours."""
    tool = TOOL[ruleset.family]
    lines = [
        "# The jumps from built-in chains to ours. They never change: install them once, after the tables",
        f"# ({tool}-restore --noflush < {tool}-jumps.restore). A second time would add them a second time,",
        "# which is harmless but slow; `k8snetc apply` looks before it adds.",
    ]
    for table in ruleset.tables:
        if table.jumps:
            lines.append(f"*{table.name}")
            lines.extend(j.insert for j in table.jumps)
            lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def sysctls_text(sysctls: Iterable[Sysctl]) -> str:
    """Text for `sysctl -p`."""
    lines = ["# Kernel parameters that the rules rely on. Install with: sysctl -p sysctl.conf"]
    lines.extend(f"{s.name} = {s.value}" for s in sysctls)
    return "\n".join(lines) + "\n"
