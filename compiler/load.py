"""Reading files: paths, standard input and Lists become documents, each with its file and line.

Knows: folders, encodings, which reader a text needs, `kind: List`. Must not know: what any kind of object means;
that is `manifests`. What can't be read becomes a diagnostic, never an exception, so that one report names everything.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from k8snetc.compiler.diagnostics import Diagnostic
from k8snetc.compiler.document import AtOnce, Document, FieldPath, Flaw, JsonValue, Tree

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "<stdin>"
WORTH = 200_000  # bytes of a file from which on its objects are read in a quicker way


class Blob(NamedTuple):
    """A text to read: its name for messages, its bytes, and whether somebody named it (and so expects objects)."""

    name: str
    data: bytes
    named: bool = False


class Documents:
    """The documents of some files, read while they are iterated (once), file by file.

    `diagnostics` names what could not be read; it is whole when the iteration has ended. Hold no document longer than
    needed: each keeps the text of its file.
    """

    def __init__(self, blobs: Iterable[Blob | Diagnostic]) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._blobs = blobs

    def __iter__(self) -> Iterator[Document]:
        for blob in self._blobs:
            if isinstance(blob, Diagnostic):
                self.diagnostics.append(blob)
            else:
                yield from self._file(blob)

    def _file(self, blob: Blob) -> Iterator[Document]:
        file, data, named = blob
        empty = True
        for tree in trees(file, data):
            empty = False
            if isinstance(tree, Flaw):
                self.diagnostics.append(Diagnostic(file, tree.line, tree.what, tree.fix))
            else:
                yield from self._objects(file, tree, tree.value, tree.line)
        if empty and named:
            # An empty pipe is a command that failed: to take it for "no services" would remove them all.
            fix = (
                "see whether the command before it failed"
                if file == STDIN
                else "give a file that holds manifests"
            )
            self.diagnostics.append(Diagnostic(file, 0, "no objects in it", fix))

    def _objects(
        self,
        file: str,
        tree: Tree,
        value: JsonValue,
        line: int,
        *,
        path: FieldPath = (),
        default: tuple[str, str] | None = None,
        made: Mapping[str, object] | None = None,
    ) -> Iterator[Document]:
        """The object, or the objects of a List. `default`: apiVersion and kind that a typed list gives its items."""
        if not isinstance(value, dict):
            what = "null" if value is None else f"a {'list' if isinstance(value, list) else 'scalar'}"
            self.diagnostics.append(
                Diagnostic(
                    file, line, f"{what} where an object should be", "give objects with apiVersion and kind"
                )
            )
            return
        kind = value.get("kind")
        items = value.get("items")
        if isinstance(kind, str) and kind.endswith("List") and ("items" in value or kind == "List"):
            inner = None
            version = value.get("apiVersion")
            if kind != "List" and isinstance(version, str):
                inner = (version, kind[: -len("List")])
            if items is None:
                return
            if not isinstance(items, list):
                at = tree.locate((*path, "items"))
                self.diagnostics.append(
                    Diagnostic(file, at, "items of a List is no list", "list the objects there")
                )
                return
            lines = tree.item_lines if not path else ()
            for i, item in enumerate(items):
                place = (*path, "items", i)
                at = lines[i] if i < len(lines) else tree.locate(place)
                known = tree.made.get(i) if not path else None
                yield from self._objects(file, tree, item, at, path=place, default=inner, made=known)
            return
        if default is not None and "kind" not in value:
            value = {"apiVersion": default[0], "kind": default[1], **value}
        yield Document(file, line, value, tree, path, made)


_JSON_START = re.compile(rb"[ \t\r\n]*[\[{]")


def trees(file: str, data: bytes) -> Iterator[Tree | Flaw]:
    """The values of a file. What begins like JSON is tried as JSON first: it is also YAML, but slower to read."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # YAML 1.2, section 5.2
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            yield _no_text(1, "valid UTF-16")
            return
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        if _JSON_START.match(data) or file.endswith(".json"):
            from k8snetc.compiler import read_json

            found = list(read_json.read(data, _at_once(data)))
            if file.endswith(".json") or not any(
                isinstance(f, Flaw) and f.what.startswith("broken") for f in found
            ):
                yield from found
                return
        text = data.decode()
    except UnicodeDecodeError as error:
        yield _no_text(1 + data.count(b"\n", 0, error.start), "UTF-8")
        return
    from k8snetc.compiler import read_yaml_fast

    yield from read_yaml_fast.read(text.replace("\r\n", "\n") if "\r" in text else text, _at_once(text))


def _at_once(text: bytes | str) -> AtOnce | None:
    """Who reads objects of which there may be very many; its import does not pay for few."""
    if len(text) < WORTH:
        return None
    from k8snetc.compiler import quick_slices

    return quick_slices.AT_ONCE


def _no_text(line: int, encoding: str) -> Flaw:
    return Flaw(line, f"this is no {encoding} text", "save the file as UTF-8, or leave it out")


# --- files -----------------------------------------------------------------------------------------------------


def load(paths: Sequence[str], stdin: BinaryIO | None = None) -> Documents:
    """The documents of files, folders (recursive) and `-` (standard input)."""
    return Documents(_blobs(paths, stdin))


def documents(blobs: Iterable[tuple[str, bytes]]) -> Documents:
    """The documents of texts that are not in files: (name for messages, content) each."""
    return Documents(Blob(*blob) for blob in blobs)


def _blobs(paths: Sequence[str], stdin: BinaryIO | None) -> Iterator[Blob | Diagnostic]:
    seen: set[str] = set()
    for path in paths:
        if path == "-":
            if STDIN not in seen:
                seen.add(STDIN)
                yield Blob(STDIN, b"" if stdin is None else stdin.read(), named=True)
        elif path.startswith(("http://", "https://")):
            yield Diagnostic(path, 0, "an address on the web", "download it first, and give the file")
        elif os.path.isdir(path):
            yield from _folder(path, seen)
        else:
            yield from _read(path, seen)


def _folder(folder: str, seen: set[str]) -> Iterator[Blob | Diagnostic]:
    files: list[str] = []
    errors: list[Diagnostic] = []
    visited: set[str] = set()

    def failed(error: OSError) -> None:
        errors.append(_unreadable(error.filename or folder, error))

    for here, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(
            os.path.join(here, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")
        )
    yield from errors
    if not files and not errors:
        yield Diagnostic(
            folder, 0, "no manifests in this folder", f"it holds no file that ends in {', '.join(SUFFIXES)}"
        )
    for file in sorted(files):
        yield from _read(file, seen, regular=True)


def _read(path: str, seen: set[str], *, regular: bool = False) -> Iterator[Blob | Diagnostic]:
    """One file. Given twice, or by two names, it is read once. In folders only regular files are read."""
    try:
        if regular and not stat.S_ISREG(os.stat(path).st_mode):
            return
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        with open(path, "rb") as stream:
            yield Blob(path, stream.read(), named=not regular)
    except OSError as error:
        yield _unreadable(path, error)


def _unreadable(path: str, error: OSError) -> Diagnostic:
    reason = (error.strerror or str(error)).lower()
    fix = {
        FileNotFoundError: "check the path; shells leave a pattern that matches nothing as it is",
        PermissionError: "give yourself read permission, or leave the file out",
    }.get(type(error), "leave it out, or make it readable")
    return Diagnostic(path, 0, f"can't be read: {reason}", fix)
