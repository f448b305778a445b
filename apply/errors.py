"""What can go wrong around an apply, and the exit code each has.

Exit codes: 0 nothing to do or done, 1 differs (never an error), 2 input or usage, 3 failed and what ran before runs
again, 4 failed and the node is in between. An exception that is none of these ends with 70 (see `compiler.cli`).
"""

from __future__ import annotations


class ApplyError(Exception):
    """Nothing was changed. The message says what is wrong and what to do."""

    exit_code = 2


class StateError(ApplyError):
    """The state directory can't be used: not safe, not ours, full, or damaged."""


class LockedError(ApplyError):
    """Another apply is running."""


class StaleError(ApplyError):
    """The node is no longer what the plan was made for."""


class RolledBackError(ApplyError):
    """The change failed; what ran before runs again. `cause` is why."""

    exit_code = 3


class BrokenError(ApplyError):
    """The change failed and so did putting back what ran before. The journal is kept; the next apply tries again."""

    exit_code = 4
