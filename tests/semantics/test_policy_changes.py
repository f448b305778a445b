"""What a new policy denies is cut, and nothing else: connections that are open while a node's program changes."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*PLANES, dataplanes.IN_VM])
def test_open_connections_that_a_new_policy_denies_are_cut(
    policy_lab: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    lab = policy_lab
    # Without policies eBPF tracks nothing; a server's datagram that comes first then would be the one that began.
    before = programs(OPEN_TO_ALL if dataplane.backend == "ebpf" else "")
    after = programs(ONLY_X)
    some = 0.6 * dataplane.slowness
    dataplanes.install(lab, dataplane, before)
    with ExitStack() as stack:
        kept: dict[str, Flow] = {}
        denied: dict[str, Flow] = {}
        for client, group in (("x/a", kept), ("x/d", kept), ("y/b", denied), ("z/d", denied)):
            for (protocol, port), family in ((e, f) for e in ENDS for f in (0, 1)):
                address = ip_address(cluster.pod_addresses("y", "a", "w1")[family])
                probe = Probe(f"pod/{client}", address, protocol, port, timeout=3 * dataplane.slowness)
                group[str(probe)] = stack.enter_context(lab.flow(probe, interval=0.02 * dataplane.slowness))
        assert all(flow.opening.answered for flow in (*kept.values(), *denied.values()))
        dataplanes.install(lab, dataplane, after, before)
        time.sleep(0.2 * dataplane.slowness)  # what was on its way when the policy came
        assert all(n == 0 for n in answered_meanwhile(denied, some).values())
        assert all(n > 0 for n in answered_meanwhile(kept, some).values())
        dataplanes.install(lab, dataplane, before, after)
        datagrams = {name: flow for name, flow in denied.items() if name.endswith("udp")}
        assert all(n > 0 for n in answered_meanwhile(datagrams, some).values()), (
            "allowed again, and still cut"
        )
        assert all(flow.close().intact for flow in kept.values())


OPEN_TO_ALL = network_policy("{podSelector: {matchLabels: {pod: a}}, ingress: [{}]}")
# A server that speaks alone, and a client of it at some addresses: prints `open`, then at each line of its input how
# much has come since from each.
TALKER = """
import socket, sys, threading, time
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
def talk(connection):
    while True: connection.send(b"x"); time.sleep(0.02)
print("ready", flush=True)
while True: threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
"""
HEARER = """
import socket, sys
heard = [socket.create_connection((end, int(sys.argv[1])), timeout=5) for end in sys.argv[2:]]
for one in heard: one.recv(1); one.setblocking(False)
print("open", flush=True)
for line in sys.stdin:
    counts = []
    for one in heard:
        counts.append(0)
        try:
            while data := one.recv(65536): counts[-1] += len(data)
        except BlockingIOError: pass
    print(*counts, flush=True)
"""


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*PLANES, dataplanes.IN_VM])
def test_a_server_that_speaks_alone_is_cut(policy_lab: Cluster, dataplane: dataplanes.Dataplane) -> None:
    """Its next packet must not begin a connection the other way round, which the policy would allow.

    One connection is older than the first program, so that nobody knows who began it, one than the first policy,
    and one was judged by a policy that allowed it.
    """
    lab, port = policy_lab, 7001
    before, between, after = programs(""), programs(OPEN_TO_ALL), programs(ONLY_X)

    def start(place: str, program: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *words]
        process = stack.enter_context(lab.popen(place, command, stdin=subprocess.PIPE))
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() in {"ready\n", "open\n"}
        return process

    def heard(process: subprocess.Popen[str]) -> list[int]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return [int(count) for count in process.stdout.readline().split()]

    def clients() -> dict[str, subprocess.Popen[str]]:
        ends = [str(address) for address in cluster.pod_addresses("y", "a", "w1")]
        return {place: start(f"pod/{place}", HEARER, str(port), *ends) for place in ("x/d", "y/b", "z/d")}

    with ExitStack() as stack:
        start("pod/y/a", TALKER, str(port))
        groups = {"oldest": clients()}
        dataplanes.install(lab, dataplane, before)
        time.sleep(0.1 * dataplane.slowness)  # the server has said something since
        groups["older"] = clients()
        dataplanes.install(lab, dataplane, between, before)
        groups["newer"] = clients()
        time.sleep(0.4 * dataplane.slowness)
        for name, group in groups.items():
            assert all(count for process in group.values() for count in heard(process)), name
        dataplanes.install(lab, dataplane, after, between)
        time.sleep(0.2 * dataplane.slowness)  # what was on its way when the policy came
        for group in groups.values():
            for process in group.values():
                heard(process)
        time.sleep(0.4 * dataplane.slowness)
        for name, group in groups.items():
            assert all(heard(group["x/d"])), f"{name}: allowed, and cut"
            assert not any((*heard(group["y/b"]), *heard(group["z/d"]))), f"{name}: denied, and goes on"


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", PLANES)
def test_connections_older_than_any_program_are_cut_where_pods_have_policies(
    policy_lab: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    """Nothing has tracked them, so nobody knows who began: the server's next packet must not begin them anew."""
    lab = policy_lab
    interval, some = 0.02, 0.6
    # TCP alone: a datagram of the server that is on its way may be the first one that is seen (docs/decisions/0012).
    ends = ENDS[:1]
    with ExitStack() as stack:
        free: dict[str, Flow] = {}
        denied: dict[str, Flow] = {}
        for client, server, group in (("z/d", "y/a", denied), ("y/b", "y/a", denied), ("z/d", "x/c", free)):
            for (protocol, port), family in ((e, f) for e in ends for f in (0, 1)):
                namespace, _, name = server.partition("/")
                address = ip_address(cluster.pod_addresses(namespace, name, "w1")[family])
                probe = Probe(f"pod/{client}", address, protocol, port, timeout=3)
                group[str(probe)] = stack.enter_context(lab.flow(probe, interval=interval))
        assert all(flow.opening.answered for flow in (*free.values(), *denied.values()))
        dataplanes.install(lab, dataplane, programs(ONLY_X))
        answered_meanwhile(denied, some)  # what was on its way when the policy came
        later = answered_meanwhile(denied, some)
        assert not any(later.values()), later
        # What goes on is not reset; a packet that was on its way as tracking began may have been lost.
        assert all(n > 0 for n in answered_meanwhile(free, some).values()), answered_meanwhile(free, some)
        assert all(flow.report().ended is None for flow in free.values())
        for flow in denied.values():
            flow.close(patience=0.1)  # no answer will come
