"""A plan for people, as text on a terminal or as Markdown for a pull request.

Knows: symbols, legend, order, limits of length. Must not know: how a plan came to be, whether there is a terminal (the
caller says). Words from manifests are shown with control characters replaced, so that they can't act on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from k8snetc.apply.plan import SYMBOLS, Plan, many
from k8snetc.backends.target import Change

MOST_EFFECTS = 200
MOST_CHANGES = 30
MOST_LINES = 12
MOST_CAUSES = 3
"""How much is shown without `--full`."""

T = TypeVar("T")
_Paint = Callable[[str, str], str]
_COLOURS = {"+": "32", "-": "31", "~": "33"}
_RULES = {"+": "added", "-": "removed", "~": "changed"}


def clean(text: str) -> str:
    """The text with everything that isn't printable as `?`; line ends too."""
    return "".join(c if c.isprintable() else "?" for c in text)


def as_text(plan: Plan, *, colour: bool, full: bool = False) -> str:
    """The plan as text. The symbols carry the meaning; colour only repeats it."""

    def paint(symbol: str, line: str) -> str:
        return f"\x1b[{_COLOURS[symbol]}m{line}\x1b[0m" if colour else line

    return "\n".join([*_text(plan, paint, full=full), ""])


def _text(plan: Plan, paint: _Paint, *, full: bool) -> Iterator[str]:
    if plan.drift:
        yield "Drift: the node differs from what was installed last"
        yield from _changes(plan.drift, paint, full=full)
        yield ""
    if plan.effects:
        yield "Connectivity:"
        shown = _first(plan.effects, MOST_EFFECTS, full=full)
        for effect in shown:
            yield paint(effect.symbol, f"  {effect.symbol} {clean(str(effect))}")
            yield from (f"      {clean(c)}" for c in _causes(effect.causes, full=full))
        yield from _more(plan.effects, shown, "changes")
        yield ""
    elif plan.effects is None:
        yield "Connectivity: not known, because what runs now was not installed with this state directory"
        yield ""
    if plan.changes:
        yield f"Rules ({plan.backend}):"
        yield from _changes(plan.changes, paint, full=full)
        yield ""
    for one in plan.texts:
        yield from (paint(x[0], clean(x)) if x[:1] in ("+", "-") else clean(x) for x in one.splitlines())
        yield ""
    yield from _legend(plan)
    if plan.assumed:
        yield "Addresses are assumed (--assume-addresses): for review, not for a node."
    yield plan.summary


def _changes(changes: Sequence[Change], paint: _Paint, *, full: bool) -> Iterator[str]:
    shown = _first(changes, MOST_CHANGES, full=full)
    for change in shown:
        yield paint(change.symbol, f"  {change.symbol} {clean(change.where)}")
        lines = [*(("-", x) for x in change.removed), *(("+", x) for x in change.added)]
        some = _first(lines, MOST_LINES, full=full)
        yield from (paint(sign, f"      {sign} {clean(line)}") for sign, line in some)
        yield from (f"    {x}" for x in _more(lines, some, "lines"))
        if change.origin and not any(
            change.origin in line for _, line in some
        ):  # rules carry theirs as comments
            yield f"      {clean(change.origin)}"
    yield from _more(changes, shown, "changes")


def _first(all_of_them: Sequence[T], most: int, *, full: bool) -> Sequence[T]:
    """All, or the first ones if leaving some out saves more than the line that says so."""
    return all_of_them if full or len(all_of_them) <= most + 1 else all_of_them[:most]


def _more(all_of_them: Sequence[object], shown: Sequence[object], what: str) -> Iterator[str]:
    if len(shown) < len(all_of_them):
        yield f"  ... and {len(all_of_them) - len(shown):,} more {what} (--full shows them)"


def _causes(causes: Sequence[str], *, full: bool) -> Sequence[str]:
    if full or len(causes) <= MOST_CAUSES:
        return causes
    return (*causes[:MOST_CAUSES], f"and {len(causes) - MOST_CAUSES:,} more")


def _legend(plan: Plan) -> Iterator[str]:
    used = {e.symbol for e in plan.effects or ()}
    parts = []
    if used:
        parts.append(", ".join(f"{s} {w}" for s, w in SYMBOLS.items() if s in used))
    rules = {c.symbol for c in (*plan.changes, *plan.drift)}
    if rules:
        words = ", ".join(f"{s} {w}" for s, w in _RULES.items() if s in rules)
        parts.append(f"rules: {words}" if used else words)
    if parts:
        yield f"Legend: {'; '.join(parts)}"


def as_markdown(plan: Plan, *, full: bool = False) -> str:
    """The plan as a comment for a pull request: connectivity as a table, rules folded away."""
    return "\n".join([*_markdown(plan, full=full), ""])


def _markdown(plan: Plan, *, full: bool) -> Iterator[str]:
    yield f"### k8snetc: {_inline(plan.old)} → {_inline(plan.new)}"
    yield ""
    yield f"**{plan.summary}**"
    if plan.assumed:
        yield ""
        yield "Addresses are assumed (`--assume-addresses`): for review, not for a node."
    for warning in plan.warnings:
        yield ""
        yield f"> ⚠️ {_inline(warning)}"
    if plan.effects:
        yield ""
        yield "| | from | to | what | because of |"
        yield "|---|---|---|---|---|"
        shown = _first(plan.effects, MOST_EFFECTS, full=full)
        for e in shown:
            what = " ".join(w for w in (e.protocol or "any protocol", e.ports) if w)
            what += f": {e.detail}" if e.detail else ""
            causes = "<br>".join(_inline(c) for c in _causes(e.causes, full=full))
            yield f"| `{e.symbol}` | {_inline(e.source)} | {_inline(e.destination)} | {_inline(what)} | {causes} |"
        yield from _more(plan.effects, shown, "changes")
    elif plan.effects is None:
        yield ""
        yield "What ran before is not known, so neither is what changes for connections."
    for title, changes in (("Drift", plan.drift), (f"Rules ({plan.backend})", plan.changes)):
        if changes:
            lines = [_signed(x) for x in _changes(changes, lambda _, x: x, full=full)]
            yield from _folded(f"{title}: {many(len(changes), 'change')}", lines)
    for one in plan.texts:
        yield from _folded("Golden output", [clean(x) for x in one.splitlines()])


def _signed(line: str) -> str:
    """A line of `_changes` with its sign first, as a `diff` block wants it."""
    bare = line.lstrip()
    return f"{bare[0]} {line}" if bare[:2] in ("+ ", "- ") else f"  {line}"


def _folded(title: str, lines: Sequence[str]) -> Iterator[str]:
    fence = "```"
    while any(fence in x for x in lines):
        fence += "`"
    yield from (
        "",
        f"<details><summary>{_inline(title)}</summary>",
        "",
        f"{fence}diff",
        *lines,
        fence,
        "",
        "</details>",
    )


_ESCAPED = str.maketrans(
    {c: f"\\{c}" for c in "\\`*_[]|#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "@\u200b"}
)


def _inline(words: str) -> str:
    """Text that Markdown shows as it is: nothing formats, nobody is mentioned, no cell ends."""
    return clean(words).translate(_ESCAPED)
