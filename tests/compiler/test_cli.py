"""The command line as a whole: version, help, exit codes, what is said where."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from k8snetc.backends.registry import NAMES
from k8snetc.compiler.cli import COMMANDS, cli
from k8snetc.compiler.cli import run as run_here

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.7.7
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.7]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
"""


def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", "from k8snetc.compiler.entry import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, input=stdin)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A file with one service."""
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


def test_version_is_the_package_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"k8snetc {version('k8snetc')}\n")


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: k8snetc ")
    assert all(f"  {name}  " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_flag_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    module, attribute, _ = COMMANDS[command]
    options = [p for p in getattr(import_module(module), attribute).params if isinstance(p, click.Option)]
    assert options
    assert [p.opts for p in options if not p.help] == []


def test_an_unknown_command_is_a_usage_error_with_a_hint() -> None:
    done = run("compil")
    assert done.returncode == 2
    assert "did you mean compile?" in done.stderr


def test_emit_ir(web: Path) -> None:
    done = run("compile", str(web), "--emit-ir")
    assert done.returncode == 0
    assert "frontend cluster-ip ipv4 10.96.7.7:80/tcp" in done.stdout
    assert f'@ "{web}":2 Service shop/web' in done.stdout
    assert "skipped 1 object of another kind" in done.stderr
    assert run("compile", str(web), "--emit-ir", "-q").stderr == ""
    assert "ConfigMap" in run("compile", str(web), "--emit-ir", "-v").stderr


def test_policies_of_other_projects_are_named_even_when_quiet(web: Path) -> None:
    more = "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\n"
    said = run("compile", "-", "--emit-ir", "-q", stdin=web.read_text() + more).stderr
    assert said == (
        "k8snetc: not enforced: 1 CiliumNetworkPolicy (cilium.io/v2), which is another project's policy\n"
    )


def test_standard_input(web: Path) -> None:
    done = run("compile", "-", "--emit-ir", "-q", stdin=web.read_text())
    assert (done.returncode, done.stdout) == (
        0,
        run("compile", str(web), "--emit-ir", "-q").stdout.replace(str(web), "<stdin>"),
    )


def test_print_between_passes(web: Path) -> None:
    done = run("compile", str(web), "--print-between-passes")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "# ---- after lower ----\n" in done.stderr
    assert "# ---- after drop-unused: unchanged ----\n" in done.stderr


def test_bad_input_is_one_report_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WEB.replace("10.96.7.7", "10.96.7.777"))
    (tmp_path / "b.yaml").write_text(WEB.replace("port: 80,", "port: 80000,"))
    (tmp_path / "c.yaml").write_text("kind: {{ .Values.kind }}\n")
    done = run("compile", str(tmp_path), "--backend", "iptables", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    for place in ("a.yaml:6: ", "b.yaml:7: ", "c.yaml:1: "):
        assert f"{tmp_path}/{place}" in done.stderr
    assert done.stderr.endswith("nothing was written\n")
    assert all("; " in line for line in done.stderr.splitlines())


def test_a_path_that_is_not_there() -> None:
    done = run("compile", "no/such/folder", "--emit-ir")
    assert done.returncode == 2
    assert done.stderr.startswith("no/such/folder: ")


def test_what_only_the_options_decide_is_in_the_same_report(tmp_path: Path) -> None:
    """A NodePort out of the range, a Service without address, and a field that is wrong in itself."""
    (tmp_path / "a.yaml").write_text(
        """\
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: c}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80000}]}
"""
    )
    done = run("check", str(tmp_path))
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert [line.split(":")[1] for line in said[:-1]] == ["1", "6", "14"]
    assert "nodePort: 80 is not in 30000-32767" in said[0]
    assert "Service default/b has no clusterIP" in said[1]
    assert said[-1] == "k8snetc: 3 errors; nothing was written"


def test_a_service_without_address_says_what_to_do(web: Path) -> None:
    web.write_text(WEB.replace("  clusterIP: 10.96.7.7\n", ""))
    done = run("compile", str(web), "--emit-ir")
    assert done.returncode == 2
    assert "--assume-addresses" in done.stderr


def test_node_flags_reach_the_program(web: Path) -> None:
    shown = run(
        "compile", str(web), "--emit-ir", "-q", "--cluster-cidr", "10.244.0.0/16", "--masquerade-all"
    ).stdout
    assert "cluster-is source 10.244.0.0/16" in shown
    assert "masquerade" in shown
    done = run("compile", str(web), "--emit-ir", "--node-address", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# --- files ---


def test_files_are_written_and_replaced_at_once(web: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    done = run("compile", str(web), "--backend", "nftables", "-o", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    (file,) = out.iterdir()
    assert file.name == "k8snetc.nft"
    assert f"wrote {file}: " in done.stderr
    printed = run("compile", str(web), "--backend", "nftables")
    assert file.read_text() == printed.stdout
    first = file.read_text()
    web.write_text(WEB.replace("10.244.1.7", "10.244.1.8"))
    assert run("compile", str(web), "--backend", "nftables", "-o", str(out), "-q").stderr == ""
    assert file.read_text() == first.replace("10.244.1.7", "10.244.1.8") != first
    web.write_text(WEB.replace("10.244.1.7", "10.244.1.777"))
    before = file.read_text()
    assert run("compile", str(web), "--backend", "nftables", "-o", str(out)).returncode == 2
    assert file.read_text() == before
    assert list(out.iterdir()) == [file], "nothing is left lying about"


def test_several_files_are_one_stream_with_names(web: Path) -> None:
    shown = run("compile", str(web), "--backend", "iptables", "-q").stdout
    names = [line for line in shown.splitlines() if line.startswith("# ---- ")]
    assert "# ---- iptables-nat.restore ----" in names
    assert len(names) == len(set(names)) > 1


def test_a_folder_that_can_not_be_written_is_an_error(web: Path) -> None:
    assert run("compile", str(web), "--backend", "nftables", "-o", str(web)).returncode == 2
    done = run("compile", str(web), "--backend", "nftables", "-o", "/proc/nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("k8snetc: /proc/nowhere: ")


def test_golden_files_in_a_user_s_ci(web: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    words = ("check", str(web), "--backend", "nftables", "--golden", str(golden))
    missing = run(*words)
    assert missing.returncode == 2
    assert "--update" in missing.stderr
    written = run(*words, "--update")
    assert (written.returncode, written.stdout) == (0, f"1 file written to {golden}/\n")
    assert run(*words).stdout == f"1 file equal to those in {golden}/\n"
    assert run(*words, "-q").stdout == ""

    web.write_text(WEB.replace("10.244.1.7", "10.244.1.8"))
    changed = run(*words)
    assert changed.returncode == 1
    assert changed.stdout.startswith("--- golden/k8snetc.nft\n+++ k8snetc.nft\n@@ ")
    assert next(line for line in changed.stdout.splitlines() if "10.244.1.8" in line).startswith("+")
    assert "run again with --update" in changed.stderr
    assert run(*words).stdout == changed.stdout, "a comparison changes nothing"
    assert run(*words, "--update").returncode == 0
    assert run(*words).returncode == 0

    (golden / "old.nft").write_text("left over\n")
    (golden / ".gitattributes").write_text("* -text\n")
    extra = run(*words)
    assert extra.returncode == 1
    assert extra.stdout.startswith("--- golden/old.nft\n+++ /dev/null\n")
    updated = run(*words, "--update")
    assert updated.returncode == 1, "what is not ours is not deleted, and does not pass either"
    assert "remove what is shown above" in updated.stderr
    assert (golden / "old.nft").exists()


def test_check_without_golden_files_says_what_there_is(web: Path) -> None:
    assert run("check", str(web), "-q").stdout == ""
    assert run("check", str(web)).stdout == "good: 1 frontends, 1 balancers, 0 enforcements\n"
    for words in (("--update",), ("--golden", "x")):
        done = run("check", str(web), *words)
        assert (done.returncode, done.stdout) == (2, "")


def test_no_comments(web: Path) -> None:
    assert "shop/web" in run("compile", str(web), "--backend", "iptables", "-q").stdout
    assert "shop/web" not in run("compile", str(web), "--backend", "iptables", "-q", "--no-comments").stdout


# --- what is said, and how it ends ---


def test_a_misspelt_field_of_a_service_is_a_warning_of_every_command(web: Path) -> None:
    web.write_text(WEB.replace("targetPort", "targetport"))
    said = f"{web}:7: warning: a Service has no field 'targetport' there; did you mean targetPort?"
    for command in (("check",), ("compile", "--emit-ir"), ("diff", str(web))):
        done = run(command[0], str(web), *command[1:])
        assert done.returncode == 0, done.stderr
        assert said in done.stderr.splitlines()
    assert run("check", str(web), "-q").stderr == ""


def test_everything_is_compared_but_where_it_stands(web: Path, tmp_path: Path) -> None:
    """Two folders with the same manifests at other lines are the same, whatever the back end."""
    other = tmp_path / "other.yaml"
    other.write_text(f"# one\n# more\n{WEB}")
    for backend in NAMES:
        done = run("diff", str(web), str(other), "--backend", backend)
        assert (done.returncode, done.stdout) == (0, "No changes.\n"), (backend, done.stderr)
    other.write_text(f"# one\n{WEB.replace('port: 8080', 'port: 8081')}")
    for backend in NAMES:
        done = run("diff", str(web), str(other), "--backend", backend)
        assert done.returncode == 1, (backend, done.stderr)
        assert "8081" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_and_a_full_disk(unbuffered: str) -> None:
    code = "from k8snetc.compiler.entry import main; main()"
    example = Path(__file__).parents[2] / "examples" / "online-boutique" / "manifests"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    words = f"{sys.executable} -c '{code}' compile {example} --assume-addresses -q --backend ebpf"
    piped = subprocess.run(
        ["bash", "-c", f"{words} | head -1; echo ${{PIPESTATUS[0]}}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert piped.stdout.splitlines()[-1] in {"0", "141"}  # 0: all of it went into the pipe before
    assert "Traceback" not in piped.stderr
    full = subprocess.run(
        ["bash", "-c", f"{words} > /dev/full"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1] == "k8snetc: No space left on device"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_nobody_can_be_told_keeps_its_exit_code(unbuffered: str) -> None:
    """A terminal that was closed in the middle: what is written to it fails."""
    code = "from k8snetc.compiler.entry import main; main()"
    for words, expected in (("compile nowhere -b iptables", 2), ("apply nowhere", 2)):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -c '{code}' {words} 2>/dev/full"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
        assert done.returncode == expected, words


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("our own mistake"), 70),
        (AssertionError(), 70),
        (RecursionError(), 70),
        (MemoryError(), 70),
        (SystemExit(1), 1),  # how commands end that say "differs"
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file or directory", "x"), 2),
    ],
)
def test_no_uncaught_exception_ends_in_1(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(SystemExit) as end:
        sys.exit(run_here())
    assert end.value.code == code


def test_ctrl_c_is_130(web: Path) -> None:
    """While it waits for standard input."""
    # A shell that starts tests in the background has them ignore the signal.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from k8snetc.compiler.entry import main; main()"
    command = [sys.executable, "-c", code, "check", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            time.sleep(0.1)
            while process.poll() is None and not _reads_standard_input(process.pid):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "k8snetc: interrupted"
    assert "Traceback" not in said


def test_ctrl_c_while_it_still_starts_shows_no_traceback() -> None:
    """The signal comes while the command line is being imported, which is held up so that it surely does."""
    code = """
