"""Pods that are ports of one bridge: policy holds between them, or the back end refuses and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
import yaml

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common.bridges import unjudged_bridges
from k8snetc.ir.types import Program, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome, Probe
from tests.semantics import dataplanes
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import network_policy
from tests.semantics.test_policies import ONE_EACH, programs_of

ONLY_B = network_policy(
    "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress],"
    " ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"
)
# Everybody is on w1, and so a port of its bridge.
FLOWS = {
    ("y/b", "y/a"): Outcome.ANSWERED,
    ("x/b", "y/a"): Outcome.TIMEOUT,
    ("y/a", "x/b"): Outcome.TIMEOUT,
    ("x/b", "x/c"): Outcome.ANSWERED,
}
SETTINGS = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


@pytest.fixture(scope="module")
def bridged() -> Iterator[Cluster]:
    """The policy cluster, the pods of w1 on a bridge as the plugin of that name would put them."""
    with Cluster(cluster.topology()) as lab:
        node, device = "node/w1", ["dev", "cbr0"]
        pods = [p for p in lab.topology.pods if p.node == "w1" and not p.host_network]
        options = ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"]
        lab.run(node, ["ip", "link", "add", "cbr0", *options])
        for pod in pods:
            port = lab.interface(pod.place)
            lab.run(node, ["ip", "address", "flush", "dev", port])
            lab.run(node, ["ip", "link", "set", port, "master", "cbr0", "up"])
        lab.run(node, ["ip", "address", "add", "169.254.1.1/32", *device, "scope", "link"])
        lab.run(node, ["ip", "address", "add", "fe80::1/64", *device, "nodad"])
        lab.run(node, ["ip", "link", "set", "cbr0", "up"])
        for pod in pods:
            for address in pod.addresses:
                lab.run(node, ["ip", "route", "replace", str(address), *device])
            lab.run(pod.place, ["ip", "route", "add", "10.244.1.0/24", "dev", "eth0", "scope", "link"])
            lab.run(pod.place, ["ip", "-6", "route", "add", "fd44:1::/64", "dev", "eth0"])
        yield lab


def _gaps(program: Program) -> list[str]:
    return [f"{gap.what} {gap.hint}" for gap in unjudged_bridges(program)]


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*ONE_EACH, dataplanes.IN_VM])
def test_policy_holds_between_ports_of_a_bridge_or_is_refused(
    bridged: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    lab = bridged
    dataplanes.forget(lab)
    lab.reset("w1")
    documents = [*cluster.documents(), *(d for d in yaml.safe_load_all(ONLY_B) if d)]
    programs = {"w1": programs_of(documents)["w1"]}
    for setting in SETTINGS:
        lab.sysctl("node/w1", setting, "0")
    if dataplane.backend != "ebpf":  # its programs are at the ports themselves
        gaps = lab.call("node/w1", _gaps, programs["w1"])
        assert [("behind the bridge cbr0" in gap, "bridge-nf-call-ip" in gap) for gap in gaps] == [
            (True, True)
        ] * 2
        with pytest.raises(UnsupportedError, match=r"\w+: 2 thing"):  # nothing else is in the way
            dataplanes.install(lab, dataplane, programs)
        for setting in SETTINGS:
            lab.sysctl("node/w1", setting, "1")
    dataplanes.install(lab, dataplane, programs)
    for pod in {place for flow in FLOWS for place in flow}:
        lab.run(
            f"pod/{pod}", ["ip", "neighbour", "flush", "all"]
        )  # neighbours must be found under policy, too
    probes = {
        Probe(f"pod/{source}", ip_address(address), Protocol.TCP, 80, timeout=3 * dataplane.slowness): outcome
        for (source, target), outcome in FLOWS.items()
        for address in cluster.pod_addresses(target[0], target[2:], "w1")
    }
    results = lab.probe_all(list(probes))
    wrong = [
        f"{p}: {r}" for (p, wanted), r in zip(probes.items(), results, strict=True) if r.outcome is not wanted
    ]
    assert not wrong
