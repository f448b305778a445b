"""By which interface the node would send to an address, asked of the kernel for many addresses at once.

Knows: rtnetlink's RTM_GETROUTE (linux/rtnetlink.h). Must not know: whose addresses they are. pyroute2 takes some
milliseconds for each, and this a tenth of one, which counts where a node has hundreds of pods.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping

from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Address

_NEW_ROUTE, _GET_ROUTE, _ERROR = 24, 26, 2  # RTM_NEWROUTE, RTM_GETROUTE, NLMSG_ERROR
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, number, port
_ROUTE = struct.Struct(
    "=8BI"
)  # struct rtmsg: family, length of the destination..., the seventh is the type; flags
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_DESTINATION, _DEVICE = 1, 4  # RTA_DST, RTA_OIF
_UNICAST = 1  # RTN_UNICAST
# What the kernel says of an address without a route, or with one that leads nowhere (blackhole, prohibit...).
_NOWHERE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.EAGAIN)
_LARGEST = 1 << 16


def ways(addresses: Iterable[Address]) -> Mapping[Address, int]:
    """The interface (its index) for each address that another machine or a pod has; none where nothing would be sent.

    Raises InstallError.
    """
    found: dict[Address, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        for number, address in enumerate(addresses, 1):
            kernel.send(_question(address, number))
            device = _answer(kernel.recv(_LARGEST), address)
            if device is not None:
                found[address] = device
    return found


def _question(address: Address, number: int) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DESTINATION) + address.packed
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute
    return _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, number, 0) + body


def _answer(data: bytes, address: Address) -> int | None:
    length, kind, *_ = _HEADER.unpack_from(data)
    if kind == _ERROR:
        (code,) = struct.unpack_from("=i", data, _HEADER.size)
        if -code in _NOWHERE:
            return None
        raise InstallError(f"can't ask for the route to {address}: {os.strerror(-code)}")
    if kind != _NEW_ROUTE:
        raise InstallError(f"can't ask for the route to {address}: an answer of type {kind}")
    if _ROUTE.unpack_from(data, _HEADER.size)[7] != _UNICAST:
        return None  # the node's own, or one that leads nowhere
    at = _HEADER.size + _ROUTE.size
    while at + _ATTRIBUTE.size <= length:
        size, name = _ATTRIBUTE.unpack_from(data, at)
        if name == _DEVICE:
            return int.from_bytes(data[at + _ATTRIBUTE.size : at + size], sys.byteorder)
        at += max(size + 3 & ~3, _ATTRIBUTE.size)
    raise InstallError(f"can't ask for the route to {address}: the answer has no interface")
