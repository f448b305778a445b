"""No packet gets past a policy by being odd: hundreds by hand, and connections that a helper expects."""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

import pytest
import yaml

from k8snetc.ir.types import Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome, Probe
from tests.semantics import dataplanes, evasion
from tests.semantics import policy_cluster as cluster
from tests.semantics.policy_cases import network_policy
from tests.semantics.test_policies import PLANES, programs_of


def arrived(lab: Cluster, attempts: list[evasion.Attempt], slowness: int = 1) -> set[str]:
    """The names of the attempts of which something got through to a pod, or out of one to where it was sent."""
    captures = [lab.capture(place) for place in evasion.WATCHED]
    for attempt in attempts:
        for packet in attempt.packets:
            lab.inject(attempt.place, packet)
    time.sleep(0.5 * slowness)
    seen = b"".join(p.data for capture in captures for p in capture.stop() if not p.outgoing)
    return {a.name for a in attempts if a.mark in seen}


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*PLANES, dataplanes.IN_VM])
def test_odd_packets_do_not_get_past(policy_lab: Cluster, dataplane: dataplanes.Dataplane) -> None:
    attempts = list(evasion.attempts())
    assert len({a.name for a in attempts}) == len(attempts) > 400
    direct = [a for a in attempts if not a.service]
    free = arrived(policy_lab, direct, dataplane.slowness)
    # Without rules nearly all arrive, so that silence later is policy's doing: the kernel itself drops some sources.
    assert len(free) > 0.95 * len(direct), sorted({a.name for a in direct} - free)
    documents = [*cluster.documents(), *(d for d in yaml.safe_load_all(evasion.POLICY) if d)]
    dataplanes.install(policy_lab, dataplane, programs_of(documents))
    through = arrived(policy_lab, attempts, dataplane.slowness)
    wanted = {a.name for a in attempts if a.passes}
    assert not through - wanted, "\n".join(sorted(through - wanted))
    assert not wanted - through, "\n".join(sorted(wanted - through))


FTP = """
table ip helpers {
    ct helper ftp { type "ftp" protocol tcp; }
    chain prerouting { type filter hook prerouting priority 0; tcp dport 80 ct helper set "ftp"; }
}
"""


def _ask_for_data(server: str, own: str, port: int, slowness: int) -> None:
    """Say as an FTP client would: connect to me there."""
    with socket.create_connection((server, 80), timeout=3 * slowness) as connection:
        connection.sendall(b"USER me\r\n")  # the helper listens from the end of a line on
        time.sleep(0.1 * slowness)
        connection.sendall(f"PORT {own.replace('.', ',')},{port >> 8},{port & 255}\r\n".encode())
        time.sleep(0.2 * slowness)


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", [*(p for p in PLANES if "ebpf" not in str(p.id)), dataplanes.IN_VM])
def test_what_a_helper_expects_is_judged_like_any_other_connection(
    policy_lab: Cluster, dataplane: dataplanes.Dataplane
) -> None:
    """The connection table calls such a connection related, and a client may have any port of its own expected."""
    lab, only_ftp = (
        policy_lab,
        network_policy(
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 80}]}]}"
        ),
    )
    own, server = (cluster.pod_addresses(ns, pod, "w1")[0] for ns, pod in (("y", "a"), ("x", "c")))
    back = Probe("pod/x/c", ip_address(own), Protocol.TCP, 81)
    documents = [*cluster.documents(), *(d for d in yaml.safe_load_all(only_ftp) if d)]
    dataplanes.install(lab, dataplane, programs_of(documents))
    lab.call("node/w1", _nft, FTP)
    lab.call("pod/y/a", _ask_for_data, server, own, 81, dataplane.slowness)
    expected = lab.run("node/w1", ["conntrack", "-L", "expect"]).stdout
    assert f"dst={own} sport=0 dport=81" in expected, expected
    assert lab.probe_all([back])[0].outcome is Outcome.TIMEOUT


def _nft(text: str) -> None:
    import subprocess

    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
