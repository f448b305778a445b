"""What a plan says about connections is what the interpreter says of every packet: nothing left out or made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8snetc.apply import words
from k8snetc.apply.connectivity import Effect, effects
from k8snetc.ir.addresses import cover_prefixes, prefix_of
from k8snetc.ir.interpret import Interpreter, Sender
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

V4 = Family.IPV4
PODS = [ip_address(f"10.0.0.{n}") for n in range(1, 5)]
ADDRESSES = [ip_address(f"10.0.0.{n}") for n in range(8)] + [ip_address("10.9.9.9"), ip_address("0.0.0.0")]
PORTS = [0, 1, 79, 80, 81, 443, 8080, 65535]
NODE = ip_address("192.0.2.1")

prefixes = st.sampled_from(
    [prefix_of(a) for a in PODS]
    + [
        prefix_of(ip_network(n))
        for n in ("10.0.0.0/30", "10.0.0.4/31", "10.0.0.0/8", "0.0.0.0/0", "10.9.0.0/16")
    ]
)
ranges = st.sampled_from(
    [(PortRange(80, 80),), (PortRange(0, 79), PortRange(443, 443)), (PortRange(80, 8080),), ()]
)


@st.composite
def rules(draw: st.DrawFn, verdicts: list[Verdict], sets: list[AddressSet]) -> Rule:
    peers = None
    if draw(st.booleans()):
        peers = f"s{len(sets)}"
        members = cover_prefixes(V4, draw(st.lists(prefixes, min_size=0, max_size=3)))
        sets.append(AddressSet(peers, V4, members))
    protocol = draw(st.sampled_from([None, Protocol.TCP, Protocol.UDP]))
    return Rule(
        draw(st.sampled_from(verdicts)),
        peers,
        protocol,
        draw(ranges) if protocol is not None else (),
        Origin("p.yaml", draw(st.integers(1, 9)), "NetworkPolicy", "shop", "p"),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    sets: list[AddressSet] = []
    enforcements = []
    for direction in Direction:
        for number in range(draw(st.integers(0, 2))):
            members = draw(st.sets(st.sampled_from(PODS), min_size=1, max_size=3))
            isolated = draw(st.booleans())
            allow = [Verdict.ALLOW]
            tiers = [Verdict.ALLOW, Verdict.DENY, Verdict.PASS]
            enforcements.append(
                Enforcement(
                    f"e{direction.value}{number}",
                    V4,
                    direction,
                    tuple(sorted(members)),
                    isolated,
                    tuple(draw(rules(allow, sets)) for _ in range(draw(st.integers(0, 2))))
                    if isolated
                    else (),
                    tuple(draw(rules(tiers, sets)) for _ in range(draw(st.integers(0, 1)))),
                    tuple(draw(rules(tiers, sets)) for _ in range(draw(st.integers(0, 1)))),
                    (Origin("p.yaml", 10 + number, "NetworkPolicy", "shop", "iso"),),
                )
            )
    return Program(Node(addresses=(NODE,)), sets=tuple(sets), enforcements=tuple(enforcements))


def holds(text: str, address: Address) -> bool:
    """Whether words such as `everyone except 10.0.0.0/8, 10.1.1.1` mean the address."""
    if text == "everyone (IPv4)":
        return True
    if text.startswith("everyone except "):
        return not holds(text.removeprefix("everyone except "), address)
    return any(address in ip_network(word) for word in text.split(", "))


def covers(
    effect: Effect, source: Address, destination: Address, protocol: Protocol | None, port: int
) -> bool:
    """Whether a line is about such a packet."""
    name = "other protocols" if protocol is None else protocol.value.upper()
    if effect.protocol and name not in effect.protocol.split(", "):
        return False
    if effect.ports and not any(_within(port, part) for part in effect.ports.split(", ")):
        return False
    return holds(effect.source, source) and holds(effect.destination, destination)


def _within(port: int, part: str) -> bool:
    first, _, last = part.partition("-")
    return int(first) <= port <= int(last or first)


def packets() -> Iterator[tuple[Address, Address, Protocol | None, int]]:
    for source in ADDRESSES:
        for destination in ADDRESSES:
            for protocol in (*Protocol, None):
                for port in PORTS if protocol is not None else [0]:
                    if source != destination:
                        yield source, destination, protocol, port


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(old=programs(), new=programs())
def test_policy_lines_are_exact(monkeypatch: pytest.MonkeyPatch, old: Program, new: Program) -> None:
    monkeypatch.setattr(words, "SHOWN", 10_000)
    lines = effects(old, new)
    was, will = Interpreter(old), Interpreter(new)
    for packet in packets():
        before, after = (i.judge(Sender.EXTERNAL, *packet).denial is None for i in (was, will))
        said = {e.symbol for e in lines if covers(e, *packet)}
        expected = set() if before == after else {"+" if after else "-"}
        assert said == expected, f"{packet}: {[str(e) for e in lines]}"


def test_equal_programs_have_no_lines() -> None:
    one = service("10.0.0.1")
    assert effects(one, one) == ()


def service(*endpoints: str, **more: object) -> Program:
    """A ClusterIP and a NodePort of one service."""
    places = tuple(
        Endpoint(ip_address(e), 8080, origin=Origin("s.yaml", 20, "EndpointSlice", "shop", "web-1"))
        for e in endpoints
    )
    origin = Origin("s.yaml", 3, "Service", "shop", "web")
    masquerade = bool(more.get("masquerade", False))
    affinity = Affinity("k", 60) if more.get("affinity") else None
    balancers = (Balancer("b", V4, Protocol.TCP, places, affinity),) if places else ()
    routes = (
        (Route(Who.CLUSTER, Balance("b", masquerade)), Route(Who.ANY, Balance("b", True)))
        if places
        else (Route(Who.ANY, Refusal.REJECT),)
    )
    sources = (
        (AddressSet("src", V4, (Prefix(int(ip_address("203.0.113.0")), 24),)),) if more.get("sources") else ()
    )
    frontends = (
        Frontend(
            Exposure.CLUSTER_IP,
            V4,
            ip_address("10.96.0.1"),
            Protocol.TCP,
            80,
            routes,
            None,
            "shop/web:http",
            origin,
        ),
        Frontend(
            Exposure.LOAD_BALANCER,
            V4,
            ip_address("192.0.2.80"),
            Protocol.TCP,
            80,
            routes,
            "src" if sources else None,
            "shop/web:http",
            origin,
        ),
    )
    node = Node(addresses=(NODE,), detector=SourceIn((ip_network("10.0.0.0/8"),)))
    return Program(node, balancers, frontends, sources)


def lines(old: Program, new: Program) -> list[str]:
    return [f"{e.symbol} {e}" for e in effects(old, new)]


def test_an_endpoint_that_comes_and_one_that_goes() -> None:
    (line,) = effects(service("10.0.0.1", "10.0.0.2"), service("10.0.0.1", "10.0.0.3"))
    assert f"{line.symbol} {line}" == (
        "~ everyone (IPv4) -> shop/web:http (10.96.0.1:80, load balancer IP 192.0.2.80:80) TCP: "
        "endpoints - 10.0.0.2:8080 + 10.0.0.3:8080 (now 2)"
    )
    assert line.causes == ("s.yaml:20 EndpointSlice shop/web-1", "was s.yaml:20 EndpointSlice shop/web-1")


def test_a_service_that_loses_all_its_endpoints() -> None:
    (line,) = lines(service("10.0.0.1"), service())
    assert line.startswith("- everyone (IPv4) -> shop/web:http")
    assert line.endswith("1 endpoint -> refused")


def test_source_translation_names_who_it_is_for() -> None:
    (line,) = lines(service("10.0.0.1"), service("10.0.0.1", masquerade=True))
    assert line.startswith("~ 10.0.0.0/8 -> shop/web:http")
    assert line.endswith("source: client's own -> the node's")


def test_source_ranges_split_the_clients() -> None:
    (line,) = lines(service("10.0.0.1"), service("10.0.0.1", sources=True))
    assert line.startswith(
        "- everyone except 203.0.113.0/24; and the node itself -> shop/web:http (load balancer IP"
    )
    assert line.endswith("1 endpoint -> dropped")


def test_affinity() -> None:
    (line,) = lines(service("10.0.0.1"), service("10.0.0.1", affinity=True))
    assert line.endswith("session affinity none -> 60 s")


def test_a_change_for_five_thousand_pods_is_one_line() -> None:
    pods = tuple(ip_address(int(ip_address("10.1.0.0")) + n) for n in range(5000))
    names = {p: f"shop/web-{n}" for n, p in enumerate(pods)}
    origin = Origin("p.yaml", 3, "NetworkPolicy", "shop", "deny")
    closed = Enforcement("e", V4, Direction.INGRESS, pods, origins=(origin,))
    (line,) = effects(Program(), Program(enforcements=(closed,)), names)
    assert f"{line.symbol} {line}" == (
        "- everyone (IPv4) -> 5,000 pods of shop (shop/web-0, shop/web-1, ...) any protocol"
    )
    assert (line.count, line.causes) == (5000, ("p.yaml:3 NetworkPolicy shop/deny",))


def test_a_rule_that_goes_and_a_rule_that_comes_are_named() -> None:
    def allowing(port: int, line: int) -> Program:
        rule = Rule(
            Verdict.ALLOW,
            None,
            Protocol.TCP,
            (PortRange(port, port),),
            Origin("p.yaml", line, "NetworkPolicy", "a", "b"),
        )
        policy = (Origin("p.yaml", 1, "NetworkPolicy", "a", "b"),)
        return Program(
            enforcements=(Enforcement("e", V4, Direction.INGRESS, (PODS[0],), rules=(rule,), origins=policy),)
        )

    found = {e.symbol: e for e in effects(allowing(80, 5), allowing(443, 6))}
    assert (found["+"].ports, found["+"].causes) == ("443", ("p.yaml:6 NetworkPolicy a/b",))
    assert (found["-"].ports, found["-"].causes[-1]) == ("80", "was p.yaml:5 NetworkPolicy a/b")


def test_node_settings() -> None:
    one = service("10.0.0.1")
    other = replace(one, node=replace(one.node, localhost_nodeports=True, drop_invalid=False))
    assert [e.detail for e in effects(one, other)] == ["no -> yes", "yes -> no"]


# --- pods that come, go and move; two families ---

OTHER_FAMILY = {V4: "10.0.0.%d", Family.IPV6: "fd00::%d"}


def protecting(*numbers: int, families: tuple[Family, ...] = (V4,), port: int = 80) -> Program:
    """Pods with these numbers let pod 9 in, on one port."""
    sets, enforcements = [], []
    for family in families:
        place = OTHER_FAMILY[family]
        peers = cover_prefixes(family, [prefix_of(ip_address(place % 9))])
        sets.append(AddressSet(f"s{family}", family, peers))
        origin = Origin("p.yaml", 3, "NetworkPolicy", "shop", "p")
        rule = Rule(Verdict.ALLOW, f"s{family}", Protocol.TCP, (PortRange(port, port),), origin)
        pods = tuple(ip_address(place % n) for n in numbers)
        enforcements.append(Enforcement(f"e{family}", family, Direction.INGRESS, pods, rules=(rule,)))
    return Program(sets=tuple(sets), enforcements=tuple(enforcements))


def named(*numbers: int, families: tuple[Family, ...] = (V4,)) -> dict[Address, str]:
    return {ip_address(OTHER_FAMILY[f] % n): f"shop/p{n}" for n in (*numbers, 9) for f in families}


def shown(found: tuple[Effect, ...]) -> list[str]:
    return [f"{e.symbol} {e}" for e in found]


def test_what_changes_alike_in_both_families_is_one_line() -> None:
    both = (V4, Family.IPV6)
    old, new = protecting(1, 2, families=both), protecting(1, 2, families=both, port=81)
    pods = named(1, 2, families=both)
    assert sorted(shown(effects(old, new, pods, pods))) == [
        "+ shop/p9 -> shop/p1, shop/p2 TCP 81",
        "- shop/p9 -> shop/p1, shop/p2 TCP 80",
    ]


def test_what_changes_in_one_family_alone_says_so() -> None:
    both = (V4, Family.IPV6)
    old = protecting(1, families=both)
    new = protecting(1, families=both, port=81)
    mixed = replace(
        old,
        sets=(old.sets[0], new.sets[1]),
        enforcements=(old.enforcements[0], new.enforcements[1]),
    )
    pods = named(1, families=both)
    assert sorted(shown(effects(old, mixed, pods, pods))) == [
        "+ shop/p9 -> shop/p1 TCP 81: IPv6 only",
        "- shop/p9 -> shop/p1 TCP 80: IPv6 only",
    ]


def test_a_pod_that_goes_loses_and_one_that_comes_gains() -> None:
    gone = effects(protecting(1, 2), protecting(1), named(1), named(1, 2))
    assert shown(gone) == ["- shop/p9 -> shop/p2 TCP 80"]
    come = effects(protecting(1), protecting(1, 2), named(1, 2), named(1))
    assert shown(come) == ["+ shop/p9 -> shop/p2 TCP 80"]
    # A pod that stays and is no longer selected is open.
    open_now = shown(effects(protecting(1, 2), protecting(1), named(1, 2), named(1, 2)))
    assert "+ shop/p9 -> shop/p2 TCP 0-79, 81-65535" in open_now
    assert "+ everyone except shop/p9 -> shop/p2 any protocol" in open_now


def test_a_pod_that_moved_neither_gains_nor_loses() -> None:
    before = {**named(1), PODS[1]: "shop/web"}
    after = {**named(1), PODS[2]: "shop/web"}
    moved = effects(protecting(1, 2), protecting(1, 3), after, before)
    assert shown(moved) == ["~ shop/p9 -> shop/web TCP 80: at another address"]


def test_a_traffic_policy_is_the_services_doing() -> None:
    one = service("10.0.0.1", "10.0.0.2")
    places = one.balancers[0].endpoints
    near = (replace(places[0], local=True), places[1])
    old = replace(one, balancers=(replace(one.balancers[0], endpoints=near),))
    new = replace(one, balancers=(replace(one.balancers[0], endpoints=near[:1]),))
    (line,) = effects(old, new)
    assert line.causes == ("s.yaml:3 Service shop/web", "was s.yaml:20 EndpointSlice shop/web-1")


def test_endpoints_whose_ports_begin_alike_are_told_apart() -> None:
    """Port 8080 of one slice is no cause for port 80 of another."""

    def at(*ports: int) -> Program:
        places = tuple(
            Endpoint(ip_address("10.0.0.1"), p, origin=Origin("s.yaml", p, "EndpointSlice", "shop", f"s{p}"))
            for p in ports
        )
        one = service("10.0.0.1")
        return replace(one, balancers=(replace(one.balancers[0], endpoints=places),))

    (line,) = effects(at(80), at(80, 8080))
    assert line.causes == ("s.yaml:8080 EndpointSlice shop/s8080",)
    (line,) = effects(at(8080), at(80, 8080))
    assert line.causes == ("s.yaml:80 EndpointSlice shop/s80",)
