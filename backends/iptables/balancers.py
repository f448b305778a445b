"""Balancers as chains of the nat table: DNAT at random, with memory where affinity asks for it.

Knows: probabilities and memories. Must not know: who may use a balancer, and how packets get there.

A balancer's chain always ends in a translation: nothing returns from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from socket import inet_ntoa

from k8snetc.backends.common.xtables import names, text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.sets import Sets
from k8snetc.ir.types import Affinity, Balancer, Endpoint

LINE = 16
"""Endpoints that are drawn in one line; more are drawn by a tree, whose depth is logarithmic."""
_KEY_BITS = 32

Choice = tuple[int, str]  # weight, end of the rule


class Balancers:
    """Makes the chains of a program's balancers on demand. Local to one lowering."""

    def __init__(self, balancers: Mapping[str, Balancer], chains: Chains, sets: Sets) -> None:
        self._balancers = balancers
        self._chains = chains
        self._sets = sets
        self._ends: dict[str, str] = {}

    def end(self, name: str) -> str:
        """The end of a rule (with its protocol, if it does not name one itself) that sends to the balancer."""
        if name not in self._ends:
            self._ends[name] = self._end(self._balancers[name])
        return self._ends[name]

    def _end(self, balancer: Balancer) -> str:
        if len(balancer.endpoints) == 1:
            return _translate(balancer.endpoints[0])
        if balancer.affinity is None:
            # The protocol is matched with the port on the way here; DNAT to a port wants to see it in its rule.
            proto = f" -p {balancer.protocol.value}"
            choices = [(e.weight, _translate(e)) for e in balancer.endpoints]
        else:
            proto = ""
            choices = []
        draft = Draft()
        if balancer.affinity is not None:
            for e in balancer.endpoints:
                memory, chain = self._remembering(balancer, balancer.affinity, e)
                draft.add(f" -m set --match-set {memory} src -g {chain}")
                choices.append((e.weight, f" -g {chain}"))
        name = names.hashed("B", balancer.name)
        if len(choices) <= LINE:
            _draw(draft, proto, choices)
        else:
            self._draw_tree(draft, balancer, proto, choices)
        return f" -g {self._chains.put(name, draft)}"

    def _remembering(self, balancer: Balancer, affinity: Affinity, endpoint: Endpoint) -> tuple[str, str]:
        """The set of an endpoint's clients, and the chain that adds to it and translates."""
        identity = (affinity.key, balancer.protocol.value, text.destination(endpoint.address, endpoint.port))
        memory = self._sets.add_memory(balancer.family, *identity)
        draft = Draft()
        draft.add(f" -j SET --add-set {memory} src --exist --timeout {affinity.timeout}")
        draft.add(f" -p {balancer.protocol.value}{_translate(endpoint)}")
        return memory, self._chains.put(names.hashed("E", *identity, str(affinity.timeout)), draft)

    def _draw_tree(self, draft: Draft, balancer: Balancer, proto: str, choices: Sequence[Choice]) -> None:
        """Branches hold endpoints whose keys begin alike; one more or less changes one branch and its weight."""
        entries = sorted(
            (
                trie.Entry(_key(e), _KEY_BITS, choice)
                for e, choice in zip(balancer.endpoints, choices, strict=True)
            ),
            key=lambda entry: (entry.value, entry.item[1]),
        )
        root = trie.build(entries, _KEY_BITS, leaf=LINE)
        assert isinstance(root, trie.Branch)
        self._draw_node(draft, balancer, proto, root)

    def _draw_node(self, draft: Draft, balancer: Balancer, proto: str, node: trie.Node[Choice]) -> int:
        """Fill the chain of a node; return its weight."""
        match node:
            case trie.Leaf(entries=entries):
                choices = [e.item for e in entries]
                _draw(draft, proto, choices)
                return sum(weight for weight, _ in choices)
            case trie.Branch(children=children):
                branches: list[Choice] = []
                for child in children:
                    below = Draft()
                    weight = self._draw_node(below, balancer, proto, child)
                    name = names.hashed("B", balancer.name, str(child.value), str(child.length))
                    branches.append((weight, f" -g {self._chains.put(name, below)}"))
                _draw(draft, "", branches)
                return sum(weight for weight, _ in branches)


def _draw(draft: Draft, proto: str, choices: Sequence[Choice]) -> None:
    """Choose one, in proportion to the weights: each rule takes its share of what the ones before left."""
    shares = _shares(tuple([weight for weight, _ in choices]))
    draft.rules.extend([f"{proto}{share}{end}" for share, (_, end) in zip(shares, choices, strict=True)])


@lru_cache(maxsize=4096)
def _shares(weights: tuple[int, ...]) -> tuple[str, ...]:
    """For each of the weights the match that takes its share of what those before it left."""
    rests = accumulate(reversed(weights))
    return tuple(map(text.probability, weights, reversed([*rests])))


def _translate(endpoint: Endpoint) -> str:
    if endpoint.address.version == 4:  # written out, for the sake of 100,000 endpoints
        return f" -j DNAT --to-destination {inet_ntoa(endpoint.address.packed)}:{endpoint.port}"
    return f" -j DNAT --to-destination {text.destination(endpoint.address, endpoint.port)}"


def _key(endpoint: Endpoint) -> int:
    identity = text.destination(endpoint.address, endpoint.port).encode("ascii")
    return int.from_bytes(blake2b(identity, digest_size=4).digest(), "big")
