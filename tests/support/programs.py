"""Programs at random for node w1 of the lab cluster `tests.support.lab.small`, and flows through that node.

Programs are valid but need not come from any manifest: they reach corners that no manifest does. Every back end can be
tested with them: `tests.support.flows` compares what packets did with what the interpreter says.

What one node's rules can't decide is left out: an outside client that is sent to a pod of another node without
masquerading would be answered by that node directly, with the pod's address; a packet from 127.0.0.1 does not
leave the node unless it is masqueraded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from k8snetc.ir.addresses import address_of, cover, cover_prefixes, prefix_of
from k8snetc.ir.types import (
    Action,
    Address,
    AddressSet,
    Affinity,
    Balance,
    Balancer,
    Detector,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    FromInterface,
    Frontend,
    Node,
    Origin,
    PortRange,
    Prefix,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)
from k8snetc.ir.verify import verify
from k8snetc.lab.probe import Probe
from k8snetc.lab.topology import Topology

NODE = "w1"
GATEWAY_CLIENT = "client/out"
LISTENING = {Protocol.TCP: (8080, 8081), Protocol.UDP: (5353,), Protocol.SCTP: (9999,)}
CLUSTER_IPS = {Family.IPV4: int(ip_address("10.96.0.0")), Family.IPV6: int(ip_address("fd96::"))}
BALANCER_IPS = {Family.IPV4: int(ip_address("192.0.2.0")), Family.IPV6: int(ip_address("2001:db8:2::"))}
ORIGIN = Origin("cluster.yaml", 7, "Service", "shop", "web")


class Generator:
    """Makes one program for node w1 from a seed."""

    def __init__(self, topology: Topology, seed: int, families: Sequence[Family] = tuple(Family)) -> None:
        self.topology = topology
        self.random = random.Random(seed)
        self.families = tuple(families)
        self.balancers: list[Balancer] = []
        self.sets: list[AddressSet] = []
        self.frontends: dict[tuple[Address | Family, Protocol, int], Frontend] = {}

    def program(self, *, services: int = 12, policy: bool = True) -> Program:
        """A program with about that many service ports per family."""
        node = self._node()
        enforcements: list[Enforcement] = []
        rejects: list[str] = []
        drops: list[str] = []
        for family in self.families:
            for number in range(services):
                self._service(node, family, number)
            base = CLUSTER_IPS[family]
            known = {int(f.address) for f in self.frontends.values() if f.address is not None}
            ours = [v for v in range(base, base + 64) if v in known]
            if ours and self.random.random() < 0.7:
                rejects.append(self._set(family, cover(family, [(v, v) for v in ours])))
            if self.random.random() < 0.4:
                free = [(v, v) for v in range(base, base + 64) if v not in ours]
                drops.append(self._set(family, cover(family, free)))
            if policy:
                enforcements.extend(self._enforcements(family))
        return verify(
            Program(
                node,
                tuple(self.balancers),
                tuple(self.frontends.values()),
                tuple(self.sets),
                tuple(rejects),
                tuple(drops),
                (),
                tuple(enforcements),
            )
        )

    # --- the node ---

    def _node(self) -> Node:
        w1 = self.topology.node_by_name[NODE]
        cluster = [ip_network(n) for n in ("10.244.0.0/16", "fd44::/16")]
        apart = [ip_network(n) for n in ("10.244.1.0/24", "10.244.2.0/24", "fd44:1::/64", "fd44:2::/64")]
        scattered = [f"10.244.{n}.0/26" for n in (1, 2, 5, 9, 77, 200)]
        scattered += [f"fd44:{n}::/120" for n in (1, 2, 5, 9, 77, 200)]
        detectors: list[Detector] = [
            SourceIn(tuple(cluster)),
            SourceIn(tuple(apart)),
            SourceIn(tuple(ip_network(n) for n in scattered)),
            FromInterface("pod", prefix=True),
            None,
        ]
        detector = self.random.choice(detectors)
        return Node(
            NODE,
            self.families,
            tuple(a for a in w1.addresses if a.version in self.families),
            w1.pod_networks,
            detector,
            nodeport_networks=self.random.choice(
                [(), (), (ip_network("172.18.0.0/24"), ip_network("fd18::/64")), (ip_network("0.0.0.0/0"),)]
            ),
            localhost_nodeports=self.random.random() < 0.5,
        )

    # --- services ---

    def _service(self, node: Node, family: Family, number: int) -> None:
        protocol = self.random.choice(tuple(Protocol))
        exposure = self.random.choice(tuple(Exposure))
        address: Address | None = None
        port = self.random.choice((80, 80, 443, 53))
        match exposure:
            case Exposure.CLUSTER_IP:
                address = address_of(family, CLUSTER_IPS[family] + self.random.randrange(1, 48))
            case Exposure.NODE_PORT:
                port = 30000 + self.random.randrange(40)
            case Exposure.EXTERNAL_IP | Exposure.LOAD_BALANCER:
                address = address_of(family, BALANCER_IPS[family] + self.random.randrange(1, 48))
                if self.random.random() < 0.15:  # the node's own address, perhaps at a NodePort's port
                    address = next(a for a in node.addresses if a.version == family)
                    port = 30000 + self.random.randrange(40)
        sources = None
        if exposure is Exposure.LOAD_BALANCER and self.random.random() < 0.5:
            sources = self._set(family, self._peers(family))
        frontend = Frontend(
            exposure,
            family,
            address,
            protocol,
            port,
            self._routes(family, protocol, number, exposure),
            sources,
            f"shop/web-{number}:p",
            ORIGIN,
        )
        key = (family if address is None else address, protocol, port)
        self.frontends.setdefault(key, frontend)

    def _routes(
        self, family: Family, protocol: Protocol, number: int, exposure: Exposure
    ) -> tuple[Route, ...]:
        whos = [w for w in (Who.CLUSTER, Who.NODE) if self.random.random() < 0.5]
        routes = [Route(w, self._action(family, protocol, f"{number} {w.value}", remote=True)) for w in whos]
        anybody = self._action(family, protocol, f"{number} any", remote=False)
        if self.random.random() < 0.5 and isinstance(anybody, Balance):
            routes = [Route(r.who, Balance(anybody.balancer, self.random.random() < 0.5)) for r in routes]
        return (*routes, Route(Who.ANY, anybody))

    def _action(self, family: Family, protocol: Protocol, name: str, *, remote: bool) -> Action:
        if self.random.random() < 0.15:
            return self.random.choice(tuple(Refusal))
        masquerade = self.random.random() < 0.5
        # Without masquerading, an outside client must be answered through this node.
        local_only = not remote and not masquerade
        places = [p for p in self.topology.pods if not p.host_network and (p.node == NODE or not local_only)]
        all_of_them = [
            Endpoint(a, port, p.node == NODE, self.random.choice((1, 1, 3)))
            for p in places
            for a in p.addresses
            if a.version == family
            for port in LISTENING[protocol]
        ]
        chosen = self.random.sample(all_of_them, self.random.randint(1, len(all_of_them)))
        if not local_only and protocol is Protocol.TCP and self.random.random() < 0.2:
            host = self.topology.address("node/w2", family)
            assert host is not None
            chosen.append(Endpoint(host, 7070))
        affinity = Affinity(f"{name} {family}", 60) if self.random.random() < 0.25 else None
        balancer = Balancer(f"{name} {family}", family, protocol, tuple(chosen), affinity)
        if all(b.name != balancer.name for b in self.balancers):
            self.balancers.append(balancer)
        else:
            self.balancers = [balancer if b.name == balancer.name else b for b in self.balancers]
        return Balance(balancer.name, masquerade)

    # --- sets and policy ---

    def _set(self, family: Family, prefixes: tuple[Prefix, ...]) -> str:
        name = f"set {len(self.sets)}"
        self.sets.append(AddressSet(name, family, prefixes, ORIGIN))
        return name

    def _peers(self, family: Family) -> tuple[Prefix, ...]:
        everyone = [a for a in self.topology.owners if a.version == family]
        if self.random.random() < 0.1:
            return (Prefix(0, 0),)
        prefixes = [prefix_of(a) for a in self.random.sample(everyone, self.random.randrange(len(everyone)))]
        for a in self.random.sample(everyone, 2):
            if self.random.random() < 0.4:
                length = family.bits - self.random.choice((1, 4, 8))
                prefixes.append(Prefix(int(a) >> (family.bits - length) << (family.bits - length), length))
        return cover_prefixes(family, prefixes)

    def _rule(self, family: Family, verdicts: Sequence[Verdict]) -> Rule:
        peers = None if self.random.random() < 0.3 else self._set(family, self._peers(family))
        verdict = self.random.choice(verdicts)
        if self.random.random() < 0.3:
            return Rule(verdict, peers, origin=ORIGIN)
        protocol = self.random.choice(tuple(Protocol))
        ports: tuple[PortRange, ...] = ()
        if self.random.random() < 0.8:
            numbers = self.random.sample(
                (1, 80, 5353, 7070, 8080, 8081, 9999, 20000), self.random.randint(1, 5)
            )
            ports = tuple(PortRange(n, n) for n in sorted(numbers) if n not in {8081})
            if 8081 in numbers:
                ports = tuple(r for r in ports if r.first != 8080)
                ports = tuple(sorted((*ports, PortRange(8080, 8081))))
            if self.random.random() < 0.2:
                ports = tuple(sorted((*ports, *(PortRange(30000 + 2 * i, 30000 + 2 * i) for i in range(18)))))
        return Rule(verdict, peers, protocol, ports, ORIGIN)

    def _enforcements(self, family: Family) -> Iterator[Enforcement]:
        local = [a for p in self.topology.pods if p.node == NODE for a in p.addresses if a.version == family]
        for direction in Direction:
            if self.random.random() < 0.3:
                continue
            groups = [tuple(local)] if self.random.random() < 0.3 else [(a,) for a in local]
            for pods in groups:
                if self.random.random() < 0.2:
                    continue
                isolated = self.random.random() < 0.7
                rules = [self._rule(family, (Verdict.ALLOW,)) for _ in range(self.random.randrange(5))]
                yield Enforcement(
                    f"{direction.value} {pods}",
                    family,
                    direction,
                    pods,
                    isolated,
                    tuple(rules) if isolated else (),
                    self._tier(family),
                    self._tier(family),
                    (ORIGIN,),
                )

    def _tier(self, family: Family) -> tuple[Rule, ...]:
        if self.random.random() < 0.6:
            return ()
        return tuple(self._rule(family, tuple(Verdict)) for _ in range(self.random.randint(1, 3)))


def flows(program: Program, topology: Topology, seed: int) -> list[Probe]:
    """Every sender that packets reach w1 from, to every address and port that means something to the program."""
    rng = random.Random(seed)
    senders = [
        *(p.place for p in topology.pods if p.node == NODE and not p.host_network),
        f"node/{NODE}",
        GATEWAY_CLIENT,
    ]
    probes: list[Probe] = []
    for family in program.node.families:
        targets: list[tuple[Address, Protocol | None, int]] = []
        nodes_own = [a for a in program.node.addresses if a.version == family]
        for f in program.frontends:
            if f.family is not family:
                continue
            for address in [f.address] if f.address is not None else nodes_own:
                targets.append((address, f.protocol, f.port))
                if f.address is not None and int(f.address) >> 6 == CLUSTER_IPS[family] >> 6:
                    targets.append((address, f.protocol, 999))
                    targets.append((address, None, 0))
        targets.append((address_of(family, CLUSTER_IPS[family] + 60), Protocol.TCP, 80))
        for pod in topology.pods:
            for address in (a for a in pod.addresses if a.version == family):
                targets.append((address, None, 0))
                targets.extend((address, proto, port) for proto, ports in LISTENING.items() for port in ports)
        for sender in senders:
            for address, protocol, port in dict.fromkeys(targets):
                probes.append(Probe(sender, address, protocol, port))
        if family is Family.IPV4:
            probes.extend(
                Probe(f"node/{NODE}", ip_address("127.0.0.1"), f.protocol, f.port)
                for f in program.frontends
                if f.address is None and f.family is family and _answers_loopback(f)
            )
    rng.shuffle(probes)
    return probes


def _answers_loopback(frontend: Frontend) -> bool:
    """Whether a connection to 127.0.0.1 can work at all. (The lab's SCTP does not speak there.)"""
    for route in frontend.routes:
        if route.who is not Who.CLUSTER:
            masquerades = not isinstance(route.action, Balance) or route.action.masquerade
            return masquerades and frontend.protocol is not Protocol.SCTP
    return False
