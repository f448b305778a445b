"""Chains while they are being written.

Knows: how lines become chains. Must not know: what the lines mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k8snetc.backends.common.xtables import names
from k8snetc.backends.common.xtables.model import Chain, RuleLine
from k8snetc.ir.types import Origin


@dataclass(slots=True)
class Draft:
    """A chain's rules without their beginning (`-A NAME`), so that the name may depend on them."""

    rules: list[tuple[str, str, Origin | None]] = field(default_factory=list)

    def add(self, rule: str, origin: Origin | None = None, note: str = "") -> None:
        """Append a rule: fragments as `text` makes them, each beginning with a space.

        `note` is a comment match; it goes before the target, and has no part in a name made of content.
        """
        self.rules.append((rule, note, origin))


class Chains:
    """Collects the chains of one table. Local to one lowering."""

    def __init__(self) -> None:
        self._made: dict[str, Chain] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._made

    def put(self, name: str, draft: Draft) -> str:
        """Store a chain under a name of its identity."""
        chain = _chain(name, draft)
        if self._made.setdefault(name, chain) != chain:
            raise ValueError(f"two different chains would be called {name}")
        return name

    def put_content(self, kind: str, draft: Draft) -> str:
        """Store a chain under a name of its content: equal chains are one, with the comments of the first."""
        name = names.content(kind, (rule for rule, _, _ in draft.rules))
        if name not in self._made:
            self._made[name] = _chain(name, draft)
        return name

    @property
    def all(self) -> tuple[Chain, ...]:
        """Every chain so far, sorted by name."""
        return tuple(self._made[n] for n in sorted(self._made))


def _chain(name: str, draft: Draft) -> Chain:
    start = f"-A {name}"
    return Chain(
        name,
        tuple(
            RuleLine(start + (_noted(rule, note) if note else rule), origin)
            for rule, note, origin in draft.rules
        ),
    )


def _noted(rule: str, note: str) -> str:
    at = max(rule.rfind(" -j "), rule.rfind(" -g "))
    return rule[:at] + note + rule[at:]
