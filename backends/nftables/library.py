"""The libnftables binding (Debian: python3-nftables), imported when first used.

Knows: its options and how it reports errors. Must not know: our tables.

A context remembers what it saw of the kernel, so each call has one of its own.
"""

from __future__ import annotations

from typing import Protocol

from k8snetc.backends.target import InstallError


class Context(Protocol):
    """What we use of `nftables.Nftables`."""

    def cmd(self, cmdline: str) -> tuple[int, str, str]: ...
    def set_dry_run(self, onoff: bool) -> object: ...
    def set_terse_output(self, val: bool) -> object: ...
    def set_stateless_output(self, val: bool) -> object: ...
    def set_numeric_proto_output(self, val: bool) -> object: ...


def _context() -> Context:
    try:
        import nftables
    except ImportError as e:
        raise InstallError("the libnftables binding is missing: apt-get install python3-nftables") from e
    try:
        made: Context = nftables.Nftables()
    except OSError as e:
        raise InstallError(f"libnftables can't be loaded: {e}; apt-get install libnftables1") from e
    return made


def listing() -> str:
    """All tables with chains and rules, but without elements of sets."""
    context = _context()
    context.set_terse_output(True)
    context.set_stateless_output(True)
    context.set_numeric_proto_output(True)
    return _done(context.cmd("list ruleset"), "list the rules")


def commit(text: str) -> None:
    """Run commands as one transaction. Raises `InstallError`; then nothing was changed."""
    _done(_context().cmd(text), "take the new rules")


def check(text: str) -> None:
    """Let libnftables and the kernel check commands as one transaction, and change nothing."""
    context = _context()
    context.set_dry_run(True)
    _done(context.cmd(text), "take the new rules (only checked)")


def _done(answer: tuple[int, str, str], what: str) -> str:
    code, out, error = answer
    if code:
        lines = error.strip().splitlines() or [f"error {code}"]
        raise InstallError(f"nftables did not {what}: {'; '.join(lines[:3])[:1000]}{_hint(error)}")
    return out


def _hint(error: str) -> str:
    if "Operation not permitted" in error:
        return "; root (CAP_NET_ADMIN) is needed"
    if "No such file or directory" in error or "File exists" in error:
        return "; did somebody change our table meanwhile? plan again"
    return ""
