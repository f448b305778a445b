"""Services on real packets: each probe as the interpreter says, with and without sockets balanced."""

from collections.abc import Iterator

import pytest

from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Family
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.expect import compare
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import SCTP, TCP, UDP

pytestmark = pytest.mark.kernel

CLIENTS = ("pod/shop/a", "pod/shop/c", "node/w1", "node/w2", "client/out")


def probes(family: Family, clients: tuple[str, ...] = CLIENTS) -> Iterator[Probe]:
    addresses = [support.service(family, n) for n in range(1, 7)]
    for client in clients:
        for protocol in (TCP, UDP, SCTP):
            for address in addresses:
                yield Probe(client, address, protocol, 80)
            yield Probe(client, addresses[0], protocol, 81)
            for number in (1, 2):
                # A pod of another node keeps its address at 30081, and a pod of its own node answers it directly,
                # past the node that translated: no dataplane can make that work.
                home = client.startswith("pod/") and support.PODS[client[-1]][0]
                for port in (30080, 30082) if home and home != number else (30080, 30081, 30082):
                    yield Probe(client, support.node_address(family, number), protocol, port)
            for text4, text6 in (("192.0.2.10", "2001:db8:e::10"), ("192.0.2.20", "2001:db8:e::20")):
                yield Probe(client, support.of(family, text4, text6), protocol, 80)
            yield Probe(client, support.pod(family, "b"), protocol, support.PORTS[protocol])
        yield Probe(client, addresses[0], None)
        yield Probe(client, support.pod(family, "d"), None)


@pytest.mark.parametrize("sockets", [False, True], ids=["packets", "sockets"])
@pytest.mark.parametrize("family", list(Family))
def test_what_becomes_of_each_probe(cluster: Cluster, family: Family, sockets: bool) -> None:
    programs = {name: support.services(name) for name in support.NODES}
    for name, program in programs.items():
        options = InstallOptions(cgroup=str(cluster.cgroup(name)), no_cgroup=not sockets)
        cluster.call(f"node/{name}", support.install, program, options)
    wrong = compare(cluster, programs, list(probes(family)))
    assert not wrong, f"{len(wrong)}\n" + "\n".join(map(str, wrong[:60]))
