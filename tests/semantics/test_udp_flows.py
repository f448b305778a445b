"""UDP flows at every kind of service address, while endpoints come and go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.sessions import Flow
from tests.semantics import dataplanes
from tests.semantics.build import programs
from tests.semantics.dataplanes import Dataplane
from tests.semantics.test_behaviour import CLUSTER_IP, PATIENCE, probes
from tests.semantics.world import place, port, service, slice_port, slices


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*dataplanes.ALL, dataplanes.IN_VM], ids=lambda d: d.name)
def test_udp_endpoint_that_goes_at_every_address(
    world: Cluster, dataplane: Dataplane, tmp_path: Path
) -> None:
    """Flows to NodePorts, external and load-balancer IPs too; one more endpoint leaves them where they are."""
    ports = (port(53, protocol="UDP", node_port=30053),)
    ends = (slice_port(8080, protocol="UDP"),)
    dns = service(
        "dns", 10, type="LoadBalancer", ports=ports, externalIPs=["198.51.100.7", "2001:db8:51::7"],
        ingress=({"ip": "203.0.113.7"}, {"ip": "2001:db8:113::7"}),
    )  # fmt: skip
    steps = [
        programs(tmp_path, [dns, *slices("dns", *names, ports=ends)])
        for names in (("web-1",), ("web-1", "web-2"), ("web-2",))
    ]
    targets = (
        ("client-1", CLUSTER_IP, 53),
        ("outside", "n1", 30053),
        ("client-2", "n1", 30053),
        ("outside", "198.51.100.7,2001:db8:51::7", 53),
        ("outside", "203.0.113.7,2001:db8:113::7", 53),
    )
    dataplanes.install(world, dataplane, steps[0])
    asked = [p for client, to, number in targets for p in probes(client, to, number, Protocol.UDP)]
    with ExitStack() as stack:
        slow = dataplane.slowness
        flows = {str(p): stack.enter_context(world.flow(p, interval=0.02 * slow)) for p in asked}
        assert _servers_of(flows, place("web-1")) == dict.fromkeys(flows, (place("web-1"),))
        dataplanes.install(world, dataplane, steps[1], steps[0])
        time.sleep(0.3 * slow)
        assert _servers_of(flows, place("web-1")) == dict.fromkeys(flows, (place("web-1"),))
        dataplanes.install(world, dataplane, steps[2], steps[1])
        assert _servers_of(flows, place("web-2")) == dict.fromkeys(flows, (place("web-1"), place("web-2")))


def _servers_of(flows: Mapping[str, Flow], last: str) -> dict[str, tuple[str, ...]]:
    """Who answered each flow, one after the other, as soon as `last` answers all of them, or after some seconds."""
    deadline = time.monotonic() + max(10, 3 * PATIENCE)
    while True:
        found = {name: flow.report().servers for name, flow in flows.items()}
        if time.monotonic() > deadline or all(servers[-1:] == (last,) for servers in found.values()):
            return found
        time.sleep(0.05)
