"""What is left of an object when the items that can't be read are taken out of its lists.

Knows: in which lists an item stands for itself, so that its absence makes nothing else wrong. Must not know: what a
kind means. The rest is never compiled: it is looked at once more, so that one report names all errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from k8snetc.compiler.document import FieldPath

# In other lists (clusterIPs, ipFamilies, policyTypes) an item decides how other fields are read.
_ALONE: Final = frozenset(
    {
        "ports",
        "externalIPs",
        "loadBalancerSourceRanges",
        "endpoints",
        "containers",
        "ingress",
        "egress",
        "except",
    }
)


class Rest(NamedTuple):
    """What is left, and for each list that lost items (by its path) the old index of each that is there."""

    value: dict[str, object]
    kept: dict[FieldPath, tuple[int, ...]]

    def original(self, path: FieldPath) -> FieldPath:
        """Where a field of the rest stands in the object as it was."""
        found: FieldPath = ()
        for part in path:
            indices = self.kept.get(found)
            found = (*found, indices[part] if indices is not None and isinstance(part, int) else part)
        return found


def without(value: dict[str, object], errors: Iterable[FieldPath]) -> Rest | None:
    """The object without the list items that hold these errors.

    None: an error stands elsewhere, or a list would be empty, which means something else.
    """
    doomed: dict[FieldPath, set[int]] = {}
    for path in errors:
        cut = _item(path)
        if cut is None:
            return None
        doomed.setdefault(cut[0], set()).add(cut[1])
    kept: dict[FieldPath, tuple[int, ...]] = {}

    def copy(item: object, at: FieldPath) -> object:
        if isinstance(item, dict):
            return {key: copy(inner, (*at, key)) for key, inner in item.items()}
        if isinstance(item, list):
            gone = doomed.get(at, set())
            stay = tuple(i for i in range(len(item)) if i not in gone)
            if gone:
                kept[at] = stay
            return [copy(item[i], (*at, i)) for i in stay]
        return item

    rest = {key: copy(inner, (key,)) for key, inner in value.items()}
    return Rest(rest, kept) if all(kept.values()) else None


def _item(path: FieldPath) -> tuple[FieldPath, int] | None:
    """The list and the index of the outermost item on this path that stands for itself."""
    for i in range(1, len(path)):
        index = path[i]
        if isinstance(index, int) and path[i - 1] in _ALONE:
            return path[:i], index
    return None
