"""What an apply would do: one value, from which everything that is shown or saved is made.

Knows: how a plan is put together from a target, a program and what ran before. Must not know: how it is shown
(`render`, `document`), files. Human, Markdown and JSON output come from the one `Plan`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from k8snetc.apply.connectivity import Effect, Names, effects
from k8snetc.apply.transaction import fingerprint
from k8snetc.backends.target import Change, Target
from k8snetc.ir.types import Program

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from `old` to `new`, both named for people.

    `base` is the fingerprint of the live state that the plan was made for, "" where it is not about a node.
    `effects` None: what ran before is not known, so neither is what it means for connections. `drift` is what differs
    between what was installed last and what is there, as opposed to what the new program changes. `texts` are unified
    diffs, where golden files are compared.
    """

    old: str
    new: str
    backend: str = ""
    node: str = ""
    base: str = ""
    effects: tuple[Effect, ...] | None = ()
    changes: tuple[Change, ...] = ()
    drift: tuple[Change, ...] = ()
    steps: tuple[str, ...] = ()
    size: int = 0
    texts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    assumed: bool = False

    @property
    def differs(self) -> bool:
        """Whether anything would change: the exit code of `diff`."""
        return bool(self.effects or self.changes or self.texts)

    @property
    def summary(self) -> str:
        """The closing line."""
        if not self.differs:
            return "No changes."
        parts = []
        if self.effects:
            kinds = Counter(e.symbol for e in self.effects)
            words = ", ".join(f"{kinds[s]} {w}" for s, w in SYMBOLS.items() if kinds[s])
            parts.append(f"{many(len(self.effects), 'connectivity change')} ({words})")
        elif self.effects is not None and (self.changes or self.texts):
            parts.append("no connectivity changes" + (" but what the drift did" if self.drift else ""))
        if self.changes:
            steps = f" in {many(len(self.steps), 'step')}" if self.steps else ""
            parts.append(f"{many(len(self.changes), 'change')} of rules and sets{steps}")
        if self.texts:
            parts.append(f"{many(len(self.texts), 'file')} of golden output")
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}."


SYMBOLS = {"+": "gained", "-": "lost", "~": "changed"}
"""The legend of connectivity; of rules it is added, removed, changed."""


def many(number: int, what: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def live_plan(
    target: Target[S],
    program: Program,
    *,
    live: S,
    before: S,
    installed: Program | None,
    expected: str = "",
    names: Names | None = None,
    was_names: Names | None = None,
    new: str = "the manifests",
) -> Plan:
    """From what the node runs to `program`. `installed` is the program of the newest receipt, None if there is none.

    `expected` is the fingerprint of the state that the newest receipt left; `before` is the state that the first apply
    found. `names` are the pods of the manifests, `was_names` those of the receipt. Raises `UnsupportedError`.
    """
    goal = target.grounded(target.desired(program), before)
    changes = target.changes(live, goal)
    steps = tuple(target.steps(live, goal)) if changes else ()
    drift: tuple[Change, ...] = ()
    known = installed
    base = fingerprint(target, live)
    if installed is not None and base != expected:
        drift = target.changes(target.grounded(target.desired(installed), before), live)
    elif installed is None and not target.changes(live, target.grounded(target.empty(), before)):
        known = Program(node=program.node)
    return Plan(
        "the live node",
        new,
        target.name,
        program.node.name or "",
        base,
        effects(known, program, names, was_names) if known is not None else None,
        changes,
        drift,
        tuple(s.title for s in steps),
        sum(s.size for s in steps),
        warnings=target.warnings(),
        assumed=program.assumed,
    )


def set_plan(
    old: Program,
    new: Program,
    *,
    names: tuple[Names | None, Names | None] = (None, None),
    target: Target[S] | None = None,
    labels: tuple[str, str],
) -> Plan:
    """From one set of manifests to another; with a target also in its words. `names` are the old and the new pods."""
    changes: tuple[Change, ...] = ()
    if target is not None:
        changes = target.changes(target.desired(old), target.desired(new))
    return Plan(
        *labels,
        target.name if target is not None else "",
        new.node.name or "",
        effects=effects(old, new, names[1], names[0]),
        changes=changes,
        assumed=old.assumed or new.assumed,
    )
