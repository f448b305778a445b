"""IP sets by their role: which addresses are ours, which senders of which frontend are dropped, masqueraded, marked.

Knows: ipset's spelling of elements and the names of roles. Must not know: rules.

A change of a service is a change of elements, whatever the number of services: so names say the role, not the content.
Sender classes for which a role has equal content share one set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.model import PREFIX, IpSet
from k8snetc.backends.ipvs.senders import Sender
from k8snetc.backends.ipvs.virtual import Plan
from k8snetc.ir.addresses import Members, network_of, prefix_of
from k8snetc.ir.types import Address, AddressSet, Family, Network, Prefix, Protocol

ROOM = 1 << 20
"""Elements that a set may hold. One number for all, since a set keeps its size for life; room costs nothing."""


@dataclass(frozen=True, slots=True)
class ClassSets:
    """The sets of one sender class, "" where there is nothing: for addresses, and for the node's ports."""

    drop: str = ""
    masquerade: str = ""
    mark: str = ""
    port_drop: str = ""
    port_masquerade: str = ""
    port_mark: str = ""


@dataclass(slots=True)
class RoleSets:
    """The sets of one family. `addresses`: on the device; `frontends`: address and port of all frontends with one."""

    all: dict[str, IpSet] = field(default_factory=dict)
    addresses: str = ""
    frontends: str = ""
    guarded: str = ""
    allowed: str = ""
    classes: dict[Sender, ClassSets] = field(default_factory=dict)


def role_sets(
    family: Family,
    plans: Sequence[Plan],
    classes: Sequence[Sender],
    *,
    bound: Iterable[str],
    networks: Sequence[Network] | None,
    named: Mapping[str, AddressSet],
    own: Iterable[Address],
) -> RoleSets:
    """The sets for these plans.

    `bound` are the device's addresses, `networks` those where the node serves NodePorts (None:
    everywhere), `own` the node's addresses.
    """
    sets = RoleSets()
    one = _Maker(family, sets.all)
    at = [p for p in plans if p.frontend.address is not None]
    ports = [p for p in plans if p.frontend.address is None]
    guarded = [(p, named[p.frontend.sources]) for p in at if p.frontend.sources is not None]
    guarded = [(p, s) for p, s in guarded if not any(r.length == 0 for r in s.prefixes)]
    sets.addresses = one.make("ADDRESSES", "hash:ip", bound)
    sets.frontends = one.make("FRONTENDS", "hash:ip,port", (place(p) for p in at))
    sets.guarded = one.make("GUARDED", "hash:ip,port", (place(p) for p, _ in guarded))
    sets.allowed = one.make(
        "ALLOWED",
        "hash:ip,port,net",
        (e for p, s in guarded for e in _allowed(p, s, own)),
    )
    halves = [network_of(family, Prefix(top << (family.bits - 1), 1)) for top in (0, 1)]
    everywhere = [network_of(family, Prefix(0, 0))] if networks is None else networks
    # A hash:net set has no /0.
    served = [part for n in everywhere for part in (halves if n.prefixlen == 0 else [n])]

    def place_nodes(plan: Plan) -> list[str]:
        return [f"{_network(n)},{_port(plan)}" for n in served]

    roles = {
        "drop": ("DROP", "hash:ip,port", {c: [place(p) for p in at if c in p.drops] for c in classes}),
        "masquerade": (
            "MASQ",
            "hash:ip,port",
            {c: [place(p) for p in at if c in p.masquerades] for c in classes},
        ),
        "mark": (
            "MARK",
            "hash:ip,port",
            {c: [_marked(place(p), p.marks[c]) for p in at if c in p.marks] for c in classes},
        ),
        "port_drop": (
            "PORTDROP",
            "hash:net,port",
            {c: [e for p in ports if c in p.drops for e in place_nodes(p)] for c in classes},
        ),
        "port_masquerade": (
            "PORTMASQ",
            "hash:net,port",
            {c: [e for p in ports if c in p.masquerades for e in place_nodes(p)] for c in classes},
        ),
        "port_mark": (
            "PORTMARK",
            "hash:net,port",
            {
                c: [_marked(e, p.marks[c]) for p in ports if c in p.marks for e in place_nodes(p)]
                for c in classes
            },
        ),
    }
    found: dict[Sender, dict[str, str]] = {c: {} for c in classes}
    for role, (name, kind, contents) in roles.items():
        for sender, made in one.share(name, kind, contents).items():
            found[sender][role] = made
    sets.classes = {c: ClassSets(**names) for c, names in found.items()}
    return sets


def place(plan: Plan) -> str:
    """`10.96.0.1,tcp:80`: an element of a hash:ip,port set."""
    assert plan.frontend.address is not None
    return f"{text.address(plan.frontend.address)},{_port(plan)}"


class _Maker:
    def __init__(self, family: Family, made: dict[str, IpSet]) -> None:
        self._family = family
        self._made = made

    def make(self, role: str, kind: str, elements: Iterable[str]) -> str:
        """The name of a new set, "" if it would be empty."""
        content = tuple(sorted(elements))
        if not content:
            return ""
        name = f"{PREFIX}{self._family.value}-{role}"
        options = f"maxelem {ROOM}" + (" skbinfo" if "MARK" in role else "")
        self._made[name] = IpSet(name, kind, self._family, options, content)
        return name

    def share(self, role: str, kind: str, contents: Mapping[Sender, Sequence[str]]) -> dict[Sender, str]:
        """One set for the classes of equal content, named by their letters."""
        groups: dict[tuple[str, ...], list[Sender]] = {}
        for sender, elements in contents.items():
            groups.setdefault(tuple(sorted(elements)), []).append(sender)
        return {
            sender: self.make(f"{role}-{''.join(s.value for s in members)}", kind, elements)
            for elements, members in groups.items()
            for sender in members
        }


def _allowed(plan: Plan, sources: AddressSet, own: Iterable[Address]) -> list[str]:
    """The clients that a guarded frontend lets in.

    A process of this node speaks to an address on its device from that address: where the node may, that may.
    """
    prefixes = list(sources.prefixes)
    members = Members(sources.family, sources.prefixes)
    if plan.frontend.address is not None and any(
        a.version == sources.family and int(a) in members for a in own
    ):
        prefixes.append(prefix_of(plan.frontend.address))
    return [f"{place(plan)},{_prefix(sources.family, p)}" for p in dict.fromkeys(prefixes)]


def _port(plan: Plan) -> str:
    protocol: Protocol = plan.frontend.protocol
    return f"{protocol.value}:{plan.frontend.port}"


def _marked(element: str, mark: int) -> str:
    return f"{element} skbmark {mark:#x}"


def _prefix(family: Family, prefix: Prefix) -> str:
    return _network(network_of(family, prefix))


def _network(network: Network) -> str:
    shown = text.address(network.network_address)
    return shown if network.prefixlen == network.max_prefixlen else f"{shown}/{network.prefixlen}"
