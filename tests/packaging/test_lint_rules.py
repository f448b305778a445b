"""The borders between packages are held by ruff: what must not be imported is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

BACKENDS = ("ebpf", "iptables", "ipvs", "nftables")


def findings(path: str, source: str) -> set[tuple[int, str]]:
    """The rules that ruff says `source` breaks if it stood in the file `path`, each with its line."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--output-format=json",
            "--stdin-filename",
            path,
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stderr
    return {(finding["location"]["row"], finding["code"]) for finding in json.loads(done.stdout)}


FORBIDDEN = [
    *((f"ir/{sub}x.py", m) for sub in ("", "passes/") for m in ("backends", "compiler", "apply", "lab")),
    *(("backends/x.py", m) for m in ("compiler", "apply", "lab")),
    *((f"backends/{b}/x.py", m) for b in (*BACKENDS, "common") for m in ("compiler", "apply", "lab")),
    *((f"backends/{b}/x.py", f"backends.{o}") for b in (*BACKENDS, "common") for o in BACKENDS if o != b),
]


@pytest.mark.parametrize(("path", "module"), FORBIDDEN)
def test_a_forbidden_import_is_refused(path: str, module: str) -> None:
    parent, _, name = f"k8snetc.{module}".rpartition(".")
    statements = (
        f"import k8snetc.{module}",
        f"from k8snetc.{module} import thing",
        f"from k8snetc.{module}.deep import thing",
        f"from {parent} import {name}",
    )
    refused = {row for row, code in findings(path, "\n".join(statements)) if code == "TID251"}
    assert refused == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("compiler/x.py", "backends.registry"),
        ("compiler/x.py", "ir.types"),
        ("backends/iptables/x.py", "backends.common.ipset"),
        ("backends/iptables/x.py", "backends.base"),
        ("backends/nftables/x.py", "ir.types"),
        ("ir/passes/x.py", "ir.types"),
        ("apply/x.py", "backends.base"),
        ("lab/x.py", "compiler.pipeline"),
    ],
)
def test_an_import_along_the_pipeline_is_not(path: str, module: str) -> None:
    assert (1, "TID251") not in findings(path, f"from k8snetc.{module} import thing\n")


@pytest.mark.parametrize("path", ["compiler/x.py", "ir/x.py", "backends/ebpf/x.py", "lab/x.py"])
def test_top_level_and_relative_imports_are_refused(path: str) -> None:
    assert {(1, "TID251"), (2, "TID252")} <= findings(path, "import ir.types\nfrom .types import thing\n")


@pytest.mark.parametrize("module", ["bcc", "nftables", "pyroute2"])
def test_bindings_are_imported_in_functions(module: str) -> None:
    found = findings("backends/ebpf/x.py", f"import {module}\ndef f() -> None:\n    import {module}\n")
    assert {row for row, code in found if code == "TID253"} == {1}


def test_each_back_end_has_its_own_rules() -> None:
    for folder in (p for p in Path(ROOT, "backends").iterdir() if (p / "__init__.py").is_file()):
        assert (folder / "ruff.toml").is_file(), (
            f"{folder.name}: add a ruff.toml like that of backends/iptables"
        )
