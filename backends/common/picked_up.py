"""TCP connections that the kernel began to track in their middle: nobody knows which side asked for them.

Knows: ctnetlink's dump, and how the kernel marks such entries. Must not know: policy, and what becomes of them.

The direction of an entry is that of the first packet that was seen. In the middle of a connection that may be one of
the side that answers (`nf_conntrack_tcp_loose`). The kernel can't check the windows of such a connection, for it has
not seen how they are scaled, and tells so in the entry's TCP flags (net/netfilter/nf_conntrack_proto_tcp.c, `tcp_new`;
linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_tcp.h). Entries that were in a flow table bear the flag, too.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Address

if TYPE_CHECKING:
    from pyroute2.netlink import nla_base

_NETLINK_NETFILTER = 12
_GET_ALL = struct.pack("=IHHIIBBH", 20, 0x0101, 0x0301, 1, 0, socket.AF_UNSPEC, 0, 0)
"""`struct nlmsghdr` (IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK; NLM_F_REQUEST and NLM_F_DUMP), `struct nfgenmsg`."""
_HEADER = struct.Struct("=IHHII")
_BEFORE_ATTRIBUTES = 20
_ERROR, _DONE = 2, 3
_PROTOINFO, _TCP, _FLAGS = 4, 1, 4  # CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL
_BE_LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL
_LARGEST = 1 << 18
"""More than the kernel puts into one answer (net/netlink/af_netlink.c: 32 KiB at most)."""


@dataclass(frozen=True, slots=True)
class Picked:
    """One such connection: its first packet that was seen, and who answers to that one."""

    source: Address
    source_port: int
    destination: Address
    destination_port: int
    endpoint: Address
    endpoint_port: int

    @property
    def filter(self) -> str:
        """Options of the conntrack tool that select this connection."""
        return (
            f"-f ipv{self.source.version} -p tcp -s {self.source} -d {self.destination} "
            f"--sport {self.source_port} --dport {self.destination_port}"
        )


def picked_up() -> Iterator[Picked]:
    """All of them in the caller's network namespace. Raises `InstallError`."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
            kernel.send(_GET_ALL)
            while data := kernel.recv(_LARGEST):
                for kind, message in _messages(data):
                    if kind == _DONE:
                        return
                    if kind == _ERROR:
                        code = -struct.unpack_from("=i", message, _HEADER.size)[0]
                        raise OSError(code, f"error {code}")
                    if _tcp_flags(message) & _BE_LIBERAL:
                        yield _decoded(message)
    except OSError as e:
        raise InstallError(f"the kernel does not tell which connections it tracks: {e.strerror}") from e


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at : at + length]
        at += (length + 3) & ~3


def _tcp_flags(message: bytes) -> int:
    """The flags of the side that sent the first packet; 0 for other protocols. Most entries need no closer look."""
    at, end = _BEFORE_ATTRIBUTES, len(message)
    for wanted in (_PROTOINFO, _TCP, _FLAGS):
        while at < end:
            length, kind = struct.unpack_from("=HH", message, at)
            if kind & 0x3FFF == wanted:  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
                at, end = at + 4, at + length
                break
            at += (length + 3) & ~3
        else:
            return 0
    return message[at]


def _decoded(message: bytes) -> Picked:
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

    entry = nfct_msg(message)
    entry.decode()
    source, source_port, destination, destination_port = _ends(entry.get_attr("CTA_TUPLE_ORIG"))
    endpoint, endpoint_port, *_ = _ends(entry.get_attr("CTA_TUPLE_REPLY"))
    return Picked(source, source_port, destination, destination_port, endpoint, endpoint_port)


def _ends(of: nla_base) -> tuple[Address, int, Address, int]:
    addresses, ports = of.get_attr("CTA_TUPLE_IP"), of.get_attr("CTA_TUPLE_PROTO")
    source, destination = (
        ip_address(addresses.get_attr(f"CTA_IP_V4_{end}") or addresses.get_attr(f"CTA_IP_V6_{end}"))
        for end in ("SRC", "DST")
    )
    return (
        source,
        ports.get_attr("CTA_PROTO_SRC_PORT"),
        destination,
        ports.get_attr("CTA_PROTO_DST_PORT"),
    )
