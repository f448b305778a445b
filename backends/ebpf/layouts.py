"""The structs of the generated C's tables, field by field. `templates/tables.c.j2` must say the same.

Must not know: what fills them.
"""

from __future__ import annotations

from k8snetc.backends.ebpf.model import Layout, Type
from k8snetc.ir.types import Family

ROUTE: tuple[tuple[str, Type], ...] = (
    ("first", Type.U32),
    ("count", Type.U32),
    ("action", Type.U8),
    ("masquerade", Type.U8),
    ("", Type.PAD16),
)
# routes[who is a pod of the cluster + 2 * is the node], sockets[is the node]
ROUTES = ("outside", "cluster", "node", "node-in-cluster", "pod-socket", "node-socket")

U32 = Layout((("value", Type.U32),))
INDEX = Layout((("index", Type.U32),))
PROFILE = Layout((("ingress", Type.U32), ("egress", Type.U32)))
VERDICT_KEY = Layout((("profile", Type.U32), ("identity", Type.U32)))
PORT_KEY = Layout(
    (("length", Type.U32), ("set", Type.BE32), ("protocol", Type.U8), ("", Type.PAD8), ("port", Type.BE16))
)
FRONTEND = Layout(
    (
        ("service", Type.U32),
        ("sources", Type.U32),
        ("affinity", Type.U32),
        ("timeout", Type.U32),
        *((f"{who}.{name}" if name else "", t) for who in ROUTES for name, t in ROUTE),
    )
)
DEVICE = Layout(
    (
        ("address4", Type.ADDRESS4),
        ("address6", Type.ADDRESS6),
        *((f"mac{i}", Type.U8) for i in range(6)),
        ("cluster", Type.U8),
        ("", Type.PAD8),
    )
)


def _address(family: Family) -> Type:
    return Type.ADDRESS4 if family is Family.IPV4 else Type.ADDRESS6


def address(family: Family) -> Layout:
    """An address alone."""
    return Layout((("address", _address(family)),))


def network(family: Family) -> Layout:
    """A prefix, as LPM tables want it."""
    return Layout((("length", Type.U32), ("address", _address(family))))


def source_key(family: Family) -> Layout:
    """A set's number and a prefix of its addresses."""
    return Layout((("length", Type.U32), ("set", Type.BE32), ("address", _address(family))))


def frontend_key(family: Family) -> Layout:
    """What a client connects to."""
    return Layout(
        (("address", _address(family)), ("port", Type.BE16), ("protocol", Type.U8), ("", Type.PAD8))
    )


def endpoint(family: Family) -> Layout:
    """Where a connection goes."""
    return Layout((("address", _address(family)), ("port", Type.BE16), ("", Type.PAD16)))


def member_key(family: Family) -> Layout:
    """An endpoint of the balancer whose slots start at `first`."""
    return Layout((("first", Type.U32), ("address", _address(family)), ("port", Type.BE16), ("", Type.PAD16)))
