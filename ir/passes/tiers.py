"""What passes over enforcements share: rewriting the rules of each tier. No pass itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from k8snetc.ir.types import Enforcement, Rule

Rules = tuple[Rule, ...]


def map_tiers(
    enforcements: Iterable[Enforcement],
    unordered: Callable[[Rules], Rules],
    ordered: Callable[[Rules], Rules],
) -> tuple[Enforcement, ...]:
    """The enforcements with their allow rules and their tiers (where the first match wins) rewritten."""
    return tuple(_map(e, unordered(e.rules), ordered(e.admin), ordered(e.baseline)) for e in enforcements)


def _map(enforcement: Enforcement, rules: Rules, admin: Rules, baseline: Rules) -> Enforcement:
    if (rules, admin, baseline) == (enforcement.rules, enforcement.admin, enforcement.baseline):
        return enforcement
    return replace(enforcement, rules=rules, admin=admin, baseline=baseline)
