"""What netfilter does around IPVS: guards and marks before it, policy and source translation behind it.

Knows: the way of a packet past IPVS. Must not know: the kernel, files.

A packet to a service address is the node's own by its address: it comes by PREROUTING and INPUT to IPVS, which sends it
on by OUTPUT and POSTROUTING with the endpoint's address. A process of the node meets IPVS in OUTPUT, between mangle and
filter. So:

- mangle PREROUTING and OUTPUT see a new connection before IPVS does: source ranges, refusals without an answer, the
  firewall marks that choose a service, and the connection mark that says "masquerade";
- filter INPUT and OUTPUT reject what is for a service address but for no service;
- filter OUTPUT judges what IPVS sends on for others by policy, as FORWARD does with the rest;
- nat POSTROUTING masquerades: what is marked so, an endpoint that reached itself, and what a process of this node sent
  from a service address (the kernel's choice for a destination that is its own).

The mark that says "masquerade" is the connection's, since IPVS compares a packet's whole mark.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.admissions import admit
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.model import Jump, Table
from k8snetc.backends.common.xtables.policy import CUT, KNOWN, judged_before, lower_policy
from k8snetc.backends.common.xtables.sets import Sets, membership
from k8snetc.backends.ipvs.senders import Sender, pod_fragments
from k8snetc.backends.ipvs.sets import RoleSets
from k8snetc.ir.types import Family, Program

MASQUERADE = "0x800/0x800"
"""The bit of the connection mark that says "masquerade"."""

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = (
    f"K8SNETC-{hook}" for hook in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
)
REFUSE = "K8SNETC-REFUSE"

_NEW = " -m conntrack --ctstate NEW"
_FROM_IPVS = " -m ipvs --ipvs"
_FOR_OTHERS = f"{_FROM_IPVS} -m owner ! --socket-exists"
"""What IPVS sends on for somebody else. A source address would not tell: anybody can write the node's into a packet."""
_LOOPBACK = {Family.IPV4: "127.0.0.0/8", Family.IPV6: "::1/128"}


def mangle_table(program: Program, family: Family, roles: RoleSets) -> Table | None:
    """Everything that is decided before IPVS sees a connection."""
    if not roles.classes or not roles.all:
        return None
    chains = Chains()
    arriving = Draft()
    arriving.add(" -i lo -j RETURN")  # from this node itself: decided on its way out
    leaving = Draft()
    leaving.add(f"{_FROM_IPVS} -j RETURN")
    for hook, special, general in ((arriving, Sender.POD, Sender.OTHER), (leaving, Sender.BOTH, Sender.NODE)):
        if roles.guarded:
            hook.add(f"{_in(roles.guarded, 'dst,dst')}{_in(roles.allowed, 'dst,dst,src', no=True)} -j DROP")
        if special in roles.classes:
            chain = _class_chain(chains, family, roles, special)
            for where in pod_fragments(program.node, family, special):
                hook.add(f"{where} -g {chain}" if chain else f"{where} -j RETURN")
        chain = _class_chain(chains, family, roles, general)
        if chain:
            hook.add(f" -g {chain}")
    chains.put(PREROUTING, arriving)
    chains.put(OUTPUT, leaving)
    jumps = (
        Jump("PREROUTING", f"-A PREROUTING{_NEW} -j {PREROUTING}"),
        Jump("OUTPUT", f"-A OUTPUT{_NEW} -j {OUTPUT}"),
    )
    return Table("mangle", chains.all, jumps)


def nat_table(family: Family, roles: RoleSets, *, serves: bool, random_fully: bool) -> Table | None:
    """Source translation. Its text hardly depends on the program."""
    if not serves:
        return None
    end = f" -j MASQUERADE{' --random-fully' if random_fully else ''}"
    draft = Draft()
    draft.add(f" -m connmark --mark {MASQUERADE}{end}")
    draft.add(f"{_FROM_IPVS}{text.SAME_ADDRESS[family]}{end}")
    if roles.addresses:
        draft.add(f"{_FROM_IPVS}{_in(roles.addresses, 'src')}{end}")
    chains = Chains()
    chains.put(POSTROUTING, draft)
    return Table("nat", chains.all, (Jump("POSTROUTING", f"-A POSTROUTING -j {POSTROUTING}"),))


