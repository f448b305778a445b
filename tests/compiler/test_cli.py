"""The command line as a whole: version, help, exit codes, what is said where."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from k8snetc.compiler.cli import COMMANDS

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
    command = [sys.executable, "-c", "from k8snetc.compiler.cli import main; main()", *args]
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
