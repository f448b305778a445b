"""Receipts: what was installed, when, from what, by which version; the newest one says what runs.

Knows: the files of the state directory and their form. Must not know: how anything is installed.

Files: `NNNNNN.receipt` (JSON, small), `NNNNNN.program` (the program, for roll-back and for telling what a change does),
`NNNNNN.pods` (what the pods are called, if that is known: compressed, a line each),
`journal` (only while a change is under way, or after it was killed), `before` (what ran before the first apply).
"""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import orjson

from k8snetc.apply.connectivity import Names
from k8snetc.apply.errors import StateError
from k8snetc.apply.kept_options import options_of
from k8snetc.apply.store import Store
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.data import DataError, from_json
from k8snetc.ir.types import Program

FORMAT = 1
KEEP = 10
"""How many receipts are kept, the newest: enough to go back some steps, little enough for a tmpfs."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One successful apply or roll-back.

    `time` is UTC, ISO 8601. `sources` are the paths as given, `manifests` the SHA-256 of what was in them ("" if
    unknown), `program` that of the program, `state` that of what the kernel holds since. `restores` is the number of
    the receipt that a roll-back went back to, None for an apply. `seconds` counts from lock to verified. `place` is
    the network namespace and boot that it belongs to. `install` are the options it was installed with, None if unknown.
    """

    number: int
    backend: str
    node: str
    time: str
    version: str
    sources: tuple[str, ...]
    manifests: str
    program: str
    state: str
    summary: str
    seconds: float
    steps: tuple[str, ...]
    restores: int | None
    place: str
    install: InstallOptions | None = None


def here() -> str:
    """The boot and the network namespace that this process is in; rules live and die with both."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/net')}"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return sha256(data).hexdigest()


def save(store: Store, receipt: Receipt, program: bytes, pods: Names | None = None) -> None:
    """Write a receipt, its program (as `ir.data.to_json` makes it) and its pods, then forget the oldest."""
    if pods is not None:
        lines = "".join(f"{address} {name}\n" for address, name in pods.items())
        store.write(f"{receipt.number:06}.pods", zlib.compress(lines.encode("utf-8", "surrogateescape"), 1))
    store.write(f"{receipt.number:06}.program", program)
    store.write(f"{receipt.number:06}.receipt", orjson.dumps({"format_version": FORMAT, **asdict(receipt)}))
    for old in numbers(store)[:-KEEP]:
        for kind in ("receipt", "program", "pods"):
            store.remove(f"{old:06}.{kind}")


def numbers(store: Store) -> list[int]:
    """The numbers of all receipts, oldest first."""
    bare = (n.removesuffix(".receipt") for n in store.names() if n.endswith(".receipt"))
    return sorted(int(n) for n in bare if n.isdecimal())


def load(store: Store, number: int) -> Receipt:
    """The receipt of that number. Raises `StateError` if it is missing or damaged."""
    data = store.read(f"{number:06}.receipt")
    if data is None:
        raise StateError(
            f"there is no receipt {number} in {store.path}; `k8snetc status` lists those that are"
        )
    try:
        document = orjson.loads(data)
        if document.pop("format_version") != FORMAT:
            raise StateError(
                f"receipt {number} was written by another version of k8snetc; remove {store.path} and apply again: "
                "what is installed is found without it"
            )
        document["sources"] = tuple(document["sources"])
        document["steps"] = tuple(document["steps"])
        kept = document.pop("install", None)
        document["install"] = options_of(kept) if kept is not None else None
        return Receipt(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        fix = "remove its file and apply again"
        raise StateError(f"receipt {number} in {store.path} is damaged: {e}; {fix}") from e


def newest(store: Store) -> Receipt | None:
    """What runs, None if nothing was installed in this network namespace since the last boot."""
    all_of_them = numbers(store)
    if not all_of_them:
        return None
    receipt = load(store, all_of_them[-1])
    return receipt if receipt.place == here() else None


def program_of(store: Store, number: int) -> Program:
    """The program of a receipt. Raises `StateError` if it is missing or damaged."""
    try:
        return _program(store.read(f"{number:06}.program") or b"")
    except DataError as e:
        raise StateError(f"the program of receipt {number} in {store.path} is missing or damaged: {e}") from e


def has_program(store: Store, receipt: Receipt) -> bool:
    """Whether the program of a receipt is there and is what was installed."""
    return digest(store.read(f"{receipt.number:06}.program") or b"") == receipt.program


@lru_cache(maxsize=1)
def _program(data: bytes) -> Program:
    """A plan and the apply of it ask for the same one, and a large one takes a second to read."""
    return from_json(data)


def pods_of(store: Store, number: int) -> Names | None:
    """What the pods of a receipt's manifests are called; None if that is not known."""
    try:
        data = store.read(f"{number:06}.pods")
        if data is None:
            return None
        lines = zlib.decompress(data).decode("utf-8", "surrogateescape").splitlines()
        return {ip_address(address): name for address, _, name in (x.partition(" ") for x in lines)}
    except (StateError, ValueError, zlib.error):
        return None  # then a plan says a little less


def previous(store: Store, now: Receipt) -> Receipt | None:
    """The newest earlier receipt of another program; roll-backs go further back each time, not to and fro."""
    effective = now
    known = set(numbers(store))
    while effective.restores is not None and effective.restores in known:
        effective = load(store, effective.restores)
    earlier = [n for n in sorted(known) if n < effective.number]
    while earlier:
        candidate = load(store, earlier.pop())
        if candidate.place != now.place:
            return None
        if candidate.restores is None and candidate.program != now.program:
            return candidate
    return None
