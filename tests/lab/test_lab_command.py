"""`k8snetc lab` as a user runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k8snetc.lab import names
from tests.support.lab import small

ROOT = Path(__file__).parents[2]
SHOP = str(ROOT / "examples/web-shop/manifests")
MAIN = [sys.executable, "-c", "from k8snetc.compiler.entry import main; main()", "lab"]


def lab(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, *args], capture_output=True, text=True, timeout=120)


def test_help_names_the_exit_codes() -> None:
    done = lab("--help")
    assert done.returncode == 0
    assert "Exit codes: 0 all as meant" in done.stdout
    assert "Install on these nodes only" in done.stdout


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_an_example_does_what_its_program_means(variant: str) -> None:
    done = lab(SHOP, "--backend", "iptables", "--iptables", variant)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("SERVICE")
    assert "all as the program means" in done.stdout.splitlines()[-1]
    assert "pod/shop/web-0:8080, pod/shop/web-1:8080" in done.stdout
    assert "lab: 2 nodes, 4 pods, 1 outside client" in done.stderr


@pytest.mark.kernel
def test_questions_and_json() -> None:
    question = "from pod/shop/web-0 to svc/shop/cart:grpc/tcp"
    done = lab(SHOP, "-q", "-b", "iptables", "--probe", question, "--format", "json", "--tries", "2")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["summary"] == {"probes": 2, "different": 0}
    (probe,) = data["probes"]
    assert probe["service"] == "shop/cart:grpc"
    assert [r["server"] for r in probe["results"]] == ["pod/shop/cart-0"] * 2


@pytest.mark.kernel
def test_only_the_nodes_that_are_named_get_the_program() -> None:
    args = (SHOP, "-q", "-b", "iptables", "--format", "json", "--tries", "1", "--node", "worker-2")
    questions = [f"from node/worker-{n} to svc/shop/cart:grpc" for n in (1, 2)]
    done = lab(*args, *(w for q in questions for w in ("--probe", q)))
    assert done.returncode == 0, done.stderr
    outcomes = [p["results"][0]["outcome"] for p in json.loads(done.stdout)["probes"]]
    assert outcomes == ["timeout", "answered"]


@pytest.mark.kernel
def test_without_a_back_end_nobody_translates() -> None:
    done = lab(SHOP, "-q", "--probe", "from pod/shop/web-0 to svc/shop/cart:grpc", "--tries", "1")
    assert done.returncode == 0, done.stderr
    assert "timeout" in done.stdout


@pytest.mark.kernel
def test_manifests_from_git_with_assumed_addresses(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(
        """
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}
"""
    )
    done = lab(str(tmp_path), "-b", "iptables", "--assume-addresses")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Addresses are assumed" in done.stdout
    assert "lab: 1 node, 2 pods, 1 outside client" in done.stderr


def test_a_question_that_is_not_understood_ends_before_anything_is_built() -> None:
    done = lab(SHOP, "--probe", "from pod/shop/web-0 to svc/shop/nothing:80")
    assert done.returncode == 2
    assert "there is no service 'svc/shop/nothing'" in done.stderr


def test_bad_manifests_are_told_as_by_compile(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: 7}\n"
    )
    done = lab(str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/bad.yaml:4:" in done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_held_lab_says_how_to_get_in_and_goes_when_told(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*MAIN, SHOP, "--hold"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as held:
        try:
            assert held.stderr is not None
            line = next(line for line in held.stderr if line.startswith("  pod/shop/web-0:"))
            inside = line.split(":", 1)[1].split()[:-1]
            done = subprocess.run([*inside, "ip", "-br", "address"], capture_output=True, text=True)
            assert "10.244.1.10/32" in done.stdout, done.stderr
            held.send_signal(number)
            held.wait(60)
        finally:
            held.kill()
    deadline = 400
    while any(n.startswith(f"k8snetc-{held.pid}-") for n in names.netns_names()):
        deadline -= 1
        assert deadline
        signal.sigtimedwait([], 0.05)


@pytest.mark.kernel
def test_clean_removes_what_killed_labs_left() -> None:
    """In a /run/netns of its own, for each lab that starts removes leftovers, too, also that of a test beside this."""
    # No process has this number.
    left = f"k8snetc-4194305-1-1-{small().nodes[0].name}"
    script = 'mount -t tmpfs none "$1"; ip netns add "$2"; shift 2; "$@"; echo "then: $(ip netns list)"'
    place = ["unshare", "--mount", "sh", "-ec", script, "sh", str(names.NETNS_DIR), left]
    names.NETNS_DIR.mkdir(exist_ok=True)
    done = subprocess.run([*place, *MAIN, "--clean"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"removed {left}\n" in done.stdout
    assert done.stdout.endswith("then: \n")
