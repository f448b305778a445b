"""What the text looks like as a whole: size, stability, what is left out and refused."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from k8snetc.backends import registry
from k8snetc.backends.base import EmitOptions, UnsupportedError
from k8snetc.backends.common.xtables.emit import emit
from k8snetc.backends.common.xtables.names import LIMIT
from k8snetc.backends.iptables.backend import Iptables
from k8snetc.backends.iptables.lower import Capabilities, lower
from k8snetc.backends.iptables.model import Xtables
from k8snetc.ir.addresses import address_of, cover
from k8snetc.ir.types import (
    AddressSet,
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
    Program,
    Protocol,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)
from k8snetc.ir.verify import verify

V4 = Family.IPV4
CLUSTER = int(ip_address("10.96.0.0"))
PODS = int(ip_address("10.128.0.0"))
EVIL = Origin('evil"; -j ACCEPT\n*nat\n.yaml', 3, "Service", "shop", "web")


def cluster(services: int, endpoints: int, *, extra: int = 0) -> Program:
    """Services at consecutive addresses; the first has `extra` endpoints more."""
    balancers, frontends = [], []
    for i in range(services):
        count = endpoints + (extra if i == 0 else 0)
        places = tuple(Endpoint(address_of(V4, PODS + (j << 16) + i), 8080) for j in range(count))
        balancers.append(Balancer(f"ns/svc-{i}", V4, Protocol.TCP, places))
        routes = (
            Route(Who.CLUSTER, Balance(f"ns/svc-{i}")),
            Route(Who.ANY, Balance(f"ns/svc-{i}", masquerade=True)),
        )
        address = address_of(V4, CLUSTER + 1 + i)
        frontends.append(
            Frontend(Exposure.CLUSTER_IP, V4, address, Protocol.TCP, 80, routes, None, f"ns/svc-{i}", EVIL)
        )
    ips = AddressSet("ips", V4, cover(V4, [(CLUSTER + 1, CLUSTER + services)]))
    node = Node("w", (V4,), detector=SourceIn((ip_network("10.128.0.0/9"),)))
    return verify(Program(node, tuple(balancers), tuple(frontends), (ips,), rejects=("ips",)))


def lines(program: Program) -> set[str]:
    return {line for a in Iptables().compile(program, EmitOptions()) for line in a.text.splitlines()}


def test_the_registry_finds_it() -> None:
    assert registry.load("iptables").name == "iptables"


def test_lines_per_service_stay_few() -> None:
    """One rule per endpoint, and for each service a chain and a jump; the rest is a small share."""
    program = cluster(1000, 10)
    count = sum(a.text.count("\n") for a in Iptables().compile(program, EmitOptions()))
    assert count < 1000 * 12 * 1.03


def test_no_chain_is_a_long_line() -> None:
    for table in lower(cluster(3000, 3, extra=500)).rulesets[0].tables:
        for chain in table.chains:
            assert len(chain.rules) <= 20, chain.name


def test_one_endpoint_more_changes_few_lines() -> None:
    before, after = lines(cluster(500, 10)), lines(cluster(500, 10, extra=1))
    assert len(after - before) <= 12
    assert len(before - after) <= 12
    many, more = lines(cluster(10, 10, extra=400)), lines(cluster(10, 10, extra=401))
    assert len(more - many) <= 40


def test_one_service_more_changes_few_lines() -> None:
    before, after = lines(cluster(500, 3)), lines(cluster(501, 3))
    assert len(after - before) <= 40


def names_of(model: Xtables) -> set[str]:
    chains = {c.name for r in model.rulesets for t in r.tables for c in t.chains}
    return chains | {s.name for s in model.sets}


def test_every_name_is_ours_and_short() -> None:
    for name in names_of(lower(cluster(300, 20))):
        assert name.startswith("K8SNETC-")
        assert len(name) <= LIMIT
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_nothing_from_a_manifest_is_read_as_a_rule() -> None:
    """A file name that tries to be a rule is a comment, on one line."""
    for artifact in Iptables().compile(cluster(3, 2), EmitOptions()):
        for line in artifact.text.splitlines():
            assert re.match(r"#|\*(nat|filter)$|:K8SNETC-|-[AI] |COMMIT$|create |add ", line), line
            assert line.count("-j ACCEPT") < 2


def test_without_comments_nothing_tells_of_manifests() -> None:
    for artifact in Iptables().compile(cluster(3, 2), EmitOptions(comments=False)):
        assert "--comment" not in artifact.text
        assert "svc-" not in artifact.text


def test_the_same_program_gives_the_same_text() -> None:
    program = cluster(50, 20)
    backwards = replace(
        program,
        balancers=program.balancers[::-1],
        frontends=program.frontends[::-1],
    )
    assert Iptables().compile(program, EmitOptions()) == Iptables().compile(backwards, EmitOptions())
    model = lower(program)
    assert emit(model) == emit(lower(program))


def test_every_gap_is_named_at_once() -> None:
    program = cluster(3, 2)
    first, second, third = program.balancers
    odd = (replace(first, scheduler="wrr"), second, replace(third, forwarding="tunnel", origin=EVIL))
    with pytest.raises(UnsupportedError) as caught:
        lower(replace(program, balancers=odd))
    assert [g.origin for g in caught.value.gaps] == [None, EVIL]
    assert "wrr" in caught.value.gaps[0].what
    assert "tunnel" in caught.value.gaps[1].what


def test_random_ports_can_be_left_out() -> None:
    program = cluster(1, 1)
    text = "".join(a.text for a in Iptables(Capabilities(random_fully=False)).compile(program, EmitOptions()))
    assert "MASQUERADE" in text
    assert "--random-fully" not in text


def test_an_empty_program_is_nothing() -> None:
    assert Iptables().compile(Program(), EmitOptions()) == ()


def policy(pods: int, groups: int) -> Program:
    base = int(ip_address("10.244.1.0"))
    peers = AddressSet("peers", V4, tuple(p for i in range(50) for p in cover(V4, [(PODS + 2 * i,) * 2])))
    enforcements = [
        Enforcement(
            f"{direction.value} {g}",
            V4,
            direction,
            tuple(address_of(V4, base + i) for i in range(pods) if i % groups == g),
            rules=(Rule(Verdict.ALLOW, "peers", Protocol.TCP, ()), Rule(Verdict.ALLOW, None, Protocol.UDP)),
        )
        for direction in Direction
        for g in range(groups)
    ]
    return Program(Node("w", (V4,)), sets=(peers,), enforcements=tuple(enforcements))


def test_equal_enforcements_share_a_chain_and_equal_peers_a_set() -> None:
    model = lower(verify(policy(100, 4)))
    chains = [c.name for t in model.rulesets[0].tables for c in t.chains]
    assert len([c for c in chains if c.startswith("K8SNETC-IE-")]) == 1
    assert len([s for s in model.sets if len(s.elements) == 50]) == 1


def test_a_pod_is_found_by_a_tree() -> None:
    model = lower(verify(policy(200, 7)))
    longest = max(len(c.rules) for t in model.rulesets[0].tables for c in t.chains)
    assert longest <= 20


def test_a_cluster_with_a_network_for_each_node_has_no_line_of_them() -> None:
    networks = tuple(ip_network((PODS + (i << 9), 24)) for i in range(1000))
    program = replace(cluster(100, 2), node=Node("w", (V4,), detector=SourceIn(networks)))
    model = lower(program)
    assert max(len(c.rules) for t in model.rulesets[0].tables for c in t.chains) <= 20
    assert 1000 in [len(s.elements) for s in model.sets]


def test_where_every_source_is_a_pod_nobody_is_masqueraded() -> None:
    program = replace(cluster(3, 2), node=Node("w", (V4,), detector=SourceIn((ip_network("0.0.0.0/0"),))))
    text = "".join(a.text for a in Iptables().compile(program, EmitOptions()))
    assert "--set-xmark 0x4000/0x4000" not in text
    assert "0.0.0.0/0" not in text
