"""One port of a client, many connections to one endpoint: no answer is taken for another one's."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from k8snetc.lab.sessions import Flow
from tests.semantics import dataplanes
from tests.semantics.build import programs
from tests.semantics.dataplanes import Dataplane
from tests.semantics.test_behaviour import CLUSTER_IP
from tests.semantics.world import address, place, port, service, slice_port, slices


# IPVS finds what an answer belongs to by the endpoint and the client's port alone.
@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", dataplanes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP], ids=str)
@pytest.mark.parametrize("endpoint", ["web-1", "web-2"])
def test_one_client_port_at_many_addresses(
    world: Cluster, dataplane: Dataplane, tmp_path: Path, endpoint: str, protocol: Protocol
) -> None:
    """Connections from one port to an endpoint, through services and directly, in any order: all of them go on."""
    ports = (port(80, protocol=protocol.name, node_port=30080),)
    there = (slice_port(8080, protocol=protocol.name),)
    web = [
        *(service("web", 10, type="NodePort", ports=ports), *slices("web", endpoint, ports=there)),
        *(
            service("more", 11, ports=(port(80, protocol=protocol.name),)),
            *slices("more", endpoint, ports=there),
        ),
    ]
    dataplanes.install(world, dataplane, programs(tmp_path, web))
    ways = ((CLUSTER_IP, 80), ("10.96.0.11,fd00:96::11", 80), (endpoint, 8080), ("n1", 30080))
    number = 41000 + 100 * (protocol is Protocol.UDP) + 200 * (endpoint == "web-2")
    for turn in (0, 2):  # a service first, the endpoint first
        with ExitStack() as stack:
            flows: list[Flow] = []
            for client in ("client-1", "n1", "outside"):
                for family in (4, 6):
                    for to, at in (*ways[turn:], *ways[:turn]):
                        if client == "outside" and to == endpoint:
                            continue  # pods' addresses mean nothing outside
                        probe = Probe(place(client), address(to, family), protocol, at, timeout=3)
                        probe = replace(probe, source_port=number + turn)
                        flow = stack.enter_context(world.flow(probe))
                        assert flow.opening.server == place(endpoint), f"{probe}: {flow.opening}"
                        flows.append(flow)
            opened = [flow.report().answered for flow in flows]
            time.sleep(0.3)
            ends = [(flow.probe, flow.close(), n) for flow, n in zip(flows, opened, strict=True)]
            stuck = [f"{probe}: {end}" for probe, end, n in ends if end.answered <= n or not end.intact]
            assert not stuck, "\n".join(stuck)