def filter_table(
    program: Program, family: Family, roles: RoleSets, sets: Sets, *, serves: bool, comments: bool
) -> Table | None:
    """Rejections, policy, and what must be let through."""
    chains = Chains()
    policy = lower_policy(program, family, chains, sets, comments=comments, translated=_FROM_IPVS)
    refuse = _refusals(program, family, chains, roles, sets)

    incoming = Draft()
    admit(program, chains, incoming, comments=comments)
    if refuse:
        incoming.add(f"{_NEW} -j {REFUSE}")

    forwarded = Draft()
    if policy is not None:
        forwarded.add(CUT)
    known = (KNOWN,) if policy is None else judged_before(family)
    if serves:
        for one in known:
            forwarded.add(f"{one} -m ipvs --vdir REPLY -j ACCEPT")
    if serves or policy is not None:
        for one in known:
            forwarded.add(f"{one} -j RETURN")
        if program.node.drop_invalid:
            forwarded.add(" -m conntrack --ctstate INVALID -j DROP")
    if refuse:
        forwarded.add(f"{_NEW} -j {REFUSE}")
    if policy is not None:
        forwarded.add(f" -j {policy}")

    outgoing = Draft()
    if policy is not None and serves:
        outgoing.add(f"{_FROM_IPVS}{CUT}")
    if serves:
        for one in known:
            outgoing.add(f"{_FROM_IPVS}{one} -j RETURN")
    if policy is not None and serves:
        outgoing.add(f"{_FOR_OTHERS} -j {policy}")
    if refuse:
        outgoing.add(f" -m ipvs ! --ipvs{_NEW} -j {REFUSE}")

    jumps = []
    for name, draft in ((INPUT, incoming), (FORWARD, forwarded), (OUTPUT, outgoing)):
        if draft.rules:
            chains.put(name, draft)
            hook = name.removeprefix("K8SNETC-")
            jumps.append(Jump(hook, f"-A {hook} -j {name}"))
    return Table("filter", chains.all, tuple(jumps)) if jumps else None


def _class_chain(chains: Chains, family: Family, roles: RoleSets, sender: Sender) -> str:
    """The chain for the packets of one class; "" if there is nothing to do for them."""
    sets = roles.classes[sender]
    draft = Draft()
    _decide(draft, sets.drop, sets.masquerade, sets.mark)
    ports = Draft()
    _decide(ports, sets.port_drop, sets.port_masquerade, sets.port_mark)
    if ports.rules:
        name = chains.put_content("N", ports)
        if roles.frontends:
            draft.add(f"{_in(roles.frontends, 'dst,dst')} -j RETURN")
        foreign = _in(roles.addresses, "dst", no=True) if roles.addresses else ""
        draft.add(f" ! -d {_LOOPBACK[family]} -m addrtype --dst-type LOCAL{foreign} -g {name}")
    return chains.put_content("C", draft) if draft.rules else ""


def _decide(draft: Draft, drop: str, masquerade: str, mark: str) -> None:
    if drop:
        draft.add(f"{_in(drop, 'dst,dst')} -j DROP")
    if masquerade:
        draft.add(f"{_in(masquerade, 'dst,dst')} -j CONNMARK --set-xmark {MASQUERADE}")
    if mark:
        draft.add(f" -j SET --map-set {mark} dst,dst --map-mark")


def _refusals(program: Program, family: Family, chains: Chains, roles: RoleSets, sets: Sets) -> bool:
    """The chain that rejects what is for a service address but for no service, and drops what nobody has."""
    draft = Draft()
    if roles.addresses:
        draft.add(f"{_in(roles.frontends, 'dst,dst')} -j RETURN")
        draft.add(f"{_in(roles.addresses, 'dst')}{text.REJECT[family]}")
    for where, match in _dropped(program, family, sets):
        draft.add(f"{where}{match} -j DROP")
    if not draft.rules:
        return False
    chains.put(REFUSE, draft)
    return True


def _dropped(program: Program, family: Family, sets: Sets) -> Sequence[tuple[str, str]]:
    named = {s.name: s for s in program.sets}
    mine = (named[n] for n in program.drops if named[n].family is family)
    found = (membership(sets, family, s.prefixes, "dst", s.origin) for s in mine)
    return [f for f in found if f is not None]


def _in(name: str, sides: str, *, no: bool = False) -> str:
    return f" -m set{' !' if no else ''} --match-set {name} {sides}"
