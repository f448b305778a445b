"""Which interfaces lead to pods that reach each other past the rules."""

from __future__ import annotations

import pytest

from k8snetc.backends.common.bridges import Link, switch_of

LINKS = {
    1: Link("lo", ""),
    2: Link("eth0", ""),
    3: Link("eth0.7", "vlan", 2),
    4: Link("cni0", "bridge"),
    5: Link("cni0.100", "vlan", 4),
    6: Link("cni0.100.7", "vlan", 5),
    7: Link("veth1", "veth", 4),  # the number of its other end, which may be in another namespace
    8: Link("br-int", "openvswitch"),
    9: Link("loop", "vlan", 9),
}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (2, ""),
        (3, ""),
        (4, "cni0"),
        (5, "cni0"),
        (6, "cni0"),
        (7, ""),
        (8, "br-int"),
        (9, ""),
        (99, ""),
        (None, ""),
    ],
)
def test_the_switch_that_an_interface_rests_on(number: int | None, name: str) -> None:
    found = switch_of(LINKS, number)
    assert (found.name if found and found.kind in {"bridge", "openvswitch"} else "") == name
