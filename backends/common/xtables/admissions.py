"""Ports of the node's own that must be let in.

Knows: how admissions become rules. Must not know: why they are wanted, and where they are hung.
"""

from __future__ import annotations

from k8snetc.backends.common.xtables import text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.ir.types import Admission, PortRange, Program, Protocol


def admit(program: Program, chains: Chains, incoming: Draft, *, comments: bool) -> None:
    """Let in what comes to the node's own ports that services announce (healthCheckNodePort)."""
    for protocol in Protocol:
        mine = sorted((a for a in program.admissions if a.protocol is protocol), key=lambda a: a.port)
        if mine:
            tree = trie.build([trie.Entry(a.port, 16, a) for a in mine], 16)
            _admissions(chains, incoming, tree, comments)


def _admissions(chains: Chains, draft: Draft, node: trie.Node[Admission], comments: bool) -> None:
    match node:
        case trie.Leaf(entries=entries):
            for _, _, admission in entries:
                port = text.dport(admission.protocol, PortRange(admission.port, admission.port))
                note = text.origin_comment("", admission.origin) if comments else ""
                draft.add(f"{port} -j ACCEPT", note)
        case trie.Branch(children=children):
            for child in children:
                below = Draft()
                _admissions(chains, below, child, comments)
                protocol = trie.entries_of(child)[0].item.protocol
                span = PortRange(child.value, child.value | ((1 << (16 - child.length)) - 1))
                draft.add(f"{text.dport(protocol, span)} -g {chains.put_content('H', below)}")
