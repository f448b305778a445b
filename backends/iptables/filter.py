"""The filter table: refusals, policy, and what must be let through for services to work.

Knows: the order in which these are asked in INPUT, FORWARD and OUTPUT. Must not know: how each is written.
"""

from __future__ import annotations

from k8snetc.backends.common.xtables.admissions import admit
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.masquerade import MARK
from k8snetc.backends.common.xtables.model import Jump, Table
from k8snetc.backends.common.xtables.policy import CUT, KNOWN, judged_before, lower_policy
from k8snetc.backends.common.xtables.sets import Sets
from k8snetc.backends.iptables.refusals import lower_refusals
from k8snetc.ir.types import Family, Program

INPUT = "K8SNETC-INPUT"
FORWARD = "K8SNETC-FORWARD"
OUTPUT = "K8SNETC-OUTPUT"

_NEW = " -m conntrack --ctstate NEW"

JUMPS = {
    INPUT: Jump("INPUT", f"-A INPUT -j {INPUT}"),
    FORWARD: Jump("FORWARD", f"-A FORWARD -j {FORWARD}"),
    OUTPUT: Jump("OUTPUT", f"-A OUTPUT{_NEW} -j {OUTPUT}"),
}


def filter_table(program: Program, family: Family, sets: Sets, *, comments: bool) -> Table | None:
    """The filter table of one family; None if there is nothing for it to do."""
    chains = Chains()
    refusals = lower_refusals(program, family, chains, sets, comments=comments)
    policy = lower_policy(program, family, chains, sets, comments=comments)
    serves = any(f.family is family for f in program.frontends)
    refuse = f"{_NEW} -j {refusals}"

    incoming = Draft()
    if serves and program.node.localhost_nodeports and family is Family.IPV4:
        # Routing to 127.0.0.0/8 is open for NodePorts; nobody else may come in by it (CVE-2020-8558).
        guard = " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        incoming.add(f" ! -s 127.0.0.0/8 -d 127.0.0.0/8{guard}")
    admit(program, chains, incoming, comments=comments)
    if refusals is not None:
        incoming.add(refuse)

    forwarded = Draft()
    if policy is not None:
        forwarded.add(CUT)
    known = (KNOWN,) if policy is None else judged_before(family)
    if serves:
        for one in known:
            forwarded.add(f"{one} -m conntrack --ctstate DNAT -j ACCEPT")
    if serves or policy is not None:
        for one in known:
            forwarded.add(f"{one} -j RETURN")
        if program.node.drop_invalid:
            forwarded.add(" -m conntrack --ctstate INVALID -j DROP")
    if refusals is not None:
        forwarded.add(refuse)
    if policy is not None:
        forwarded.add(f" -j {policy}")
    if serves:
        forwarded.add(f" -m mark --mark {MARK} -j ACCEPT")

    outgoing = Draft()
    if refusals is not None:
        outgoing.add(f" -j {refusals}")

    jumps = []
    for name, draft in ((INPUT, incoming), (FORWARD, forwarded), (OUTPUT, outgoing)):
        if draft.rules:
            chains.put(name, draft)
            jumps.append(JUMPS[name])
    return Table("filter", chains.all, tuple(jumps)) if jumps else None
