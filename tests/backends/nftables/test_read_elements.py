"""Elements as the kernel lists them: what comes twice is read again."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from k8snetc.backends.nftables import observe
from k8snetc.backends.nftables.decode import RepeatedError, decode
from k8snetc.backends.nftables.model import NamedSet
from k8snetc.backends.nftables.netlink import ChangedError
from k8snetc.ir.types import Family

PODS = ("typeof ip daddr",)
ENDS = ("typeof ip daddr . tcp dport : ip daddr . tcp dport",)


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def listed(*addresses: str) -> bytes:
    """A list of elements of a set of addresses (linux/netfilter/nf_tables.h: key 1, value 1)."""
    return b"".join(
        attribute(1, attribute(1, attribute(1, ip_address(a).packed)))  # list element, key, value
        for a in addresses
    )


def mapped(*addresses: str) -> bytes:
    """The same for a map from an address and port to itself."""
    return b"".join(
        attribute(1, attribute(1, attribute(1, end)) + attribute(2, attribute(1, end)))
        for end in (ip_address(a).packed + b"\0\x50\0\0" for a in addresses)
    )


def test_lists_are_put_together() -> None:
    assert decode(PODS, [listed("10.0.0.1", "10.0.0.2"), listed("10.0.0.3")]) == {
        "10.0.0.1": "",
        "10.0.0.2": "",
        "10.0.0.3": "",
    }
    assert decode(ENDS, [mapped("10.0.0.1")]) == {"10.0.0.1 . 80": "10.0.0.1 . 80"}


@pytest.mark.parametrize(
    ("spec", "lists"),
    [
        (PODS, [listed("10.0.0.1", "10.0.0.1")]),
        (PODS, [listed("10.0.0.1", "10.0.0.2"), listed("10.0.0.2")]),
        (ENDS, [mapped("10.0.0.1"), mapped("10.0.0.2", "10.0.0.1")]),
    ],
)
def test_an_element_that_comes_twice_means_that_another_is_missing(
    spec: tuple[str, ...], lists: list[bytes]
) -> None:
    with pytest.raises(RepeatedError):
        decode(spec, lists)


def test_such_a_set_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[listed("10.0.0.1"), listed("10.0.0.1")], [listed("10.0.0.1"), listed("10.0.0.2")]])
    monkeypatch.setattr(observe, "element_lists", lambda *_: next(answers))
    filled = observe.filled(Family.IPV4, NamedSet("pods", PODS))
    assert set(filled.elements) == {"10.0.0.1", "10.0.0.2"}


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "element_lists", lambda *_: [listed("10.0.0.1", "10.0.0.1")])
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ChangedError):
        observe.filled(Family.IPV4, NamedSet("pods", PODS))
