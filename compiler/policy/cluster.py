"""The cluster as policies see it: pods with addresses, namespaces with labels, nodes with addresses; indexed.

Knows: which pods count (no host-network pods: those are the node; none that has finished; none without address) and
what every namespace carries. Must not know: policies, or rules.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from k8snetc.compiler.policy.model import NodePeer, PodPeer
from k8snetc.compiler.selectors import Bits, LabelIndex, Selector, bits_of, positions_of
from k8snetc.ir.addresses import Range
from k8snetc.ir.types import Family, Origin, Protocol

NAMESPACE_NAME = (
    "kubernetes.io/metadata.name"  # core/v1 LabelMetadataName: set by the API server, never by a user
)


@dataclass(frozen=True, slots=True)
class PodEntry:
    """One pod that policies can select. `addresses` as integers, by family; `ports`: (name, protocol) -> number."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    local: bool
    addresses: Mapping[Family, tuple[int, ...]]
    ports: Mapping[tuple[str, Protocol], int]
    origin: Origin


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node: its labels and its addresses as integers."""

    labels: Mapping[str, str]
    addresses: Mapping[Family, tuple[int, ...]]


class Cluster:
    """Pods, namespaces and nodes; sets of pods are bit sets over `pods`."""

    def __init__(
        self,
        pods: Sequence[PodEntry],
        namespaces: Mapping[str, Mapping[str, str]],
        nodes: Sequence[NodeEntry],
    ) -> None:
        self.pods = tuple(pods)
        self.nodes = tuple(nodes)
        names = sorted({*namespaces, *(p.namespace for p in self.pods)})
        self.namespaces: dict[str, dict[str, str]] = {
            n: {**namespaces.get(n, {}), NAMESPACE_NAME: n} for n in names
        }
        self.local: Bits = bits_of((i for i, p in enumerate(self.pods) if p.local), len(self.pods))
        self._names = names
        self._namespace_index = LabelIndex([self.namespaces[n] for n in names])
        self._pod_index = LabelIndex([p.labels for p in self.pods])
        inside: dict[str, list[int]] = {}
        for at, pod in enumerate(self.pods):
            inside.setdefault(pod.namespace, []).append(at)
        self._inside = {n: bits_of(at, len(self.pods)) for n, at in inside.items()}
        self._in_namespaces: dict[Bits, Bits] = {}
        self._named: dict[tuple[str, Protocol], dict[int, Bits]] = {}

    @cached_property
    def _node_index(self) -> LabelIndex:
        return LabelIndex([n.labels for n in self.nodes])

    @cached_property
    def _by_address(self) -> dict[Family, tuple[list[int], list[int]]]:
        out: dict[Family, tuple[list[int], list[int]]] = {}
        for family in Family:
            pairs = sorted((a, i) for i, p in enumerate(self.pods) for a in p.addresses.get(family, ()))
            out[family] = ([a for a, _ in pairs], [i for _, i in pairs])
        return out

    @cached_property
    def _port_holders(self) -> dict[tuple[str, Protocol], dict[int, list[int]]]:
        out: dict[tuple[str, Protocol], dict[int, list[int]]] = {}
        for at, pod in enumerate(self.pods):
            for key, number in pod.ports.items():
                out.setdefault(key, {}).setdefault(number, []).append(at)
        return out

    @property
    def everybody(self) -> Bits:
        """All pods."""
        return self._pod_index.everything

    def select(self, peer: PodPeer) -> Bits:
        """The pods that a peer or subject selects."""
        inside = (
            self._inside.get(peer.namespace, 0)
            if peer.namespace is not None
            else self._within(peer.namespaces)
        )
        return inside & self._pod_index.select(peer.pods) if inside and peer.pods.requirements else inside

    def has_nodes(self, peer: NodePeer) -> bool:
        """Whether a peer selects any node."""
        return bool(self._node_index.select(peer.nodes))

    def node_addresses(self, peer: NodePeer, family: Family) -> list[int]:
        """The addresses of the nodes that a peer selects."""
        chosen = positions_of(self._node_index.select(peer.nodes))
        return [a for i in chosen for a in self.nodes[i].addresses.get(family, ())]

    def addresses(self, pods: Bits, family: Family) -> list[int]:
        """The addresses of a set of pods."""
        return [a for i in positions_of(pods) for a in self.pods[i].addresses.get(family, ())]

    def within(self, family: Family, ranges: Iterable[Range]) -> Bits:
        """The pods with an address in the ranges."""
        values, owners = self._by_address[family]
        return bits_of(
            (
                at
                for first, last in ranges
                for at in owners[bisect_left(values, first) : bisect_right(values, last)]
            ),
            len(self.pods),
        )

    def port_holders(self, name: str, protocol: Protocol) -> dict[int, Bits]:
        """Which pods have a port of that name and protocol, by its number."""
        known = self._named.get((name, protocol))
        if known is None:
            holders = self._port_holders.get((name, protocol), {})
            known = {n: bits_of(at, len(self.pods)) for n, at in sorted(holders.items())}
            self._named[name, protocol] = known
        return known

    def _within(self, wanted: Selector) -> Bits:
        if not wanted.requirements:
            return self.everybody
        chosen = self._namespace_index.select(wanted)
        known = self._in_namespaces.get(chosen)
        if known is None:
            known = 0
            for at in positions_of(chosen):
                known |= self._inside.get(self._names[at], 0)
            self._in_namespaces[chosen] = known
        return known
