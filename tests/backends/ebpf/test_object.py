"""`compile --object`: the ELF from the wheel and clang, without privilege and without headers; its size is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from k8snetc.backends.ebpf import bpf_objects, build, emit, state
from k8snetc.backends.ebpf.lower import lower
from k8snetc.ir.parse import parse
from tests.backends.ebpf.test_emit import CASES
from tests.backends.ebpf.test_emit import HERE as GOLDEN
from tests.support import golden
from tests.support.repository import ROOT
from tests.support.unprivileged import unprivileged

HERE = Path(__file__).parent
MANIFESTS = str(ROOT / "examples/dual-stack/manifests")

needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")


def k8snetc(*words: str, privileged: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from k8snetc.compiler.entry import main; main()"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(
        command if privileged or os.geteuid() != 0 else unprivileged(*command),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed."""
    with TemporaryDirectory(prefix="k8snetc-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_clang
def test_built_without_privilege_and_headers(open_folder: Path) -> None:
    clang = open_folder / "clang-without-headers"
    clang.write_text(f'#!/bin/sh\nexec {shutil.which("clang")} -nostdinc "$@"\n')
    clang.chmod(0o755)
    out = open_folder / "out"
    out.mkdir()
    out.chmod(0o777)
    words = ("compile", MANIFESTS, "--node", "worker-1", "-b", "ebpf", "--object", "-o", str(out))
    done = k8snetc(*words, privileged=False, CLANG=str(clang), TMPDIR=str(out))
    assert done.returncode == 0, done.stderr
    names = ["k8snetc.bpf.c", "k8snetc.bpf.o", "k8snetc.hooks", "k8snetc.tables"]
    assert sorted(p.name for p in out.iterdir()) == names
    made = (out / "k8snetc.bpf.o").read_bytes()
    assert made.startswith(b"\x7fELF")
    assert f"{len(made)} bytes" in done.stderr
    assert made == build.build((out / "k8snetc.bpf.c").read_text())  # wherever it is built


def test_it_needs_a_folder_and_this_back_end(tmp_path: Path) -> None:
    words = ("compile", MANIFESTS, "--node", "worker-1", "--object")
    for more in ((), ("-b", "ebpf"), ("-b", "nftables", "-o", str(tmp_path))):
        done = k8snetc(*words, *more)
        assert done.returncode == 2
        assert "-b ebpf -o DIR" in done.stderr or "name the dataplane" in done.stderr


def test_without_clang_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("compile", MANIFESTS, "--node", "worker-1", "-b", "ebpf", "--object", "-o", str(out))
    done = k8snetc(*words, PATH="/nowhere", CLANG="")
    assert done.returncode == 4
    assert "clang is missing: install Debian's clang, or set CLANG to its path" in done.stderr
    assert not out.exists()


@needs_clang
@pytest.mark.kernel
def test_golden_instruction_counts() -> None:
    """Instructions of each loaded program, with what it calls: a change of the C shows what it costs."""
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    kept = HERE / "instructions.txt"
    compiler = f"clang {version.split('version ')[1].split('.')[0]}"
    if kept.exists() and not kept.read_text().startswith(f"# {compiler}") and not golden.UPDATE:
        pytest.skip(f"the counts are not those of {compiler}")
    sources = {
        f"example {p.parents[2].name}": p.read_text()
        for p in sorted((ROOT / "examples").glob("*/golden/ebpf/k8snetc.bpf.c"))
    }
    sources |= {
        f"golden {case}": emit.program(lower(parse((GOLDEN / case / "program.ir").read_text())))
        for case in CASES
    }
    found = {name: _instructions(source) for name, source in sources.items()}
    hooks = [state.PACKETS, "connect4", "connect6", "sendmsg4", "recvmsg4"]
    lines = [
        f"# {compiler} -O2: instructions of each program as the kernel gets it, with the functions that it calls"
    ]
    lines.append(" ".join([f"{'':24}", *(f"{h:>12}" for h in hooks)]))
    lines += [
        " ".join([f"{name:24}", *(f"{counts.get(h, '-'):>12}" for h in hooks)])
        for name, counts in found.items()
    ]
    golden.check_file(kept, "\n".join(lines) + "\n")


def _instructions(source: str) -> dict[str, int]:
    made = bpf_objects.Object(build.build(source), "k8snetc")
    try:
        for name in made.map_names:
            if name.startswith("connections"):
                made.size(name, 64)
        made.load()
        return {name: made.instructions(name) for name in made.programs}
    finally:
        made.close()
