"""Every example compiles on every back end to the files in its folder `golden/`, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k8snetc.backends.base import EmitOptions, UnsupportedError
from k8snetc.backends.registry import NAMES, load
from k8snetc.compiler.options import context_options
from k8snetc.compiler.output import marked_assumed
from k8snetc.compiler.pipeline import compile_program
from tests.support import golden
from tests.support.repository import ROOT

# The node that each example is compiled for; None: from Git, with assumed addresses.
EXAMPLES = {
    "web-shop": "worker-1",
    "local-policy": "worker-1",
    "dual-stack": "worker-1",
    "online-boutique": None,
}


def built() -> list[str]:
    """The back ends that there are."""
    found = []
    for name in NAMES:
        try:
            load(name)
        except UnsupportedError:
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("backend", built())
@pytest.mark.parametrize("example", EXAMPLES)
def test_golden(example: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # comments carry the path as it was given
    node = EXAMPLES[example]
    options = context_options({"node": node})
    program = compile_program([f"examples/{example}/manifests"], options, assume=node is None).program
    folder = ROOT / "examples" / example / "golden" / backend
    try:
        artifacts = load(backend).compile(program, EmitOptions())
    except UnsupportedError as e:
        gaps = "".join(f"{g.what}; {g.hint}\n" for g in e.gaps)
        golden.check_folder(folder, {"unsupported.txt": gaps})
        return
    if program.assumed:
        artifacts = marked_assumed(artifacts)
    golden.check_folder(folder, {a.name: a.text for a in artifacts})


def test_every_example_is_tried_and_has_a_readme() -> None:
    folders = {p.name for p in (ROOT / "examples").iterdir() if p.is_dir()}
    assert folders == EXAMPLES.keys()
    for name in folders:
        assert (ROOT / "examples" / name / "README.md").is_file()


@pytest.mark.parametrize("folder", sorted(os.listdir(ROOT / "tests" / "corpus")))
def test_real_repositories_compile(folder: str) -> None:
    path = Path(ROOT / "tests" / "corpus" / folder)
    if not path.is_dir():
        return
    program = compile_program([str(path)], context_options({}), assume=True).program
    assert program.assumed
    assert program.frontends
