"""What can go wrong around an apply, and the exit code each has.

Exit codes go on where those of `compiler.cli` end: 4 the node said no and nothing was changed, 5 the change failed and
what ran before runs again, 6 it failed and the node is in between.
"""

from __future__ import annotations


class ApplyError(Exception):
    """Nothing was changed. The message says what is wrong and what to do."""

    exit_code = 4


class StateError(ApplyError):
    """The state directory can't be used: not safe, not ours, full, or damaged."""


class LockedError(ApplyError):
    """Another apply is running."""


class StaleError(ApplyError):
    """The node is no longer what the plan was made for."""


class RolledBackError(ApplyError):
    """The change failed; what ran before runs again. `cause` is why."""

    exit_code = 5


class BrokenError(ApplyError):
    """The change failed and so did putting back what ran before. The journal is kept; the next apply tries again."""

    exit_code = 6
