"""What goes wrong is said and has changed nothing: a kernel that lacks or refuses something, a process that may not."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from k8snetc.backends.ebpf import build, capabilities, state
from k8snetc.backends.ebpf.capabilities import NEEDS, Kind
from k8snetc.backends.ebpf.features import FamilyFeatures, Features
from k8snetc.backends.ebpf.install import target
from k8snetc.backends.ebpf.verifier import explain
from k8snetc.backends.target import InstallError, InstallOptions
from k8snetc.ir.types import Family, Program
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.backends.ebpf import support
from tests.support.lab import TCP
from tests.support.repository import ROOT

EVERYTHING = Features(
    ipv4=FamilyFeatures(frontends=True, policy=True, rejects=True), sctp=True, counters=True
)

WORDS_OF_6_1 = """\
libbpf: prog 'from_pod': BPF program load failed: Permission denied
libbpf: prog 'from_pod': -- BEGIN PROG LOAD LOG --
Validating parse4() func#1...
; if (!p)
0: (15) if r2 == 0x0 goto pc+3
; return *(volatile char *)(p + n);
1: (0f) r2 += r1
R2 invalid mem access 'scalar'
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'from_pod': failed to load: -13
"""


def test_the_line_is_found_where_the_verifier_gives_no_number() -> None:
    source = "int parse4(void)\n{\n\treturn *(volatile char *)(p + n);\n}\n"
    text = explain(WORDS_OF_6_1, errno.EACCES, source).splitlines()
    assert text[0] == "the kernel's verifier refuses the program from_pod; nothing was changed"
    assert text[1] == "  at k8snetc.bpf.c:3: return *(volatile char *)(p + n);"
    assert text[-2:] == [
        "  R2 invalid mem access 'scalar'",
        "  processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
    ]


def refused(program: Program, options: InstallOptions) -> tuple[str, int]:
    """Install C that reads where it must not. Returns what was said, and the number of that line."""
    one = target(options)
    goal = one.desired(program)
    bad = "\tif (((volatile __u8 *)(long)skb->data)[skb->len]) /* no bounds */"
    lines = goal.source.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("static __noinline int ingress4("))
    at = next(i for i in range(at, len(lines)) if lines[i].startswith("\tif (parse4("))
    lines[at:at] = [bad, "\t\treturn DROP;"]
    goal = replace(goal, source="\n".join(lines) + "\n")
    before = one.observe()
    steps = one.steps(before, goal)
    load = next(i for i, step in enumerate(steps) if step.title.startswith("load a generation"))
    for step in steps[:load]:
        step.run()
    with pytest.raises(InstallError) as caught:
        steps[load].run()
    assert one.observe() == before
    return str(caught.value), at + 1


@pytest.mark.kernel
def test_the_verifier_refuses(cluster: Cluster) -> None:
    options = InstallOptions(no_cgroup=True)
    program = support.services("w1")
    cluster.call("node/w1", support.install, program, options)
    probe = Probe("client/out", support.node_address(Family.IPV4, 1), TCP, 30080)
    said, line = cluster.call("node/w1", refused, program, options)
    first, place, *words = said.splitlines()
    assert first.startswith("the kernel's verifier refuses the program packets; ")
    assert place.startswith(f"  at k8snetc.bpf.c:{line}: if (((volatile __u8 *)(long)skb->data)[skb->len])")
    assert "invalid access to packet" in said or "invalid mem access" in said
    assert len(words) <= 12
    assert cluster.probe_all([probe])[0].answered


def seen_by_another_version(options: InstallOptions) -> str:
    """What is said of the installed program by a version that writes another format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "FORMAT", state.FORMAT + 1)
        with pytest.raises(InstallError) as caught:
            target(options).observe()
    return str(caught.value)


@pytest.mark.kernel
def test_another_versions_program_is_not_touched(cluster: Cluster) -> None:
    options = InstallOptions(no_cgroup=True)
    cluster.call("node/w1", support.install, support.services("w1"), options)
    said = cluster.call("node/w1", seen_by_another_version, options)
    assert said.startswith("what is installed here is of another version of k8snetc (format ")
    assert said.endswith("remove it with that version first")


@pytest.mark.kernel
def test_everything_that_is_missing_is_named_at_once() -> None:
    lacking = tuple(replace(n, number=9999) for n in NEEDS if n.kind is Kind.SOCKET_HELPER)
    with pytest.raises(InstallError) as caught:
        capabilities.check(EVERYTHING, sockets=True, needs=(*NEEDS, *lacking))
    text = str(caught.value)
    assert [line.strip() for line in text.splitlines()[1:-1]] == [str(n) for n in lacking]
    assert "(Linux 5.18)" in text
    assert "--no-cgroup" in text
    capabilities.check(EVERYTHING, sockets=False, needs=(*NEEDS, *lacking))


def without_ring(program: Program, options: InstallOptions) -> str:
    """What a kernel without ring buffers says to an apply."""
    asked = capabilities._has.__wrapped__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capabilities, "_has", lambda kind, number: number != 27 and asked(kind, number))
        one = target(options)
        with pytest.raises(InstallError) as caught:
            one.desired(program)
        target(replace(options, ebpf_counters=False)).desired(program)
    return str(caught.value)


@pytest.mark.kernel
def test_an_apply_asks_first(cluster: Cluster) -> None:
    said = cluster.call("node/w1", without_ring, support.both("w1"), InstallOptions(no_cgroup=True))
    assert "map type ringbuf (Linux 5.8)" in said
    assert "nothing was changed" in said


@pytest.mark.kernel
def test_a_process_that_may_not(cluster: Cluster, tmp_path: Path) -> None:
    code = "from k8snetc.compiler.entry import main; main()"
    manifests = str(ROOT / "examples" / "dual-stack" / "manifests")
    words = [
        "apply",
        manifests,
        "--node",
        "worker-1",
        "-b",
        "ebpf",
        "--yes",
        "--uplink",
        "eth0",
        "--no-cgroup",
    ]
    words += ["--state-dir", str(tmp_path / "state")]
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = cluster.run("node/w1", [*powerless, sys.executable, "-c", code, *words], check=False)
    assert done.returncode == 4
    assert "BPF is not permitted here; nothing was changed:" in done.stderr
    assert "lacks CAP_BPF" in done.stderr


def test_no_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLANG", "/nowhere/clang")
    with pytest.raises(build.BuildError, match=r"/nowhere/clang can't be run: No such file.*CLANG"):
        build.build("int nothing;")
    monkeypatch.delenv("CLANG")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build.BuildError, match="clang is missing: install"):
        build.build("int nothing_else;")


def test_c_that_clang_refuses() -> None:
    if subprocess.run(["which", "clang"], capture_output=True, check=False).returncode:
        pytest.skip("clang is not installed")
    with pytest.raises(build.BuildError, match=r"k8snetc.bpf.c:2:\d+: error"):
        build.build("int a;\nint b = c;\n")
