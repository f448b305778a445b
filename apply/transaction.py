"""Lock, recheck the base, install, verify, receipt; on any failure back to what ran before.

Knows: the order of these, and what a crash in each leaves. Must not know: any back end, the command line, how things
are printed. The kernel is behind `backends.target.Target`, the files behind `apply.store`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol, TypeVar

from k8snetc.apply import journal, receipts
from k8snetc.apply.connectivity import Names
from k8snetc.apply.errors import ApplyError, BrokenError, RolledBackError, StaleError, StateError
from k8snetc.apply.receipts import Receipt, digest
from k8snetc.apply.signals import Stop, deferred
from k8snetc.apply.store import Store
from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common.run import CommandError
from k8snetc.backends.target import Change, Collector, InstallError, InstallOptions, LeftBehind, Step, Target
from k8snetc.ir.data import to_json
from k8snetc.ir.types import Program

S = TypeVar("S")
BEFORE = "before"
STALE = "the node has changed since this plan was made; make a new plan and look at it"
LOCK_WAIT = 10.0
"""Seconds to wait for another apply to end before giving up."""

_REFUSED = (CommandError, InstallError, OSError, UnsupportedError)


class Watch(Protocol):
    """Is told what happens: for a progress line, and for tests that stop the world at any point."""

    def began(self, at: int, total: int, step: Step) -> None:
        """Step `at` (from 0) of `total` is about to run."""
        ...

    def ended(self, at: int, total: int, step: Step) -> None:
        """Step `at` has run."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know: that an interrupted apply is undone, say."""
        ...


class Silent:
    """The watch of a caller who looks at the outcome only."""

    def began(self, at: int, total: int, step: Step) -> None: ...

    def ended(self, at: int, total: int, step: Step) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where a program comes from, for the receipt. `manifests` is the SHA-256 of all input, "" if unknown.

    `pods` are the pods that the manifests name, `install` the options of the target, None if unknown.
    """

    paths: tuple[str, ...] = ()
    manifests: str = ""
    summary: str = ""
    restores: int | None = None
    pods: Names | None = None
    install: InstallOptions | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply did. `receipt` None: nothing was to be done. `timings` in seconds, by phase, in order."""

    receipt: Receipt | None
    steps: tuple[str, ...] = ()
    size: int = 0
    timings: tuple[tuple[str, float], ...] = ()
    cut: int = 0


@dataclass(slots=True)
class _Clock:
    """Measures the phases of one apply."""

    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start


def fingerprint(target: Target[S], state: S) -> str:
    """A short name for exactly this state: by it a plan knows its base again."""
    return digest(target.dump(state))


def refuse_assumed(program: Program) -> None:
    """Raise `ApplyError` if the program's addresses are made up."""
    if program.assumed:
        raise ApplyError(
            "the addresses of this program are assumed (--assume-addresses); "
            "install what the cluster says: kubectl get -A -o json"
        )


def apply(
    target: Target[S],
    program: Program,
    store: Store,
    *,
    source: Source | None = None,
    base: str | None = None,
    wait: float = LOCK_WAIT,
    watch: Watch | None = None,
) -> Outcome:
    """Make the node run `program`. `base`: the fingerprint of the state that a plan saw; another is refused.

    Raises `ApplyError` if nothing was changed, `RolledBackError` or `BrokenError` if something was. Does not return
    before a fresh look at the kernel has shown exactly the program.
    """
    refuse_assumed(program)
    source = source or Source()
    watch = watch or Silent()
    clock = _Clock()
    started = time.perf_counter()
    with store.locked(wait):
        recover(target, store, watch)
        now = installed(target, store)
        with clock.phase("lower"):
            goal = target.desired(program)
        with clock.phase("observe"):
            live = target.observe()
        with clock.phase("recheck"):
            dumped = target.dump(live)
            if base is not None and digest(dumped) != base:
                raise StaleError(STALE)
            goal = target.grounded(goal, _before(target, store, live, dumped))
        with clock.phase("compare"):
            steps = target.steps(live, goal)
        with clock.phase("old program"):
            data = to_json(program)
            name = digest(data)
            runs = now if now is not None and _is_intact(now, dumped) else None
            if runs is not None and runs.program == name and not steps and receipts.has_program(store, runs):
                return Outcome(None, timings=tuple(clock.timings.items()))
            # Where something else ran, or nobody knows what, connections may be open that neither program allows.
            old = _program(store, runs) if runs is not None else None

        def made(state: S) -> Receipt:
            return Receipt(
                number=max(receipts.numbers(store), default=0) + 1,
                backend=target.name,
                node=program.node.name or "",
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                version=version("k8snetc"),
                sources=source.paths,
                manifests=source.manifests,
                program=name,
                state=fingerprint(target, state),
                summary=source.summary,
                seconds=round(time.perf_counter() - started, 3),
                steps=tuple(s.title for s in steps),
                restores=source.restores,
                place=receipts.here(),
                install=source.install,
            )

        what = f"apply of {', '.join(source.paths) or 'a program'}"
        cut, state = 0, live
        if steps:
            with _undoable(target, store, dumped, what, watch, clock=clock, failing=program) as stop:
                with clock.phase("install"):
                    _run(steps, watch, stop)
                with clock.phase("connections"):
                    cut = _cut(target, old, program)
                with clock.phase("verify"):
                    state = _verified(target, goal)
                with clock.phase("receipt"):
                    receipt = made(state)
                    receipts.save(store, receipt, data, source.pods)
        else:
            with clock.phase("connections"):
                cut = _cut(target, old, program)
            with clock.phase("receipt"):
                receipt = made(state)
                receipts.save(store, receipt, data, source.pods)
    return Outcome(
        receipt,
        tuple(s.title for s in steps),
        sum(s.size for s in steps),
        tuple(clock.timings.items()),
        cut,
    )


