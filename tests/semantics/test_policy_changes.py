"""What a new policy denies is cut, and nothing else: connections that are open while a node's program changes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
import yaml

from k8snetc.ir.types import Program, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from k8snetc.lab.sessions import Flow
from tests.semantics import dataplanes
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import network_policy
from tests.semantics.test_policies import PLANES, programs_of

ONLY_X = network_policy(
    "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}"
)
ENDS = ((Protocol.TCP, 80), (Protocol.UDP, 80))


def programs(policy: str) -> dict[str, Program]:
    return programs_of([*cluster.documents(), *(d for d in yaml.safe_load_all(policy) if d)])


def answered_meanwhile(flows: dict[str, Flow], seconds: float = 0.6) -> dict[str, int]:
    """How many answers each flow gets from now on."""
    before = {name: flow.report().answered for name, flow in flows.items()}
    time.sleep(seconds)
    return {name: flow.report().answered - before[name] for name, flow in flows.items()}


# Not yet on eBPF, which forgets the direction of a TCP connection that it denies: the server's next packet begins one
# the other way round (docs/decisions/0012).
ON_CONNTRACK = [p for p in PLANES if "ebpf" not in str(p.id)]


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", ON_CONNTRACK)
def test_open_connections_that_a_new_policy_denies_are_cut(
    policy_lab: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    lab = policy_lab
    before, after = programs(""), programs(ONLY_X)
    dataplanes.install(lab, dataplane, before)
    with ExitStack() as stack:
        kept: dict[str, Flow] = {}
        denied: dict[str, Flow] = {}
        for client, group in (("x/a", kept), ("x/d", kept), ("y/b", denied), ("z/d", denied)):
            for (protocol, port), family in ((e, f) for e in ENDS for f in (0, 1)):
                address = ip_address(cluster.pod_addresses("y", "a", "w1")[family])
                probe = Probe(f"pod/{client}", address, protocol, port, timeout=3)
                group[str(probe)] = stack.enter_context(lab.flow(probe))
        assert all(flow.opening.answered for flow in (*kept.values(), *denied.values()))
        dataplanes.install(lab, dataplane, after, before)
        time.sleep(0.2)  # what was on its way when the policy came
        assert all(n == 0 for n in answered_meanwhile(denied).values()), answered_meanwhile(denied)
        assert all(n > 0 for n in answered_meanwhile(kept).values())
        assert all(flow.report().intact for flow in kept.values()), {n: f.report() for n, f in kept.items()}
        dataplanes.install(lab, dataplane, before, after)
        datagrams = {name: flow for name, flow in denied.items() if name.endswith("udp")}
        assert all(n > 0 for n in answered_meanwhile(datagrams).values()), "allowed again, and still cut"


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", ON_CONNTRACK)
def test_connections_older_than_any_program_are_cut_where_pods_have_policies(
    policy_lab: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    """Nothing has tracked them, so nobody knows who began: the server's next packet must not begin them anew."""
    lab = policy_lab
    with ExitStack() as stack:
        free: dict[str, Flow] = {}
        denied: dict[str, Flow] = {}
        for client, server, group in (("z/d", "y/a", denied), ("y/b", "y/a", denied), ("z/d", "x/c", free)):
            for (protocol, port), family in ((e, f) for e in ENDS for f in (0, 1)):
                namespace, _, name = server.partition("/")
                address = ip_address(cluster.pod_addresses(namespace, name, "w1")[family])
                probe = Probe(f"pod/{client}", address, protocol, port, timeout=3)
                group[str(probe)] = stack.enter_context(lab.flow(probe))
        assert all(flow.opening.answered for flow in (*free.values(), *denied.values()))
        dataplanes.install(lab, dataplane, programs(ONLY_X))
        time.sleep(0.2)  # what was on its way when the policy came
        assert all(n == 0 for n in answered_meanwhile(denied).values()), answered_meanwhile(denied)
        assert all(n > 0 for n in answered_meanwhile(free).values()), answered_meanwhile(free)
        assert all(flow.report().intact for flow in free.values())
