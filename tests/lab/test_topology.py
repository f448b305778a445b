from ipaddress import ip_address

import pytest

from k8snetc.lab import names
from k8snetc.lab.topology import Client, Node, Pod, Port, Topology, TopologyError
from k8snetc.lab.wiring import interface, spaces, wire
from tests.support.lab import TCP, node, pod, small


def test_places_and_homes() -> None:
    topology = small()
    assert topology.home("pod/shop/h") == "node/w2"
    assert topology.home("pod/shop/a") == "pod/shop/a"
    assert topology.node_of("pod/back/d") == "w2"
    assert topology.node_of("client/out") is None
    assert topology.owners[ip_address("fd44:1::3")] == "pod/shop/b"
    assert topology.owners[ip_address("172.18.0.2")] == "node/w2"
    assert interface(topology, pod("d", 2, 3, namespace="back")) == "pod1"


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(TopologyError) as caught:
        Topology(
            (node(1, ports=(Port(TCP, 80),)),),
            (
                pod("a", 1, 2),
                pod("a", 1, 3),
                pod("b", 2, 4),
                pod("c", 1, 2),
                Pod("shop", "x/y", "w1", (ip_address("10.244.1.9"),)),
                Pod("shop", "e", "w1"),
                Pod("shop", "h", "w1", ports=(Port(TCP, 80),), host_network=True),
            ),
            (Client("out", (ip_address("203.0.113.1"),), "w7"),),
        )
    text = str(caught.value)
    for words in (
        "pod/shop/a: is there twice",
        "pod/shop/b: there is no node 'w2'",
        "pod/shop/c: 10.244.1.2 is already pod/shop/a's",
        "pod/shop/x/y: not a name",
        "pod/shop/e: a pod needs an address",
        "pod/shop/h: 80/tcp is already taken by node/w1",
        "client/out: there is no node 'w7'",
    ):
        assert words in text


def test_wiring_is_deterministic_and_gives_every_space_its_links() -> None:
    topology = small()
    names_ = {s: s for s in spaces(topology)}
    plan = wire(topology, names_)
    assert plan == wire(topology, names_)
    assert set(plan.inside) == set(plan.sysctls) == set(names_)
    assert "pod/shop/h" not in names_
    assert sum(" type veth " in line for line in plan.links) == len(names_) - 1
    assert "route add 10.244.2.0/24 via 172.18.0.2 dev eth0 onlink src 172.18.0.1" in plan.inside["node/w1"]


def test_a_pod_outside_the_pod_networks_is_routed_by_its_address() -> None:
    stray = Pod("shop", "s", "w2", (ip_address("10.9.9.9"),))
    plan = wire(
        Topology((node(1), node(2)), (stray,)),
        {s: s for s in ("underlay", "node/w1", "node/w2", "pod/shop/s")},
    )
    assert "route add 10.9.9.9 via 172.18.0.2 dev eth0 onlink src 172.18.0.1" in plan.inside["node/w1"]


def test_a_node_of_one_family_gets_no_routes_of_the_other() -> None:
    four = Node("v4", (ip_address("172.18.0.9"),))
    plan = wire(Topology((four, node(1))), {s: s for s in ("underlay", "node/v4", "node/w1")})
    assert not any("fd18::1" in line or "::/0" in line for line in plan.inside["node/v4"])


def test_names_tell_whether_their_owner_lives() -> None:
    lab = names.new_lab()
    assert lab != names.new_lab()
    name = names.netns_name(lab, "pod/shop/a")
    assert name.endswith("-pod-shop.a")
    assert not names.is_abandoned(name)
    assert not names.is_abandoned("k8snetc")
    assert not names.is_abandoned("somebody-1-2-3-node-a")
    pid, start = lab.split("-")[1:3]
    assert names.is_abandoned(f"k8snetc-{pid}-{start}x-1-node-a"), "the pid lives, but it is another process"
    assert names.is_abandoned("k8snetc-4194305-1-1-node-a"), "beyond the largest pid"


def test_long_names_are_cut_and_stay_apart() -> None:
    lab = names.new_lab()
    one, other = (names.netns_name(lab, f"pod/ns/{'x' * 240}{end}") for end in "ab")
    assert one != other
    assert max(len(one), len(other)) <= 200
