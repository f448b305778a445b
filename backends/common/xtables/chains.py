"""Chains while they are being written.

Knows: how lines become chains. Must not know: what the lines mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k8snetc.backends.common.xtables import names
from k8snetc.backends.common.xtables.model import Chain


@dataclass(slots=True)
class Draft:
    """A chain's rules (see `model.Chain`) without their comments, so that the chain's name may depend on them."""

    rules: list[str] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)
    """Comment matches, by the number of their rule."""

    def add(self, rule: str, note: str = "") -> None:
        """Append a rule: fragments as `text` makes them, each beginning with a space.

        `note` is a comment match; it goes before the target, and has no part in a name made of content.
        """
        if note:
            self.notes[len(self.rules)] = note
        self.rules.append(rule)

    def extend(self, other: Draft) -> None:
        """Append all rules of another chain."""
        self.notes.update({len(self.rules) + at: note for at, note in other.notes.items()})
        self.rules.extend(other.rules)

    def chain(self, name: str) -> Chain:
        """The chain that these rules are."""
        rules = self.rules
        if self.notes:
            rules = [*rules]
            for at, note in self.notes.items():
                rules[at] = _noted(rules[at], note)
        return Chain(name, tuple(rules))


class Chains:
    """Collects the chains of one table. Local to one lowering."""

    def __init__(self) -> None:
        self._made: dict[str, Chain] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._made

    def put(self, name: str, draft: Draft) -> str:
        """Store a chain under a name of its identity."""
        chain = draft.chain(name)
        if self._made.setdefault(name, chain) != chain:
            raise ValueError(f"two different chains would be called {name}")
        return name

    def put_content(self, kind: str, draft: Draft) -> str:
        """Store a chain under a name of its content: equal chains are one, with the comments of the first."""
        name = names.content(kind, draft.rules)
        if name not in self._made:
            self._made[name] = draft.chain(name)
        return name

    @property
    def all(self) -> tuple[Chain, ...]:
        """Every chain so far, sorted by name."""
        return tuple(self._made[n] for n in sorted(self._made))


def _noted(rule: str, note: str) -> str:
    at = max(rule.rfind(" -j "), rule.rfind(" -g "))
    return rule[:at] + note + rule[at:]
