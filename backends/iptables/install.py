"""The iptables back end's grip on the kernel (`backends.target.Target`); the example for the other back ends.

Knows: which model a program has, and that its state is the shared one of iptables and ipset.
Must not know: files, locks, receipts, people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.common import conntrack
from k8snetc.backends.common.bridges import unjudged_bridges
from k8snetc.backends.common.xtables.canonical import aligned
from k8snetc.backends.common.xtables.changes import changes
from k8snetc.backends.common.xtables.foreign import warnings
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.common.xtables.state import State, print_state, read_state, state_of
from k8snetc.backends.target import Change, InstallOptions, Section, Step
from k8snetc.ir.types import Program

SETTINGS = (
    "net.ipv4.conf.all.route_localnet",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
)
"""The kernel settings that a program may ask for."""


class IptablesTarget:
    """iptables, ip6tables and ipset in the caller's network namespace."""

    name = "iptables"

    def __init__(self, options: InstallOptions) -> None:
        self._options = options
        self._tools = Tools(options)

    def desired(self, program: Program) -> State:
        """What the program looks like here. Raises `UnsupportedError` with all gaps at once."""
        from k8snetc.backends.iptables.lower import lower

        model = lower(program, comments=self._options.comments)
        gaps = list(unjudged_bridges(program))
        if gaps:
            raise UnsupportedError(self.name, gaps)
        return state_of(model)

    def empty(self) -> State:
        """Nothing of ours."""
        return State()

    def grounded(self, goal: State, before: State) -> State:
        """`goal`, and the settings it doesn't speak of as they were before the first apply."""
        return replace(goal, sysctls={**before.sysctls, **goal.sysctls})

    def observe(self) -> State:
        """All that is ours in the kernel."""
        return self._tools.observe(SETTINGS)

    def changes(self, live: State, goal: State) -> tuple[Change, ...]:
        """Rules, sets and settings that differ."""
        return changes(aligned(live, goal), goal)

    def steps(self, live: State, goal: State) -> Sequence[Step]:
        """Sets, tables, settings in a safe order."""
        return self._tools.steps(aligned(live, goal), goal)

    def dump(self, state: State) -> bytes:
        """The state as text of iptables-restore and ipset restore."""
        return print_state(state)

    def load(self, data: bytes) -> State:
        """The state that `dump` wrote."""
        return read_state(data)

    def cut(self, old: Program | None, new: Program) -> int:
        """Forget connections that the new program would not make."""
        return conntrack.cut(old, new)

    def details(self, program: Program) -> tuple[Section, ...]:
        """Nothing: the target's own tools show counters."""
        return ()

    def warnings(self) -> tuple[str, ...]:
        """Foreign rules that come before ours."""
        return warnings(self._tools)


def target(options: InstallOptions) -> IptablesTarget:
    """The grip of this back end (see `backends.target.target_for`)."""
    return IptablesTarget(options)
