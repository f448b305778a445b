"""What the kernel holds of ours, as a model.

Knows: libnftables' listing for what is small (declarations, chains, rules), netlink for elements. Must not write.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from k8snetc.backends.nftables.decode import RepeatedError, decode
from k8snetc.backends.nftables.library import listing
from k8snetc.backends.nftables.model import TABLE, NamedSet, Table
from k8snetc.backends.nftables.netlink import ChangedError, element_lists, generation
from k8snetc.backends.nftables.read import read_tables
from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Family

_NFPROTO = {Family.IPV4: 2, Family.IPV6: 10}
_ATTEMPTS = 5
_PATIENCE = 40
"""Readings of one set: a second and a half of waiting besides."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Our tables, and the generation of the rules (`netlink.generation`) that they were read from."""

    at: tuple[int, int]
    tables: tuple[Table, ...]


def observed(before: Seen | None = None) -> Seen:
    """Our tables in the caller's network namespace. Raises `InstallError`.

    If nobody, we included, has changed any rule of the namespace since `before`, that is what is there.
    """
    for _ in range(_ATTEMPTS):
        now = _generation()
        if before is not None and before.at == now:
            return before
        try:
            tables = tuple(
                replace(t, sets=tuple(filled(t.family, s) for s in t.sets)) for t in read_tables(listing())
            )
        except ValueError as e:
            raise InstallError(f"the listing of nft can't be read: {e}") from e
        except (FileNotFoundError, ChangedError):
            continue  # somebody changes the rules while we read them
        if _generation() == now:
            return Seen(now, tuple(sorted(tables, key=lambda t: t.family)))
    raise InstallError("the rules of this node change all the time; stop what changes them and try again")


def _generation() -> tuple[int, int]:
    try:
        return generation()
    except PermissionError as e:
        raise InstallError(
            f"nftables did not list the rules: {e.strerror}; root (CAP_NET_ADMIN) is needed"
        ) from e
    except OSError as e:
        raise InstallError(f"nftables did not list the rules: {e}; the kernel needs CONFIG_NF_TABLES") from e


def filled(family: Family, one: NamedSet) -> NamedSet:
    """The set with its elements, as the kernel has them. Raises `OSError`, `ChangedError`."""
    if one.dynamic:
        return replace(one, elements={})
    # A hash table that has just been filled is moved to a larger one, behind the scenes and without a transaction. Each
    # part of a dump begins by counting how many elements were sent: then some come twice, and as many don't come.
    # An element that is missed is always made up for by one that comes twice, so a dump without such is whole.
    for attempt in range(_PATIENCE):
        lists = element_lists(_NFPROTO[family], TABLE, one.name)
        try:
            return replace(one, elements=decode(one.spec, lists))
        except RepeatedError:
            time.sleep(0.002 * attempt)
        except ValueError:
            # Not one of ours: somebody put it into our table. It shows as it is, and goes.
            return replace(one, elements={data.hex(): "" for data in lists})
    raise ChangedError(one.name)
