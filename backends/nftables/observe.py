"""What the kernel holds of ours, as a model.

Knows: libnftables' listing for what is small (declarations, chains, rules), netlink for elements. Must not write.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.backends.nftables.decode import decode
from k8snetc.backends.nftables.library import listing
from k8snetc.backends.nftables.model import TABLE, NamedSet, Table
from k8snetc.backends.nftables.netlink import ChangedError, element_lists
from k8snetc.backends.nftables.read import read_tables
from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Family

_NFPROTO = {Family.IPV4: 2, Family.IPV6: 10}
_ATTEMPTS = 5


def observed() -> tuple[Table, ...]:
    """Our tables in the caller's network namespace. Raises `InstallError`."""
    for _ in range(_ATTEMPTS):
        text = listing()
        try:
            tables = tuple(
                replace(t, sets=tuple(_filled(t.family, s) for s in t.sets)) for t in read_tables(text)
            )
        except ValueError as e:
            raise InstallError(f"the listing of nft can't be read: {e}") from e
        except (FileNotFoundError, ChangedError):
            continue  # somebody changes the rules while we read them
        if listing() == text:
            return tuple(sorted(tables, key=lambda t: t.family))
    raise InstallError("the rules of this node change all the time; stop what changes them and try again")


def _filled(family: Family, one: NamedSet) -> NamedSet:
    if one.dynamic:
        return replace(one, elements={})
    lists = element_lists(_NFPROTO[family], TABLE, one.name)
    try:
        return replace(one, elements=decode(one.spec, lists))
    except ValueError:
        # Not one of ours: somebody put it into our table. It shows as it is, and goes.
        return replace(one, elements={data.hex(): "" for data in lists})
