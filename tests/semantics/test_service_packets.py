"""Generated services on real packets: whatever a service asks for, in company of whatever else, on both nodes.

What each packet did is what the interpreter says (and that is what the naive evaluator says: test_services_naive.py).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import Predictor, observe
from k8snetc.lab.probe import Outcome, Probe
from tests.semantics import dataplanes
from tests.semantics.build import programs
from tests.semantics.dataplanes import Dataplane
from tests.semantics.service_clusters import Generated, services
from tests.semantics.world import NODES, TOPOLOGY, Manifest, address, place

EXAMPLES = {"iptables": 8, "nftables": 8, "ebpf": 3}  # clang takes seconds for each
CLIENTS = ("client-1", "client-2", "web-1", "web-3", "outside", "n1", "n2")


def probes(documents: list[Manifest]) -> list[Probe]:
    """From everybody to every address and port of every service, and to what a ClusterIP does not define."""
    asked: dict[tuple[str, str, int], None] = {}
    for d in documents:
        if d["kind"] != "Service":
            continue
        spec = d["spec"]
        served = {(":" in ip) for ip in spec["clusterIPs"]}
        ingress = [i["ip"] for i in d["status"]["loadBalancer"]["ingress"] if i.get("ipMode") != "Proxy"]
        outside = [ip for ip in (*spec["externalIPs"], *ingress) if (":" in ip) in served]
        for p in spec["ports"]:
            for ip in (*spec["clusterIPs"], *outside):
                asked[ip, p["protocol"], p["port"]] = None
            for name in NODES if "nodePort" in p else ():
                for family in (4, 6):
                    asked[str(address(name, family)), p["protocol"], p["nodePort"]] = None
        asked[spec["clusterIP"], "TCP", 7] = None
    return [
        Probe(place(client), address(f"{ip},{ip}", 4), Protocol(protocol.lower()), port)
        for ip, protocol, port in asked
        for client in CLIENTS
    ]


@pytest.mark.kernel
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dataplane", dataplanes.ALL, ids=lambda d: d.name)
def test_packets_do_what_the_interpreter_says(world: Cluster, dataplane: Dataplane, tmp_path: Path) -> None:
    seen: Counter[Outcome] = Counter()

    @settings(
        max_examples=EXAMPLES[dataplane.backend],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(services(least=5, most=8))
    def check(generated: Generated) -> None:
        made = programs(tmp_path, generated.documents, generated.options)
        world.reset()
        dataplanes.install(world, dataplane, made)
        wanted = probes(generated.documents)
        predictor = Predictor(TOPOLOGY, made, at_sockets=dataplane.sockets)
        expected = [predictor.predict(p) for p in wanted]
        wrong = [
            f"{probe}: expected {what}; was {result}\n    " + "\n    ".join(what.steps)
            for probe, what, results in zip(wanted, expected, observe(world, wanted, expected), strict=True)
            for result in results
            if not what.allows(result)
        ]
        seen.update(o for what in expected for o in (Outcome.ANSWERED,) if what.arrivals)
        seen.update(o for what in expected for o in what.outcomes)
        assert not wrong, f"{len(wrong)} of {len(wanted)} probes, {generated.options}\n" + "\n".join(
            wrong[:20]
        )

    check()
    # A generator whose packets all go one way would prove nothing.
    assert min(seen[Outcome.ANSWERED], seen[Outcome.TIMEOUT], seen[Outcome.REFUSED]) > 50, seen
