"""Whom a packet can come from, as far as frontends tell senders apart: the classes that the rules are written for.

Knows: that routes are tried in order, and where each class shows itself (hook, source, interface). Must not know: sets.
"""

from __future__ import annotations

from enum import Enum

from k8snetc.backends.common.xtables import text
from k8snetc.ir.types import Action, Family, FromInterface, Frontend, Node, SourceIn, Who


class Sender(Enum):
    """Every packet is of exactly one class. The value is its letter in names of sets."""

    POD = "P"  # a pod of the cluster; comes in by an interface
    NODE = "N"  # a process of this node
    BOTH = "B"  # a process of this node that speaks from an address of the cluster's pods
    OTHER = "O"


_IS = {
    Who.CLUSTER: frozenset({Sender.POD, Sender.BOTH}),
    Who.NODE: frozenset({Sender.NODE, Sender.BOTH}),
    Who.ANY: frozenset(Sender),
}


def senders(node: Node, family: Family) -> tuple[Sender, ...]:
    """The classes that can be told apart on this node, the most general last."""
    match node.detector:
        case SourceIn() if node.detects(family):
            return (Sender.POD, Sender.BOTH, Sender.NODE, Sender.OTHER)
        case FromInterface():
            return (Sender.POD, Sender.NODE, Sender.OTHER)
        case _:
            return (Sender.NODE, Sender.OTHER)


def action_of(frontend: Frontend, sender: Sender) -> Action:
    """What the frontend does for this class: its first route that fits."""
    return next(r.action for r in frontend.routes if sender in _IS[r.who])


def pod_fragments(node: Node, family: Family, sender: Sender) -> list[str]:
    """Beginnings of rules that match the packets of POD or BOTH among those of their hook."""
    match node.detector:
        case SourceIn(networks):
            return [f" -s {text.network(n)}" for n in networks if n.version == family]
        case FromInterface(name, prefix) if sender is Sender.POD:
            return [f" -i {name}+" if prefix else f" -i {name}"]
        case _:
            return []
