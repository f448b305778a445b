"""A command as somebody without any privilege, who can read the checkout wherever root keeps it.

Knows: mount namespaces and setpriv. Must not know what is run.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.repository import ROOT

_IN_ITS_PLACE = """
set -e
mount --bind "$1" /mnt
mount -t tmpfs -o mode=755 none "$2"
mkdir -p "$1"
mount --bind /mnt "$1"
umount /mnt
shift 2
exec "$@"
"""
"""Seen by this command alone: the closed folder `$2` is an open one that holds nothing but the checkout `$1`."""


def unprivileged(*command: str) -> list[str]:
    """The words that run `command` as nobody; only root can run them."""
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *command]
    closed = next((p for p in reversed(ROOT.parents) if not _open_to_all(p)), None)
    if closed is None:
        return words
    # Root's home, as a rule, where root's clones are.
    return ["unshare", "--mount", "--", "sh", "-c", _IN_ITS_PLACE, "sh", str(ROOT), str(closed), *words]


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
