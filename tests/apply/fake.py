"""A back end whose kernel is a dictionary: for what must hold whatever the back end is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from k8snetc.backends.target import Change, InstallError, Section, Step
from k8snetc.ir.types import Program

State = dict[str, str]


class FakeTarget:
    """A state is words by name; the desired one is the program's node name, letter by letter.

    The "kernel" is a file, so that another process sees it. `broken` holds the letters that the kernel refuses,
    `forgets` one that it silently loses. `cuts` are the calls of `cut`, by the programs' names; `uncut` is a program
    whose connections can't be cut.
    """

    name = "iptables"

    def __init__(self, kernel: Path) -> None:
        self.kernel = kernel
        self.broken = ""
        self.forgets = ""
        self.cuts: list[tuple[str | None, str | None]] = []
        self.uncut: str | None = None
        if not kernel.exists():
            self._store({})

    def _store(self, state: State) -> None:
        self.kernel.write_text(json.dumps(state))

    def desired(self, program: Program) -> State:
        return {f"{at}": letter for at, letter in enumerate(program.node.name or "")}

    def empty(self) -> State:
        return {}

    def grounded(self, goal: State, before: State) -> State:
        return goal if "setting" not in before else {**goal, "setting": before["setting"]}

    def observe(self) -> State:
        state: State = json.loads(self.kernel.read_text())
        return state

    def changes(self, live: State, goal: State) -> tuple[Change, ...]:
        names = sorted({*live, *goal})
        return tuple(
            Change(n, (live[n],) if n in live else (), (goal[n],) if n in goal else ())
            for n in names
            if live.get(n) != goal.get(n)
        )

    def steps(self, live: State, goal: State) -> Sequence[Step]:
        return tuple(
            Step(f"set {c.where}", self._set(c.where, goal.get(c.where)), 1) for c in self.changes(live, goal)
        )

    def _set(self, name: str, value: str | None) -> Callable[[], None]:
        def run() -> None:
            if value is not None and value in self.broken:
                raise InstallError(f"the kernel refuses {value}")
            state = self.observe()
            state.pop(name, None)
            if value is not None and value != self.forgets:
                state[name] = value
            self._store(state)

        return run

    def dump(self, state: State) -> bytes:
        return json.dumps(state, sort_keys=True).encode()

    def load(self, data: bytes) -> State:
        state: State = json.loads(data)
        return state

    def cut(self, old: Program | None, new: Program) -> int:
        self.cuts.append((old.node.name if old is not None else None, new.node.name))
        if self.uncut is not None and new.node.name == self.uncut:
            raise InstallError("no conntrack")
        return 0

    def details(self, program: Program) -> tuple[Section, ...]:
        return (Section("letters", ("letter", "count"), (("a", 1),)),)

    def warnings(self) -> tuple[str, ...]:
        return ()
