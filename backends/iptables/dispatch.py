"""From an address, protocol and port to the rules of one frontend: prefix trees of chains.

Knows: how a tree over addresses, then one over ports, becomes chains. Must not know: what happens at
the leaves; the caller writes the rules there, and may put rules at the head of a subtree's chain.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from k8snetc.backends.common.xtables import names, text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.ir import types as ir

INLINE = 2
"""A subtree with so few entries is written where its chain would be called."""
COVERS = 2
"""Binary branchings at the root: traffic for no service pays for at most 2^COVERS tests."""

TIGHT = {ir.Family.IPV4: 9, ir.Family.IPV6: 33}
"""A block whose prefix is at least so long is tested at the root as it is."""

S = TypeVar("S")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Writer(Protocol[T_contra, S]):
    """Writes what a tree leads to. `S` is what the head of a chain tells everything below it."""

    def head(self, draft: Draft, items: Sequence[T_contra], state: S) -> S:
        """Begin the chain of a subtree that holds `items`."""
        ...

    def leaf(self, draft: Draft, address: str, port: str, item: T_contra, state: S) -> None:
        """Write the rules of one item; the fragments match its address ("" : known by now), and its port."""
        ...


@dataclass(frozen=True, slots=True)
class Target(Generic[T]):
    """An item with its protocol and port."""

    protocol: ir.Protocol
    port: int
    item: T


def tops(entries: Sequence[trie.Entry[T]], family: ir.Family, covers: int = COVERS) -> list[trie.Node[T]]:
    """The trees at the root: one, or up to 2^covers where one block would hold half the world."""
    first, last = entries[0].value, entries[-1].value
    bit = (first ^ last).bit_length() - 1
    if covers == 0 or family.bits - 1 - bit >= TIGHT[family]:
        return [trie.build(entries, family.bits)]
    middle = bisect_left(entries, last >> bit << bit, key=lambda e: e.value)
    return tops(entries[:middle], family, covers - 1) + tops(entries[middle:], family, covers - 1)


class Dispatch(Generic[T, S]):
    """Writes the trees of one table. `by_content`: chains are named by content, else by the block they cover."""

    def __init__(self, family: ir.Family, chains: Chains, writer: Writer[T, S], *, by_content: bool) -> None:
        self._family = family
        self._chains = chains
        self._writer = writer
        self._by_content = by_content

    def addresses(self, draft: Draft, targets: Sequence[tuple[int, Target[T]]], state: S) -> None:
        """Write, into `draft`, the dispatch on the destination address; what matches nothing comes back to it."""
        if not targets:
            return
        entries = [
            trie.Entry(value, self._family.bits, target)
            for value, target in sorted(targets, key=lambda t: (t[0], t[1].protocol.value, t[1].port))
        ]
        for node in tops(entries, self._family):
            self._call(draft, node, state, "-j")

    def ports(
        self, draft: Draft, targets: Sequence[Target[T]], state: S, doors: Sequence[tuple[str, str]]
    ) -> None:
        """Write, into `draft`, the dispatch on protocol and port behind each door (fragments before and after)."""
        for protocol in ir.Protocol:
            mine = sorted((t for t in targets if t.protocol is protocol), key=lambda t: t.port)
            if not mine:
                continue
            tree = trie.build([trie.Entry(t.port, 16, t) for t in mine], 16)
            name = self._port_chain(tree, protocol, "node", state)
            span = text.dport(protocol, ir.PortRange(mine[0].port, mine[-1].port))
            for before, after in doors:
                draft.add(f"{before}{span}{after} -j {name}")

    # --- addresses ---

    def _call(self, draft: Draft, node: trie.Node[Target[T]], state: S, how: str) -> None:
        where = text.to(self._family, ir.Prefix(node.value, node.length))
        if isinstance(node, trie.Leaf) and len(node.entries) <= INLINE:
            self._address_rules(draft, node.entries, state)
        else:
            draft.add(f"{where} {how} {self._address_chain(node, state)}")

    def _address_chain(self, node: trie.Node[Target[T]], state: S) -> str:
        draft = Draft()
        state = self._writer.head(draft, [e.item.item for e in trie.entries_of(node)], state)
        match node:
            case trie.Leaf(entries=entries) if len(entries) > trie.LEAF:
                # So many ports of one address: it is known by now, only they remain to be told apart.
                for protocol in ir.Protocol:
                    mine = [e.item for e in entries if e.item.protocol is protocol]
                    if mine:
                        tree = trie.build([trie.Entry(t.port, 16, t) for t in mine], 16)
                        name = self._port_chain(
                            tree, protocol, text.value_text(self._family, node.value), state
                        )
                        draft.add(f" -p {protocol.value} -g {name}")
            case trie.Leaf(entries=entries):
                self._address_rules(draft, entries, state)
            case trie.Branch(children=children):
                for child in children:
                    self._call(draft, child, state, "-g")
        return self._put(draft, self._block_name(node), "R")

    def _address_rules(self, draft: Draft, entries: Sequence[trie.Entry[Target[T]]], state: S) -> None:
        for entry in entries:
            address = text.cidr(self._family, ir.Prefix(entry.value, entry.length))
            target = entry.item
            port = text.dport(target.protocol, ir.PortRange(target.port, target.port))
            self._writer.leaf(draft, f" -d {address}", port, target.item, state)

    def _block_name(self, node: trie.Node[Target[T]]) -> str:
        readable = f"K8SNETC-D-{text.value_text(self._family, node.value)}-{node.length}"
        if self._family is ir.Family.IPV4:
            return readable
        return names.hashed("D", readable)

    # --- ports ---

    def _port_chain(self, node: trie.Node[Target[T]], protocol: ir.Protocol, owner: str, state: S) -> str:
        draft = Draft()
        state = self._writer.head(draft, [e.item.item for e in trie.entries_of(node)], state)
        match node:
            case trie.Leaf(entries=entries):
                for entry in entries:
                    port = text.dport(protocol, ir.PortRange(entry.value, entry.value))
                    self._writer.leaf(draft, "", port, entry.item.item, state)
            case trie.Branch(children=children):
                for child in children:
                    span = ir.PortRange(child.value, child.value | ((1 << (16 - child.length)) - 1))
                    name = self._port_chain(child, protocol, owner, state)
                    draft.add(f"{text.dport(protocol, span)} -g {name}")
        name = names.hashed("N", owner, protocol.value, str(node.value), str(node.length))
        return self._put(draft, name, "R")

    def _put(self, draft: Draft, name: str, kind: str) -> str:
        if self._by_content:
            return self._chains.put_content(kind, draft)
        return self._chains.put(name, draft)