def remove(
    target: Target[S], store: Store, *, wait: float = LOCK_WAIT, watch: Watch | None = None
) -> Outcome:
    """Leave the node as it was before the first apply; the state directory goes too."""
    watch = watch or Silent()
    clock = _Clock()
    with store.locked(wait):
        recover(target, store, watch, judge=False)
        installed(target, store)
        with clock.phase("observe"):
            live = target.observe()
        dumped = target.dump(live)
        goal = target.grounded(target.empty(), _before(target, store, live, dumped))
        steps = target.steps(live, goal)
        with _undoable(target, store, dumped, "remove", watch, clock=clock) as stop:
            with clock.phase("install"):
                _run(steps, watch, stop)
            with clock.phase("verify"):
                _verified(target, goal)
        store.clear()
    return Outcome(
        None, tuple(s.title for s in steps), sum(s.size for s in steps), tuple(clock.timings.items())
    )


def collect(
    target: Target[S],
    collector: Collector[S],
    store: Store,
    *,
    wait: float = LOCK_WAIT,
    watch: Watch | None = None,
) -> LeftBehind:
    """Collect what earlier changes left behind and is idle now; returns what there was.

    What is left behind takes no part in the state, so a killed collection needs no undoing. `collector` is the target.
    """
    watch = watch or Silent()
    with store.locked(wait):
        recover(target, store, watch)
        if installed(target, store) is None:
            return LeftBehind()  # whatever is there, it is somebody else's
        live = target.observe()
        with deferred() as stop:
            try:
                _run(collector.collecting(live), watch, stop)
            except _REFUSED as e:
                raise RolledBackError(f"not everything was collected: {e}; try again") from e
    return collector.left_behind(live)


def recover(target: Target[S], store: Store, watch: Watch, *, judge: bool = True) -> bool:
    """Undo what a killed change left, or find that it had come to its end. Call it under the lock.

    Returns whether there was anything. Raises `BrokenError` if it can't be undone. `judge`: connections, too, which
    whoever removes everything next need not.
    """
    left = journal.pending(store)
    if left is None:
        journal.end(store)
        return False
    if left.backend != target.name:
        raise ApplyError(
            f"an interrupted {left.what} of the {left.backend} back end is to be undone first: "
            f"run `k8snetc remove --backend {left.backend}` or apply with it again"
        )
    live = target.observe()
    now = receipts.newest(store)
    # At its base the kernel may be as it was, and connections may not.
    if now is not None and now.state == fingerprint(target, live) != digest(left.base):
        watch.note(f"an interrupted {left.what} had come to its end; nothing to undo")
    else:
        watch.note(f"undoing an interrupted {left.what}")
        try:
            _put_back(target, store, left.base, watch, judge=judge)
        except _REFUSED as e:
            raise BrokenError(
                f"an interrupted {left.what} could not be undone: {e}; the journal is kept, the next apply tries again"
            ) from e
    journal.end(store)
    return True


def base_of_next(target: Target[S], store: Store) -> S:
    """What the next change will start from: what is live, or what a killed (or still running) change is put back to.

    If that other change comes to its end instead, a plan for this base is stale, and refused.
    """
    left = journal.pending(store)
    live = target.observe()
    if left is None or left.backend != target.name:
        return live
    now = receipts.newest(store)
    if now is not None and now.state == fingerprint(target, live):
        return live
    return target.load(left.base)


def installed(target: Target[S], store: Store) -> Receipt | None:
    """The newest receipt. Raises `ApplyError` if it is another back end's: two on one node would contend."""
    now = receipts.newest(store)
    if now is not None and now.backend != target.name:
        raise ApplyError(
            f"the {now.backend} back end is installed on this node; "
            f"run `k8snetc remove --backend {now.backend}` before you use {target.name}"
        )
    return now


