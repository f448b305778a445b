"""The nftables back end's grip on the kernel (`backends.target.Target`): one transaction for everything.

Knows: the order of kernel settings and the transaction. Must not know: files, locks, receipts, people.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common import conntrack
from k8snetc.backends.common.bridges import unjudged_bridges
from k8snetc.backends.common.settings import read_settings, setting_steps
from k8snetc.backends.nftables import features, library
from k8snetc.backends.nftables.emit import table_lines
from k8snetc.backends.nftables.foreign import warnings
from k8snetc.backends.nftables.model import Ruleset
from k8snetc.backends.nftables.observe import Seen, observed
from k8snetc.backends.nftables.read import read_tables
from k8snetc.backends.nftables.spelling import aligned
from k8snetc.backends.nftables.transaction import changes, transaction
from k8snetc.backends.target import Change, InstallOptions, Section, Step
from k8snetc.ir.types import Program

SETTINGS = ("net.ipv4.conf.all.route_localnet",)
"""The kernel settings that a program may ask for."""

_SETTING = "# setting "


class NftablesTarget:
    """nf_tables in the caller's network namespace."""

    name = "nftables"

    def __init__(self, options: InstallOptions) -> None:
        self._options = options
        self._able: features.Needs = frozenset()
        self._seen: Seen | None = None
        self._lowered: tuple[tuple[Program, bool, Ruleset], ...] = ()

    def desired(self, program: Program) -> Ruleset:
        """What the program looks like here. Raises `UnsupportedError` with all gaps at once."""
        model = self._model(program, random_fully=True)
        lacking = self._missing(model)
        if any(feature == features.FULLY_RANDOM for feature, _ in lacking):
            model = self._model(program, random_fully=False)
            lacking = self._missing(model)
        gaps = [*features.gaps(lacking), *unjudged_bridges(program)]
        if gaps:
            raise UnsupportedError(self.name, gaps)
        return model

    def _model(self, program: Program, *, random_fully: bool) -> Ruleset:
        """The program lowered. A plan asks for the old and the new one, and the apply that rechecks it again."""
        from k8snetc.backends.nftables.lower import Capabilities, lower

        for known, fully, model in self._lowered:
            if known is program and fully == random_fully:
                return model
        capabilities = Capabilities(random_fully=random_fully)
        model = lower(program, comments=self._options.comments, capabilities=capabilities)
        self._lowered = ((program, random_fully, model), *self._lowered[:1])
        return model

    def _missing(self, model: Ruleset) -> features.Needs:
        """What the model needs and this node can't do. What it could a moment ago is not asked again."""
        needs = features.needs(model)
        lacking = features.missing(needs - self._able)
        self._able |= needs - lacking
        return lacking

    def empty(self) -> Ruleset:
        """Nothing of ours."""
        return Ruleset()

    def grounded(self, goal: Ruleset, before: Ruleset) -> Ruleset:
        """`goal`, and the settings it doesn't speak of as they were before the first apply."""
        return Ruleset(goal.tables, {**before.sysctls, **goal.sysctls})

    def observe(self) -> Ruleset:
        """All that is ours in the kernel."""
        self._seen = observed(self._seen)
        return Ruleset(self._seen.tables, read_settings(SETTINGS))

    def changes(self, live: Ruleset, goal: Ruleset) -> tuple[Change, ...]:
        """Rules, elements and settings that differ."""
        return changes(live, aligned(live, goal))

    def steps(self, live: Ruleset, goal: Ruleset) -> Sequence[Step]:
        """Settings that close, one transaction, settings that open."""
        opening, closing = setting_steps(live.sysctls, goal.sysctls)
        steps = list(closing)
        commands = transaction(live, aligned(live, goal))
        if commands is not None:
            text = commands.text
            title = f"one transaction: {commands.size} changes"
            steps.append(Step(title, lambda: library.commit(text), commands.size))
        return (*steps, *opening)

    def dump(self, state: Ruleset) -> bytes:
        """The state as nft text; equal for equal states, so without comments, elements sorted."""
        lines = [f"{_SETTING}{name} {value}" for name, value in sorted(state.sysctls.items())]
        for table in sorted(state.tables, key=lambda t: t.family):
            lines.extend(table_lines(table.bare()))
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def load(self, data: bytes) -> Ruleset:
        """The state that `dump` wrote. Raises `ValueError` for anything else."""
        text = data.decode("utf-8", "surrogateescape")
        sysctls: dict[str, str] = {}
        for line in text.splitlines():
            if not line.startswith(_SETTING):
                break
            name, _, value = line.removeprefix(_SETTING).partition(" ")
            sysctls[name] = value
        if text and not text.endswith("\n"):
            raise ValueError("a dump of nftables is cut off")
        return Ruleset(tuple(read_tables(text)), sysctls)

    def cut(self, old: Program | None, new: Program) -> int:
        """Forget connections that the new program would not make."""
        return conntrack.cut(old, new)

    def details(self, program: Program) -> tuple[Section, ...]:
        """Nothing: the target's own tools show counters."""
        return ()

    def warnings(self) -> tuple[str, ...]:
        """Foreign rules that have a say in our traffic."""
        return warnings(library.listing())


def target(options: InstallOptions) -> NftablesTarget:
    """The grip of this back end (see `backends.target.target_for`)."""
    return NftablesTarget(options)
