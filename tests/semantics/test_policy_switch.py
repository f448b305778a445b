"""While one program replaces another, nothing passes that both deny: there is no instant of a mixture.

Both programs admit the pods with one label to one port of y/a. Between them the label goes to another pod and the port
to another number, so that a peer set of one beside a rule of the other would open what neither does.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml

from k8snetc.ir.types import Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.sessions import Capture
from tests.semantics import dataplanes
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import network_policy
from tests.semantics.test_policies import PLANES, programs_of

SWITCHES = 4
# Who has the label, and which port it opens: the first program's, then the second's.
SIDES = (("x/b", 80), ("x/d", 81))
KINDS = DENIED, ALLOWED = b"<denied by both>", b"<allowed by one>"
# Sends what neither program allows without a pause worth mentioning, and what one of them does now and then.
BLAST = f"""
import signal, socket, sys, time
denied, allowed, *addresses = sys.argv[1:]
sockets = [(socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM), a) for a in addresses]
going, sent = True, 0
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
end = time.monotonic() + 120
print("ready", flush=True)
while going and time.monotonic() < end:
    for one, address in sockets:
        one.sendto({DENIED!r}, (address, int(denied)))
        if sent % 20 == 0:
            one.sendto({ALLOWED!r}, (address, int(allowed)))
    sent += 1
    time.sleep(0.0002)
print(sent, flush=True)
"""


def programs(side: int) -> dict[str, Program]:
    holder, port = SIDES[side]
    documents = cluster.documents()
    for document in documents:
        meta = document["metadata"]
        if document["kind"] == "Pod" and f"{meta.get('namespace')}/{meta['name']}" == holder:
            meta["labels"] = {**meta["labels"], "client": "yes"}
    policy = network_policy(
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels:"
        f" {{client: 'yes'}}}}}}], ports: [{{protocol: UDP, port: {port}}}]}}]}}"
    )
    made = programs_of([*documents, *(d for d in yaml.safe_load_all(policy) if d)])
    return {"w1": made["w1"]}  # where the protected pod is


def counted(capture: Capture) -> Counter[bytes]:
    """How many of each kind have come in since the capture began."""
    return Counter(
        kind for packet in capture.stop() for kind in KINDS if kind in packet.data and not packet.outgoing
    )


@pytest.mark.kernel
@pytest.mark.parametrize(
    "dataplane", [*(p for p in PLANES if p.id != "ebpf-sockets"), dataplanes.IN_VM]
)  # it judges like ebpf-packets
def test_what_both_programs_deny_never_passes(policy_lab: Cluster, dataplane: dataplanes.Dataplane) -> None:
    lab, both = policy_lab, [programs(0), programs(1)]
    addresses = cluster.pod_addresses("y", "a", "w1")
    dataplanes.install(lab, dataplane, both[0])
    blasters: list[subprocess.Popen[str]] = []
    try:
        with lab.capture("pod/y/a") as capture:
            for holder, port in SIDES:
                other = next(p for _, p in SIDES if p != port)
                command = [sys.executable, "-c", BLAST, str(other), str(port), *addresses]
                blasters.append(lab.popen(f"pod/{holder}", command))
            assert all(b.stdout is not None and b.stdout.readline() == "ready\n" for b in blasters)
            for switch in range(SWITCHES):
                dataplanes.install(lab, dataplane, both[(switch + 1) % 2], both[switch % 2])
                time.sleep(0.1)
            seen = counted(capture)
        with lab.capture("pod/y/a") as capture:
            lab.reset()  # what a moment without rules would look like
            time.sleep(0.1)
            without = counted(capture)
    finally:
        for blaster in blasters:
            blaster.send_signal(signal.SIGTERM)
        sent = [int(b.communicate(timeout=30)[0]) for b in blasters]
    assert min(sent) > 1000 // dataplane.slowness, sent
    assert seen[ALLOWED] > 10, seen
    assert without[DENIED] > 10, without
    assert seen[DENIED] == 0, seen