import os, signal, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "k8snetc.compiler.cli":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
signal.signal(signal.SIGINT, signal.default_int_handler)
from k8snetc.compiler.entry import main
sys.meta_path.insert(0, Slow())
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_closed_standard_streams(web: Path) -> None:
    code = "from k8snetc.compiler.entry import main; main()"
    words = f"{sys.executable} -c '{code}' check -q {web}"
    for closed in ("<&-", "<&- 2>&-", ">&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", f"{words} {closed}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), closed
    empty = subprocess.run(
        ["bash", "-c", f"{words.replace(str(web), '-')} <&-"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert empty.returncode == 2
    assert "no objects in it" in empty.stderr


def _reads_standard_input(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
    except OSError:
        return False
    return words[:2] == ["0", "0x0"]  # read(0, ...)


def test_a_config_file_has_the_names_of_the_flags(web: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("cluster-cidr: 10.9.0.0/16\nmasqueradeAll: true\n")
    both = run("compile", str(web), "--emit-ir", "-q", "--config", str(config))
    assert (
        both.stdout
        == run(
            "compile", str(web), "--emit-ir", "-q", "--cluster-cidr", "10.9.0.0/16", "--masquerade-all"
        ).stdout
    )
    flag = run("compile", str(web), "--emit-ir", "-q", "--config", str(config), "--cluster-cidr", "none")
    assert "cluster-is" not in flag.stdout, "a flag counts more than the file"
    config.write_text("cluster-cider: 10.9.0.0/16\n")
    done = run("compile", str(web), "--emit-ir", "--config", str(config))
    assert done.returncode == 2
    assert f"{config}:1: no option is named 'cluster-cider'" in done.stderr


def test_start_up_imports_nothing_heavy() -> None:
    heavy = [
        "pydantic",
        "lark",
        "jinja2",
        "pyroute2",
        "bcc",
        "nftables",
        "rich",
        "yaml",
        "k8snetc.compiler.manifests",
    ]
    code = f"import sys, json, k8snetc.compiler.cli; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == []
