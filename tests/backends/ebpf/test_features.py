"""No code for what no object asks for: each feature's words are in the C where its object is, and only there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from k8snetc.backends.ebpf import emit
from k8snetc.backends.ebpf.lower import lower
from k8snetc.ir.types import Exposure, Family, FromInterface, Program, Protocol
from tests.backends.ebpf import support

EVERYTHING = support.both("w1")


def code(program: Program, *, counters: bool = True) -> str:
    """The C without its first lines, which name the features, and without comments."""
    text = emit.program(lower(program, counters=counters)).partition("*/")[2]
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def only(family: Family) -> Program:
    return support.both("w1", (family,))


def no_services() -> Program:
    return support.policies("w1")


def no_policy() -> Program:
    return support.services("w1")


def no_sctp() -> Program:
    return replace(
        EVERYTHING, frontends=tuple(f for f in EVERYTHING.frontends if f.protocol is not Protocol.SCTP)
    )


def no_udp() -> Program:
    return replace(
        EVERYTHING, frontends=tuple(f for f in EVERYTHING.frontends if f.protocol is not Protocol.UDP)
    )


def no_sources() -> Program:
    return replace(EVERYTHING, frontends=tuple(replace(f, sources=None) for f in EVERYTHING.frontends))


def no_affinity() -> Program:
    return replace(EVERYTHING, balancers=tuple(replace(b, affinity=None) for b in EVERYTHING.balancers))


def no_nodeports() -> Program:
    kept = tuple(f for f in EVERYTHING.frontends if f.exposure is not Exposure.NODE_PORT)
    return replace(EVERYTHING, frontends=kept)


def no_refusals() -> Program:
    return replace(EVERYTHING, rejects=(), drops=())


def no_cluster() -> Program:
    return replace(EVERYTHING, node=replace(EVERYTHING.node, detector=None))


def liberal() -> Program:
    return replace(EVERYTHING, node=replace(EVERYTHING.node, drop_invalid=False))


def no_ports() -> Program:
    plain = tuple(replace(e, rules=()) for e in EVERYTHING.enforcements)
    return replace(EVERYTHING, enforcements=plain)


ABSENT: dict[str, tuple[Callable[[], Program], str]] = {
    "IPv4": (lambda: only(Family.IPV6), r"struct ipv4 \{|connections4|parse4|socket_connectmapped6"),
    "IPv6": (lambda: only(Family.IPV4), r"struct ipv6 \{|connections6|parse6|extensions\("),
    "services": (
        no_services,
        r"frontends[46]|endpoints[46]|rewrite[46]|masquerade[46]|cgroup/|reroute|depart[46]|sockets[46]|bpf_redirect|reject[46]",
    ),
    "policy": (
        no_policy,
        r"admit[46]|verdicts[46]|identities[46]|pods[46]|policy_counts|denials|judged_protocol|port_sets",
    ),
    "SCTP": (no_sctp, r"sum_sctp|powers\[|multiply\("),
    "UDP": (no_udp, r"datagrams[46]|choose_for_datagrams"),
    "source ranges": (no_sources, r"sources[46]|in_sources"),
    "affinity": (no_affinity, r"affinity[46]"),
    "NodePorts": (no_nodeports, r"config.nodeport_first|config.nodeport_last|\*served"),
    "refusals": (no_refusals, r"refusals[46]|refusal[46]"),
    "pods told from others": (no_cluster, r"cluster[46]|from_cluster"),
    "invalid packets": (liberal, r"p->invalid"),
    "ports in policies": (no_ports, r"port_sets|struct port_key"),
}


@pytest.mark.parametrize("feature", ABSENT)
def test_no_code_for_what_no_object_asks(feature: str) -> None:
    make, words = ABSENT[feature]
    found = re.search(words, code(make()))
    assert found is None, f"{feature}: {found}"
    everything = code(EVERYTHING)
    for word in words.split("|"):
        assert re.search(word, everything), word


def test_counters() -> None:
    assert not re.search(r"counted|COUNT_|_counts|denial|ringbuf|watch", code(EVERYTHING, counters=False))


def test_cluster_by_interface() -> None:
    program = replace(EVERYTHING, node=replace(EVERYTHING.node, detector=FromInterface("cali", prefix=True)))
    assert "device->cluster" in code(program)
    assert not re.search(r"cluster[46] SEC", code(program))
    assert "device->cluster" not in code(EVERYTHING)


def test_a_node_without_anything_has_no_tables() -> None:
    text = code(Program())
    assert not re.search(r"connections|frontends|fragments|bpf_map_update", text)
