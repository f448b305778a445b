"""Manifests that somebody broke in any way: they compile, or it is told what is wrong, never a defect of ours."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.options import ContextOptions
from k8snetc.compiler.pipeline import compile_program

ROOT = Path(__file__).parents[2]
ODD: tuple[object, ...] = (
    None, "", 0, -1, 1e20, 2**70, 1.5, True, "x" * 300, [], {}, [None], [[]], {"a": None}, ["a"], {"": ""}, "\x00",
    "é", "a/b", "80", 65536, "::", "::/0", "1.2.3.4", "0.0.0.0/0", "fd00::1", "{{x}}", "None", ["None"],
)  # fmt: skip
SCRAPS = (
    b"\x00", b"{", b"}", b"\t", b"\xff", b"\xff\xfe", b"&a ", b"*a", b"- ", b": ", b"'", b'"', b"\n", b"!!x ", b"<<: ",
    b"---\n", b"? ", b"|", b"%", b"1:20", b"0777", b"on",
)  # fmt: skip


def _good() -> list[object]:
    files = [
        *sorted(ROOT.glob("examples/*/manifests/*.yaml")),
        *sorted(ROOT.glob("tests/compiler/diagnostics/p*.yaml")),
    ]
    return [
        document
        for file in files
        for document in yaml.load_all(file.read_text(), yaml.CSafeLoader)
        if isinstance(document, dict)
    ]


GOOD = _good()


def _places(value: object) -> Iterator[tuple[dict[str, object] | list[object], str | int]]:
    """Everywhere in the value that something could be changed."""
    keys: list[str | int] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield value, key  # type: ignore[misc]  # a value that has keys is one of the two
        yield from _places(value[key])  # type: ignore[index]  # as above


def _bent(rng: random.Random, document: object) -> object:
    """The object with one to three things changed, left out or doubled."""
    bent = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(bent))
        if not places:
            break
        holder, key = rng.choice(places)
        chance = rng.random()
        if chance < 0.65:
            holder[key] = copy.deepcopy(rng.choice(ODD))  # type: ignore[index]  # key is of its holder's kind
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))  # type: ignore[index]  # as above
        elif chance < 0.85:
            del holder[str(key)]
        else:
            holder[rng.choice(("spec", "metadata", "ports", "status", "namespace", "extra"))] = copy.deepcopy(
                holder[str(key)]
            )
    return bent


def _broken(rng: random.Random, text: bytes) -> bytes:
    """The text with a few bytes replaced."""
    broken = bytearray(text)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(broken))
        broken[at : at + rng.choice((0, 1, 5))] = rng.choice(SCRAPS)
    return bytes(broken)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_wrong_is_told(seed: int) -> None:
    rng = random.Random(seed)
    some = [_bent(rng, d) if rng.random() < 0.6 else d for d in rng.sample(GOOD, rng.randint(1, 8))]
    texts = [json.dumps({"apiVersion": "v1", "kind": "List", "items": some}).encode()]
    texts.append(_broken(rng, yaml.dump_all(some, Dumper=yaml.CSafeDumper).encode()))
    for text in texts:
        for assume in (False, True):
            options = ContextOptions(node=rng.choice((None, "worker-1")))
            for diagnostic in _told(text, options, assume=assume):
                assert diagnostic.what, diagnostic
                assert diagnostic.fix, diagnostic


def _told(text: bytes, options: ContextOptions, *, assume: bool) -> list[Diagnostic]:
    """What is wrong with the text; anything but a report is an error of the test."""
    try:
        compile_program(["-"], options, assume=assume, stdin=io.BytesIO(text))
    except InputError as error:
        return list(error.diagnostics)
    return []


@pytest.mark.parametrize("name", [["a"], {"a": "b"}, 1.5, True])
def test_names_that_are_no_text(name: object) -> None:
    text = json.dumps(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {}}
    ).encode()
    with pytest.raises(InputError, match=r"is not text; give metadata\.name, as text"):
        compile_program(["-"], ContextOptions(), stdin=io.BytesIO(text))
