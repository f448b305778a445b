"""Addresses are read as `ipaddress` reads them, although they are read in another way."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from k8snetc.compiler.fields import parse_address, parse_endpoint_address

ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda a: a.exploded.upper()),
    st.integers(0, 1 << 48).map(lambda n: str(IPv6Address(n))),
    st.sampled_from(
        ["fe80::1", "ff02::1", "ff0e::1", "febf::", "fec0::", "127.0.0.1", "169.254.1.1", "224.0.0.9"]
    ),
    st.sampled_from(
        ["fd00::1%eth0", "::ffff:1.2.3.4", "64:ff9b::1.2.3.4", "1:2:3:4:5:6:7::", "0.1.2.3", "::"]
    ),
)
TEXTS = st.one_of(ADDRESSES, st.text("0123456789abcdefF:./% x\0", max_size=20))


def plain(text: str) -> IPv4Address | IPv6Address | None:
    """What `ipaddress` makes of it; None also where the API server takes no such form."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        return None
    return address


def unreachable(address: IPv4Address | IPv6Address) -> bool:
    """Special addresses that no endpoint may have (ValidateEndpointIP)."""
    link_local = (
        address.packed[:3] == b"\xe0\0\0"
        if address.version == 4
        else (address.packed[0] == 0xFF and address.packed[1] & 0xF == 2)
    )
    return address.is_unspecified or address.is_loopback or address.is_link_local or link_local


@settings(max_examples=500, deadline=None)
@given(TEXTS)
@example("1.2.3.04")
@example("::1.2.3.04")
@example("00001::")
def test_addresses(text: str) -> None:
    wanted = plain(text)
    try:
        found = parse_address(text)
    except PydanticCustomError:
        assert wanted is None
    else:
        assert found == wanted
        assert str(found) == str(wanted)
    try:
        found = parse_endpoint_address(text)
    except PydanticCustomError:
        assert wanted is None or unreachable(wanted)
    else:
        assert wanted is not None
        assert found == wanted
        assert not unreachable(wanted)
