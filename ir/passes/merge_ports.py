"""Ports of rules that differ in nothing else become one rule's ranges.

Before: several rules with the same verdict, peers and protocol. After: one with the union of their ports, as sorted,
disjoint ranges; all ports, where one of them has all or the ranges add up to 0-65535. In a tier, where the first match
wins, only neighbours are merged. The first rule's origin stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from k8snetc.ir.addresses import merge
from k8snetc.ir.passes.tiers import map_tiers
from k8snetc.ir.types import PortRange, Program, Protocol, Rule, Verdict

ALL = (PortRange(0, 65535),)


def run(program: Program) -> Program:
    """The program with the ports of each peer together."""
    return replace(program, enforcements=map_tiers(program.enforcements, _unordered, _ordered))


def _unordered(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    together: dict[object, list[Rule]] = {}
    for rule in rules:
        together.setdefault(_rest(rule), []).append(rule)
    return tuple(_merged(group) for group in together.values())


def _ordered(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(_merged(list(group)) for _, group in groupby(rules, _rest))


def _rest(rule: Rule) -> tuple[Verdict, str | None, Protocol | None]:
    return rule.verdict, rule.peers, rule.protocol


def _merged(rules: list[Rule]) -> Rule:
    ports = () if any(not r.ports for r in rules) else _union(p for r in rules for p in r.ports)
    return rules[0] if ports == rules[0].ports else replace(rules[0], ports=ports)


def _union(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    ports = tuple(PortRange(*r) for r in merge(ranges))
    return () if ports == ALL else ports
