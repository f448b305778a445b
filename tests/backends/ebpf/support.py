"""Programs for the nodes of the lab's small cluster, and how tests put them into a node's kernel."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from k8snetc.backends.ebpf.install import EbpfTarget, target
from k8snetc.backends.ebpf.state import State
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.addresses import cover_prefixes, prefix_of
from k8snetc.ir.types import (
    Address,
    AddressSet,
    Affinity,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    PortRange,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)
from tests.support.lab import SCTP, TCP, UDP

PORTS = {TCP: 8080, UDP: 5353, SCTP: 9999}
NODES = {"w1": 1, "w2": 2}
# host on its node of each pod of the lab's small cluster
PODS = {"a": (1, 2), "b": (1, 3), "c": (2, 2), "d": (2, 3)}


def of(family: Family, text4: str, text6: str) -> Address:
    return ip_address(text4 if family is Family.IPV4 else text6)


def pod(family: Family, name: str) -> Address:
    node, host = PODS[name]
    return of(family, f"10.244.{node}.{host}", f"fd44:{node}::{host}")


def node_address(family: Family, number: int) -> Address:
    return of(family, f"172.18.0.{number}", f"fd18::{number}")


def service(family: Family, number: int) -> Address:
    return of(family, f"10.96.0.{number}", f"fd96::{number}")


def address_set(name: str, family: Family, *addresses: Address | str) -> AddressSet:
    prefixes = [prefix_of(ip_network(a)) if isinstance(a, str) else prefix_of(a) for a in addresses]
    return AddressSet(name, family, cover_prefixes(family, prefixes))


class _Kinds:
    """Every kind of frontend, for one node, family and protocol."""

    def __init__(self, number: int, family: Family, protocol: Protocol) -> None:
        self.number, self.family, self.protocol = number, family, protocol
        self.balancers: list[Balancer] = []
        self.frontends: list[Frontend] = []
        everyone, some = self.balancer("all", "abcd"), self.balancer("local", "ab" if number == 1 else "cd")
        sticky = self.balancer("sticky", "abcd", Affinity(f"sticky-{protocol}-{family}", 100))
        one = self.balancer("one", "a")
        outside = (Route(Who.ANY, Balance(everyone, masquerade=True)),)
        preserved = (
            Route(Who.CLUSTER, Balance(everyone)),
            Route(Who.NODE, Balance(everyone, masquerade=True)),
            Route(Who.ANY, Balance(some)),
        )
        for host, routes in enumerate(
            (
                (Route(Who.CLUSTER, Balance(everyone)), Route(Who.ANY, Balance(everyone, masquerade=True))),
                (Route(Who.ANY, Refusal.REJECT),),
                (Route(Who.ANY, Refusal.DROP),),
                (Route(Who.ANY, Balance(sticky, masquerade=True)),),
                (Route(Who.ANY, Balance(one)),),
            ),
            1,
        ):
            self.frontend(Exposure.CLUSTER_IP, service(family, host), 80, routes)
        self.frontend(Exposure.NODE_PORT, None, 30080, outside)
        self.frontend(Exposure.NODE_PORT, None, 30081, preserved)
        self.frontend(Exposure.NODE_PORT, None, 30082, (Route(Who.ANY, Refusal.REJECT),))
        self.frontend(Exposure.EXTERNAL_IP, of(family, "192.0.2.10", "2001:db8:e::10"), 80, outside)
        guarded = of(family, "192.0.2.20", "2001:db8:e::20")
        self.frontend(Exposure.LOAD_BALANCER, guarded, 80, preserved, f"allowed{family.value}")

    def balancer(self, label: str, pods: str, affinity: Affinity | None = None) -> str:
        endpoints = tuple(
            Endpoint(pod(self.family, p), PORTS[self.protocol], local=PODS[p][0] == self.number) for p in pods
        )
        name = f"{label}-{self.protocol}-{self.family.value}"
        self.balancers.append(Balancer(name, self.family, self.protocol, endpoints, affinity))
        return name

    def frontend(
        self,
        exposure: Exposure,
        address: Address | None,
        port: int,
        routes: tuple[Route, ...],
        sources: str | None = None,
    ) -> None:
        self.frontends.append(
            Frontend(
                exposure, self.family, address, self.protocol, port, routes, sources, service=f"shop/{port}"
            )
        )


def services(name: str, families: tuple[Family, ...] = tuple(Family)) -> Program:
    """The program of node `name`: every kind of frontend, in every protocol and family."""
    kinds = [_Kinds(NODES[name], f, p) for f in families for p in Protocol]
    sets: list[AddressSet] = []
    for family in families:
        v = family.value
        known = of(family, "203.0.113.9", "2001:db8::9")
        sets.append(address_set(f"allowed{v}", family, known, pod(family, "a")))
        sets.append(address_set(f"cluster-ips{v}", family, *(service(family, n) for n in range(1, 6))))
        sets.append(address_set(f"range{v}", family, "10.96.0.0/16" if v == 4 else "fd96::/112"))
    return Program(
        node=node(name, families),
        balancers=tuple(b for k in kinds for b in k.balancers),
        frontends=tuple(f for k in kinds for f in k.frontends),
        sets=tuple(sets),
        rejects=tuple(f"cluster-ips{f.value}" for f in families),
        drops=tuple(f"range{f.value}" for f in families),
    )


def node(name: str, families: tuple[Family, ...] = tuple(Family)) -> Node:
    number = NODES[name]
    return Node(
        name,
        families,
        tuple(node_address(f, number) for f in families),
        tuple(ip_network(f"10.244.{number}.0/24" if f == 4 else f"fd44:{number}::/64") for f in families),
        SourceIn(tuple(ip_network("10.244.0.0/16" if f == 4 else "fd44::/16") for f in families)),
    )


def install(program: Program, options: InstallOptions) -> tuple[str, ...]:
    """Install in the namespaces of the caller, and check that what is observed is what was wanted."""
    one = target(options)
    live = one.observe()
    goal = one.desired(program)
    done = []
    for step in one.steps(live, goal):
        step.run()
        done.append(step.title)
    again = one.observe()
    changes = one.changes(again, goal)
    assert not changes, "\n".join(map(str, changes[:20]))
    return tuple(done)


def removed(options: InstallOptions, before: State) -> None:
    one: EbpfTarget = target(options)
    for step in one.steps(one.observe(), before):
        step.run()
    assert not one.changes(one.observe(), before)


def policies(name: str, families: tuple[Family, ...] = tuple(Family)) -> Program:
    """The program of node `name`: no services, pod a open to b at one port and to nobody else, pod c mute."""
    sets: list[AddressSet] = []
    enforcements: list[Enforcement] = []
    for family in families:
        v = family.value
        sets.append(address_set(f"b{v}", family, pod(family, "b")))
        if name == "w1":
            allow = Rule(Verdict.ALLOW, f"b{v}", TCP, (PortRange(8080, 8080),))
            enforcements.append(
                Enforcement(f"a-in-{v}", family, Direction.INGRESS, (pod(family, "a"),), rules=(allow,))
            )
        else:
            enforcements.append(Enforcement(f"c-out-{v}", family, Direction.EGRESS, (pod(family, "c"),)))
    return Program(node=node(name, families), sets=tuple(sets), enforcements=tuple(enforcements))


def both(name: str, families: tuple[Family, ...] = tuple(Family)) -> Program:
    """Services and policies together."""
    one, other = services(name, families), policies(name, families)
    return replace(one, sets=one.sets + other.sets, enforcements=other.enforcements)
