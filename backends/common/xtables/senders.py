"""Who sends: how a rule tells pods of the cluster and the node's own processes from others.

Knows: the node's detector, as fragments of rules. Must not know: what senders may do.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.sets import Sets
from k8snetc.ir.addresses import cover_prefixes, prefix_of
from k8snetc.ir.types import Family, FromInterface, Node, Prefix, SourceIn, Who

FEW = 4
"""Up to so many networks are told apart by rules; more are a set (each node of a cluster may have its own)."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """Parts of a rule that match a sender: `source` stands first, `interface` before the protocol, `match` after it."""

    source: str = ""
    interface: str = ""
    match: str = ""

    @property
    def negated(self) -> Fragments:
        """Matches everybody else. Only for fragments with exactly one part."""
        return Fragments(
            f" !{self.source}" if self.source else "",
            f" !{self.interface}" if self.interface else "",
            self.match.replace(" -m set ", " -m set ! ", 1),
        )


class Senders:
    """The senders of one family, as one node sees them."""

    def __init__(self, node: Node, family: Family, sets: Sets) -> None:
        self._family = family
        self._sets = sets
        self._interface = ""
        self._networks: tuple[Prefix, ...] = ()
        match node.detector:
            case FromInterface(name, prefix):
                self._interface = f" -i {name}{'+' if prefix else ''}"
            case SourceIn(networks):
                prefixes = [prefix_of(n) for n in networks if n.version == family]
                self._networks = cover_prefixes(family, prefixes)
            case None:
                pass

    @property
    def nobody_is_cluster(self) -> bool:
        """Pods of the cluster can't be told from others."""
        return not self._interface and not self._networks

    @property
    def everybody_is_cluster(self) -> bool:
        """Every source is a pod's."""
        return any(p.length == 0 for p in self._networks)

    def of(self, who: Who) -> list[Fragments]:
        """Rules with these fragments together match the packets of these senders."""
        match who:
            case Who.ANY:
                return [Fragments()]
            case Who.NODE:
                return [Fragments(match=" -m addrtype --src-type LOCAL")]
            case Who.CLUSTER:
                return self._cluster()

    def _cluster(self) -> list[Fragments]:
        if self._interface:
            return [Fragments(interface=self._interface)]
        if len(self._networks) > FEW:
            name = self._sets.add(self._family, self._networks)
            return [Fragments(match=f" -m set --match-set {name} src")]
        return [Fragments(source=f" -s {text.cidr(self._family, p)}") for p in self._networks]
