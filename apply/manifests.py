"""Sets of manifests as commands name them: paths, or `git:REV:PATH`, to a program, its names and its digest.

Knows: how to read a set out of Git, and what people call a pod. Must not know: plans, or how manifests
become a program.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.ir.data import from_json, to_json
from k8snetc.ir.types import Address, Program

if TYPE_CHECKING:
    from k8snetc.compiler.manifests import Manifests
    from k8snetc.compiler.source import Source

GIT = "git:"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Read:
    """A compiled set: `names` are the pods' (`namespace/name`), `digest` the SHA-256 of the files, "" for stdin."""

    program: Program
    names: dict[Address, str]
    digest: str


def read(source: Source) -> Read:
    """Compile what `source` names. Raises `InputError`."""
    with ExitStack() as stack:
        places = [(p, stack.enter_context(_place(p))) for p in source.paths]
        try:
            compiled = replace(source, paths=tuple(place for _, place in places)).compile(
                shown=lambda file: _shown(file, places)
            )
        except InputError as e:
            raise InputError([replace(d, file=_shown(d.file, places)) for d in e.diagnostics]) from e
        digest = _digest([place for _, place in places])
    program = compiled.program
    if any(name != place for name, place in places):
        program = _renamed(program, places)
    return Read(program, pod_names(compiled.manifests), digest)


def pod_names(manifests: Manifests) -> dict[Address, str]:
    """What people call the addresses of pods; those of the host network are the node's."""
    names: dict[Address, str] = {}
    for pod in manifests.pods:
        if not pod.spec.host_network:
            name = f"{pod.metadata.namespace}/{pod.metadata.name}"
            ips = [p.ip for p in pod.status.pod_ips]
            names |= dict.fromkeys([*ips, *([pod.status.pod_ip] if pod.status.pod_ip else [])], name)
    return names


@contextmanager
def _place(path: str) -> Iterator[str]:
    """Where the files of a path are: the path itself, or a copy of what Git has at that revision."""
    if not path.startswith(GIT):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="k8snetc-git-") as folder:
        _extract(path, folder)
        inside = path.removeprefix(GIT).partition(":")[2]
        yield os.path.join(folder, inside) if inside not in ("", ".") else folder


def _extract(path: str, folder: str) -> None:
    from k8snetc.backends.common.run import CommandError, run_bytes

    revision, colon, inside = path.removeprefix(GIT).partition(":")
    fix = "name a commit, branch or tag and a path below the current folder, as git:main:manifests"
    if not colon or not revision or revision.startswith("-"):
        raise InputError([Diagnostic(path, 0, "this is not git:REV:PATH", fix)])
    try:
        archive = run_bytes(["git", "archive", "--format=tar", revision, "--", inside or "."])
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            _unpack(tar, Path(folder))
    except CommandError as e:
        raise InputError([Diagnostic(path, 0, f"git can't read this: {e.output}", fix)]) from e
    except tarfile.TarError as e:
        raise InputError([Diagnostic(path, 0, f"git's archive can't be unpacked: {e}", fix)]) from e


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Regular files only: a link in a repository could lead anywhere. (Debian 12's tarfile has no filters.)"""
    for member in tar:
        content = tar.extractfile(member) if member.isfile() else None
        if (
            content is not None
            and ".." not in Path(member.name).parts
            and not Path(member.name).is_absolute()
        ):
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read())


def _shown(file: str, places: Iterable[tuple[str, str]]) -> str:
    """A file of a copy under the name that the user gave."""
    for name, place in places:
        if name != place and (file == place or file.startswith(place + os.sep)):
            return name.rstrip("/") + file[len(place) :]
    return file


def _renamed(program: Program, places: Sequence[tuple[str, str]]) -> Program:
    data = to_json(program)
    for name, place in places:
        if name != place:
            # A temporary folder's name is in no manifest, so only origins can hold it.
            data = data.replace(place.encode(), name.rstrip("/").encode())
    return from_json(data)


def _digest(places: Iterable[str]) -> str:
    """SHA-256 over names and content of all files; where standard input is among them it can't be read twice."""
    whole = hashlib.sha256()
    for place in places:
        if place == "-":
            return ""
        for file in sorted(_files(place)):
            content = Path(file).read_bytes()
            whole.update(
                f"{os.path.relpath(file, place)} {len(content)}\n".encode("utf-8", "surrogateescape")
            )
            whole.update(content)
    return whole.hexdigest()


def _files(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
        return
    for folder, _, names in os.walk(place):
        yield from (os.path.join(folder, n) for n in names if n.endswith(_SUFFIXES))
