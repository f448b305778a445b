"""Who sends, as matches: pods of the cluster, the node itself, everybody else.

Knows: the node's way to tell pods from others. Must not know: services.
"""

from __future__ import annotations

from k8snetc.backends.nftables import words
from k8snetc.backends.nftables.build import Builder
from k8snetc.ir.addresses import cover_prefixes, prefix_of
from k8snetc.ir.types import FromInterface, Node, SourceIn, Who

CLUSTER = "cluster"
"""The set of the cluster's networks."""


class Clients:
    """Writes matches on the sender, in one family."""

    def __init__(self, node: Node, builder: Builder) -> None:
        self._node = node
        self._builder = builder

    def are(self, who: Who) -> str:
        """A match on senders that are `who`, with a blank behind it; "" for anybody."""
        match who:
            case Who.ANY:
                return ""
            case Who.NODE:
                return "fib saddr type local "
            case Who.CLUSTER:
                return self._cluster("")

    @property
    def foreign(self) -> str:
        """A match on everybody but pods of the cluster, with a blank behind it."""
        return self._cluster("!= ")

    def _cluster(self, operator: str) -> str:
        family = self._builder.family
        match self._node.detector:
            case SourceIn(networks):
                mine = [prefix_of(n) for n in networks if n.version == family]
                name = self._builder.prefixes(CLUSTER, cover_prefixes(family, mine))
                return f"{words.SADDR[family]} {operator}@{name} "
            case FromInterface(name, prefix):
                return f'iifname {operator}"{name}{"*" if prefix else ""}" '
            case None:
                raise AssertionError("without a detector, no route is for pods of the cluster")
