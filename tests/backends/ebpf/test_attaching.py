"""What the kernel says of attachments, when it says something else than usual."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pyroute2
import pytest
from pyroute2.netlink.exceptions import NetlinkError

from k8snetc.backends.ebpf import clsact
from k8snetc.backends.target import InstallError


class Route:
    """Netlink of a node where interface 7 has clsact, and listing filters fails."""

    code = 0

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_qdiscs(self) -> list[Discipline]:
        return [Discipline(index=7)]

    def get_filters(self, *, index: int, parent: int) -> Iterator[object]:
        raise NetlinkError(self.code, f"{index} {parent}")


class Discipline(dict[str, int]):
    def get_attr(self, _name: str) -> str:
        return "clsact"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mark of the clsact at interface 7."""
    monkeypatch.setattr(pyroute2, "IPRoute", Route)
    made = tmp_path / clsact.MARKS / "7"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.EINVAL])
def test_a_clsact_that_is_gone_is_collected(mark: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Route, "code", code)
    assert list(clsact.unused(mark.parent.parent)) == [mark]


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.EPERM, errno.EBUSY, errno.ENOMEM])
def test_filters_that_can_not_be_listed_are_not_gone(
    mark: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the clsact would be deleted, and policy with it."""
    monkeypatch.setattr(Route, "code", code)
    with pytest.raises(InstallError, match="interface 7: can't list its filters"):
        list(clsact.unused(mark.parent.parent))
