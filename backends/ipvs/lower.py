"""From a program to the IPVS model, both families.

Knows: which parts there are. Must not know: files, the kernel.
"""

from __future__ import annotations

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.model import IpSet, Ruleset, Sysctl, Xtables
from k8snetc.backends.common.xtables.sets import Sets
from k8snetc.backends.ipvs.gaps import gaps
from k8snetc.backends.ipvs.model import Ipvs, RealServer, VirtualService
from k8snetc.backends.ipvs.senders import senders
from k8snetc.backends.ipvs.sets import role_sets
from k8snetc.backends.ipvs.tables import filter_table, mangle_table, nat_table
from k8snetc.backends.ipvs.virtual import Virtual
from k8snetc.ir.types import Address, Family, Network, Program

SYSCTLS = (
    # Connections of IPVS are conntrack's too, or nothing behind it could be masqueraded or judged.
    Sysctl("net.ipv4.vs.conntrack", "1"),
    # A connection whose server is gone ends with its next packet, instead of vanishing into silence.
    Sysctl("net.ipv4.vs.expire_nodest_conn", "1"),
    # A server that is leaving (weight 0) gets no new connections by the memory of an affinity either.
    Sysctl("net.ipv4.vs.expire_quiescent_template", "1"),
    # A client's port that is used again makes a new connection (Linux 5.9 and later do it without a delay).
    Sysctl("net.ipv4.vs.conn_reuse_mode", "1"),
)
KERNEL_DEFAULTS = {
    "net.ipv4.vs.conntrack": "0",
    "net.ipv4.vs.expire_nodest_conn": "0",
    "net.ipv4.vs.expire_quiescent_template": "0",
    "net.ipv4.vs.conn_reuse_mode": "1",
}
"""What these settings are where nobody has loaded IPVS yet."""
STRICT_ARP = (Sysctl("net.ipv4.conf.all.arp_ignore", "1"), Sysctl("net.ipv4.conf.all.arp_announce", "2"))
"""Nobody outside learns that the node has the service addresses (kube-proxy `--ipvs-strict-arp`)."""
ANSWERS = (Sysctl("net.ipv4.conf.all.accept_local", "1"),)
"""What a pod of this node answers for itself (direct, tunnel) bears an address that the node has too: let it pass."""


def lower(
    program: Program,
    *,
    comments: bool = True,
    scheduler: str = "rr",
    strict_arp: bool = False,
    random_fully: bool = True,
) -> Ipvs:
    """The model of everything the node needs. Raises `UnsupportedError` with all gaps at once."""
    found = gaps(program, scheduler)
    if found:
        raise UnsupportedError("ipvs", found)
    named = {s.name: s for s in program.sets}
    sets = Sets()
    made: list[IpSet] = []
    services: list[VirtualService] = []
    addresses: list[str] = []
    real_servers: list[RealServer] = []
    rulesets = []
    for family in sorted(program.node.families):
        virtual = Virtual(program, family, scheduler)
        services.extend(virtual.services)
        real_servers.extend(virtual.real_servers)
        bound = _bound(program, family)
        addresses.extend(f"{a}/{family.bits}" for a in bound)
        roles = role_sets(
            family,
            virtual.plans,
            senders(program.node, family),
            bound=bound,
            networks=_served(program, family),
            named=named,
            own=program.node.addresses,
        )
        made.extend(roles.all.values())
        serves = bool(virtual.plans)
        tables = (
            filter_table(program, family, roles, sets, serves=serves, comments=comments),
            mangle_table(program, family, roles),
            nat_table(family, roles, serves=serves, random_fully=random_fully),
        )
        present = tuple(t for t in tables if t is not None)
        if present:
            rulesets.append(Ruleset(family, present))
    answers = any(r.family is Family.IPV4 for r in real_servers)
    settings = (*SYSCTLS, *(STRICT_ARP if strict_arp else ()), *(ANSWERS if answers else ()))
    all_sets = tuple(sorted((*made, *sets.all), key=lambda s: s.name))
    return Ipvs(
        tuple(sorted(services, key=lambda s: s.key)),
        tuple(addresses),
        Xtables(tuple(rulesets), all_sets),
        settings if services else (),
        tuple(sorted(real_servers, key=lambda r: (r.server, r.address))),
    )


def _served(program: Program, family: Family) -> list[Network] | None:
    """The networks of the node's addresses that serve NodePorts; None for all."""
    networks = program.node.nodeport_networks
    return [n for n in networks if n.version == family] if networks else None


def _bound(program: Program, family: Family) -> list[str]:
    """The service addresses that the device has to carry: all but the node's own."""
    own = frozenset(program.node.addresses)
    found: set[Address] = {
        f.address
        for f in program.frontends
        if f.family is family and f.address is not None and f.address not in own
    }
    return [text.address(a) for a in sorted(found, key=int)]
