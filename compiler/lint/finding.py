"""One warning. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.ir.types import Origin

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """`rule` is one of `lint.RULES`. `place` is the field of the object, as a path; `origin` the object."""

    origin: Origin
    place: Place
    rule: str
    what: str
    fix: str

    def __lt__(self, other: Finding) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        # Indexes sort as numbers, and before names where both stand at one place.
        place = tuple((isinstance(p, str), p if isinstance(p, int) else 0, str(p)) for p in self.place)
        return self.origin.file, self.origin.line, place, self.rule, self.what

    def __str__(self) -> str:
        return f"{_owner(self.origin)}: {self.what}"


def _owner(origin: Origin) -> str:
    name = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    return f"{origin.kind} {name}"
