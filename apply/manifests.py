"""Sets of manifests as commands name them: paths, or `git:REV:PATH`, to a program, its names and its digest.

Knows: how to read a set out of Git, and what people call a pod. Must not know: plans, or how manifests
become a program.
"""

from __future__ import annotations

import hashlib
import os
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
_NO_FILE = {"120000": "link", "160000": "submodule"}
"""By Git's mode."""
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
    """Write the files below a path of a revision into `folder`. Raises `InputError`.

    Blobs as they are: `git archive` would leave out what `.gitattributes` marks `export-ignore`, and change line ends.
    """
    from k8snetc.backends.common.run import CommandError, run_bytes

    revision, colon, inside = path.removeprefix(GIT).partition(":")
    fix = "name a commit, branch or tag and a path below the current folder, as git:main:manifests"
    if not colon or not revision or revision.startswith("-"):
        raise InputError([Diagnostic(path, 0, "this is not git:REV:PATH", fix)])
    try:
        if os.path.normpath(inside).startswith("..") or os.path.isabs(inside):
            raise InputError([Diagnostic(path, 0, "the path leads out of the current folder", fix)])
        wanted = f":(literal){inside}" if inside not in ("", ".") else "."
        listing = run_bytes(["git", "ls-tree", "-r", "-z", revision, "--", wanted])
        entries = [_Entry.of(line) for line in listing.split(b"\0") if line]
        if not entries:
            raise InputError([Diagnostic(path, 0, f"there is no {inside or 'file'} in {revision}", fix)])
        _refuse_what_is_no_file(path, entries)
        files = [
            e for e in entries if e.kind == "blob" and (e.manifest or e.name == os.path.normpath(inside))
        ]
        names = "".join(f"{e.blob}\n" for e in files).encode()
        content = run_bytes(["git", "cat-file", "--batch"], stdin=names) if files else b""
    except CommandError as e:
        raise InputError([Diagnostic(path, 0, f"git can't read this: {e.output}", fix)]) from e
    at = 0
    for entry in files:
        size, at = int(content[at : (end := content.index(b"\n", at))].rsplit(b" ", 1)[1]), end + 1
        place = Path(folder, entry.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content[at : at + size])
        at += size + 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of `git ls-tree`."""

    mode: str
    kind: str
    blob: str
    name: str

    @staticmethod
    def of(line: bytes) -> _Entry:
        head, _, name = line.partition(b"\t")
        mode, kind, blob = head.decode("ascii").split(" ")
        return _Entry(mode, kind, blob, os.fsdecode(name))

    @property
    def manifest(self) -> bool:
        return self.name.endswith(_SUFFIXES)


def _refuse_what_is_no_file(path: str, entries: Sequence[_Entry]) -> None:
    """A link or a submodule may stand for manifests: leaving them out in silence would compare half of them."""
    bad = [
        Diagnostic(path, 0, f"{e.name} is a {what}, which is not followed in Git", "name a folder without it")
        for e in entries
        if (what := _NO_FILE.get(e.mode, "path of no file" if ".." in Path(e.name).parts else ""))
        and (e.manifest or e.kind == "commit")
    ]
    if bad:
        raise InputError(bad)


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