def _is_intact(receipt: Receipt, dumped: bytes) -> bool:
    """Whether the kernel holds what a receipt tells of, and as this version of k8snetc would have put it there."""
    return receipt.state == digest(dumped) and receipt.version == version("k8snetc")


def _program(store: Store, receipt: Receipt) -> Program | None:
    """What a receipt installed, None where its file is damaged or another version's: then it is not known."""
    try:
        return receipts.program_of(store, receipt.number)
    except StateError:
        return None


def before_first(target: Target[S], store: Store) -> S | None:
    """The state that the first apply found, None if there was none since the last boot."""
    where, _, dumped = (store.read(BEFORE) or b"").partition(b"\n")
    if where != _whose(target):
        return None
    try:
        return target.load(dumped)
    except ValueError as e:
        raise StateError(
            f"{store.path / BEFORE} is damaged ({e}); remove it: then what runs now counts as what was there before"
        ) from e


def _whose(target: Target[S]) -> bytes:
    """The first line of `before`: another back end's is of no use, and neither is one of another boot."""
    return f"{receipts.here()} {target.name}".encode()


def _before(target: Target[S], store: Store, live: S, dumped: bytes) -> S:
    """The state that the first apply found; if this is the first, it is written."""
    before = before_first(target, store)
    if before is None:
        store.write(BEFORE, _whose(target) + b"\n" + dumped)
        return live
    return before


@contextmanager
def _undoable(
    target: Target[S],
    store: Store,
    base: bytes,
    what: str,
    watch: Watch,
    *,
    clock: _Clock,
    failing: Program | None = None,
) -> Iterator[Stop]:
    """Keep a journal while the body changes the node, and put `base` (a dump) back if it fails or is asked to stop.

    `failing`: the program that it installs.
    """
    with clock.phase("journal"):
        journal.begin(store, journal.Journal(target.name, what, base))
    with deferred() as stop:
        try:
            yield stop
        except Exception as cause:
            watch.note(f"{what} failed, putting back what ran before: {cause}")
            try:
                _put_back(target, store, base, watch, failed=failing)
            except Exception as e:  # noqa: BLE001 - see above: whatever it is, the operator must hear both
                raise BrokenError(
                    f"{what} failed: {cause}; and what ran before could not be put back: {e}; "
                    "the journal is kept, the next apply tries again"
                ) from cause
            journal.end(store)
            raise RolledBackError(f"{what} failed, what ran before runs again: {cause}") from cause
    journal.end(store)


def _put_back(
    target: Target[S],
    store: Store,
    base: bytes,
    watch: Watch,
    *,
    failed: Program | None = None,
    judge: bool = True,
) -> None:
    goal = target.load(base)
    for step in target.steps(target.observe(), goal):
        step.run()
    changes = target.changes(target.observe(), goal)
    if changes:
        raise BrokenError(f"the node differs from what ran before: {_differences(changes)}")
    now = receipts.newest(store) if judge else None
    ran = _program(store, now) if now is not None else None
    if ran is not None:
        # What the undone change has let in is cut, and what it has cut goes on, as this program says.
        _cut(target, None, ran)
        if failed is not None:
            _cut(target, failed, ran)
    elif now is not None:
        watch.note("what ran before can't be read, so its connections are judged by the next apply")
    watch.note("what ran before runs again")


def _cut(target: Target[S], old: Program | None, new: Program) -> int:
    """A connection that goes on although it is denied is a hole: what can't be cut fails the change."""
    try:
        return target.cut(old, new)
    except _REFUSED as e:
        raise InstallError(f"connections that the program would not make could not be cut: {e}") from e


def _run(steps: Sequence[Step], watch: Watch, stop: Stop) -> None:
    for at, step in enumerate(steps):
        if stop.signal is not None:
            raise ApplyError(f"stopped by {stop.signal.name}")
        watch.began(at, len(steps), step)
        step.run()
        watch.ended(at, len(steps), step)


def _verified(target: Target[S], goal: S) -> S:
    seen = target.observe()
    changes = target.changes(seen, goal)
    if changes:
        raise InstallError(f"the kernel does not hold what was installed: {_differences(changes)}")
    return seen


def _differences(changes: Sequence[Change]) -> str:
    shown = "; ".join(f"{c.symbol} {c.where}" for c in changes[:3])
    return shown + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


__all__ = [
    "LOCK_WAIT",
    "STALE",
    "Outcome",
    "Silent",
    "Source",
    "StateError",
    "Watch",
    "apply",
    "base_of_next",
    "collect",
    "fingerprint",
    "installed",
    "recover",
    "remove",
]
