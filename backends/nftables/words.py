"""How nft writes addresses, ports, times, marks and comments.

Knows: nft's spelling (that of `nft list`, 1.0.6). Must not know: what the words are for.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from socket import inet_ntoa

from k8snetc.ir.types import Address, Family, Origin, PortRange, Prefix, Protocol

COMMENT_LIMIT = 120
"""Bytes of a comment (NFTNL_UDATA_COMMENT_MAXLEN is 128, with the final NUL)."""

SADDR = {Family.IPV4: "ip saddr", Family.IPV6: "ip6 saddr"}
DADDR = {Family.IPV4: "ip daddr", Family.IPV6: "ip6 daddr"}
ADDRESS_TYPE = {Family.IPV4: "ipv4_addr", Family.IPV6: "ipv6_addr"}
LOOPBACK = {Family.IPV4: "127.0.0.0/8", Family.IPV6: "::1"}
SADDR_BITS = {Family.IPV4: 96, Family.IPV6: 64}
"""Where the source address begins in the network header, in bits; the destination follows it."""
SAME_BYTE = "same-byte"
"""The set of all pairs of two equal bytes."""
SAME_BYTE_SPEC = "typeof @nh,96,8 . @nh,128,8"
PORT = "meta l4proto . th dport"
"""Protocol and destination port, as the end of a key."""

MARK = 0x4000
"""The bit of the packet mark that says "masquerade": kube-proxy's, which network plugins know and leave alone. It lives
within one packet's way through one node."""


@cache
def value_text(family: Family, value: int) -> str:
    """An address given as an integer."""
    return str(IPv4Address(value)) if family is Family.IPV4 else str(IPv6Address(value))


def address_text(address: Address) -> str:
    """An address. The same as `str` says, but ten times as fast for IPv4."""
    return inet_ntoa(int(address).to_bytes(4, "big")) if isinstance(address, IPv4Address) else str(address)


def prefix_text(family: Family, prefix: Prefix) -> str:
    """A prefix; one address without its length."""
    shown = value_text(family, prefix.value)
    return shown if prefix.length == family.bits else f"{shown}/{prefix.length}"


def destination(address: Address, port: int) -> str:
    """What `dnat to` takes."""
    return f"{address_text(address)}:{port}" if address.version == 4 else f"[{address}]:{port}"


def ports(protocol: Protocol | None, ranges: Sequence[PortRange]) -> str:
    """A match on protocol and destination ports, with a blank before it; "" for every protocol."""
    if protocol is None:
        return ""
    if not ranges:
        return f" meta l4proto {protocol.value}"
    shown = [str(r.first) if r.first == r.last else f"{r.first}-{r.last}" for r in ranges]
    if len(shown) == 1:
        return f" {protocol.value} dport {shown[0]}"
    return f" {protocol.value} dport {{ {', '.join(shown)} }}"


def mask(bits: int) -> str:
    """A mark or mask as nft prints it."""
    return f"0x{bits:08x}"


def duration(seconds: int) -> str:
    """A time-out: `3h`, `1m30s`."""
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            text += f"{seconds // size}{unit}"
            seconds %= size
    return text


def hashed(kind: str, *identity: str) -> str:
    """`<kind>-<hash>`: equal for equal identities only (80 bits of BLAKE2b), and nothing of them is interpreted."""
    text = "".join(f"{len(part)}:{part}" for part in identity)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return f"{kind}-{b32encode(digest).decode('ascii').lower()}"


def comment(text: str) -> str:
    """Text that can stand between the quotes of a comment: printable ASCII, no quote, not too long."""
    clean = text
    if not (text.isascii() and text.isprintable()) or '"' in text or "\\" in text:
        clean = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    if len(clean) > COMMENT_LIMIT:
        half = (COMMENT_LIMIT - 3) // 2
        clean = f"{clean[:half]}...{clean[-half:]}"
    return clean


def origin_comment(label: str, origins: Iterable[Origin | None]) -> str:
    """The comment that leads a person back to the manifest: `label file:line`, "" where nothing is known."""
    known = [o for o in origins if o is not None]
    if not known:
        return comment(label)
    first = known[0]
    if not label:
        label = f"{first.namespace}/{first.name}" if first.namespace else first.name
    more = f" and {len(known) - 1} more" if len(known) > 1 else ""
    return comment(f"{label} {first.file}:{first.line}{more}")
