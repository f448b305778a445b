"""The journal: what a change under way started from and goes to, so that a killed one can be undone.

Knows: the journal's file. Must not know: how to undo. It is written before the
first step and removed after the receipt.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.apply.errors import StateError
from k8snetc.apply.receipts import here
from k8snetc.apply.store import Store

NAME = "journal"
_MAGIC = b"k8snetc journal 1\n"


@dataclass(frozen=True, slots=True)
class Journal:
    """`base`: the dumped state before, to which an interrupted change goes back. `what` is for people."""

    backend: str
    what: str
    base: bytes


def begin(store: Store, journal: Journal) -> None:
    """Write the journal. Raises `StateError` (disk full, say): then nothing may be changed."""
    head = f"{here()}\n{journal.backend}\n{journal.what}\n".encode()
    store.write(NAME, _MAGIC + head + journal.base)


def pending(store: Store) -> Journal | None:
    """The journal of a change that did not come to its end.

    One from before the last boot is none: the rules died with it.
    """
    data = store.read(NAME)
    if data is None:
        return None
    parts = data.removeprefix(_MAGIC).split(b"\n", 3)
    if not data.startswith(_MAGIC) or len(parts) != 4:
        raise StateError(f"{store.path / NAME} is damaged; remove it, and apply again to repair the node")
    place, backend, what, base = parts
    if place.decode() != here():
        boot, mine = place.split(b" ")[0], here().encode().split(b" ")[0]
        if boot == mine:
            raise StateError(
                f"{store.path} belongs to another network namespace; give another directory with --state-dir"
            )
        return None
    return Journal(backend.decode(), what.decode(), base)


def end(store: Store) -> None:
    """The change came to its end."""
    store.remove(NAME)
