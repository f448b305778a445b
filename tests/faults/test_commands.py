"""The commands on a node, as people call them: plan, apply, verify, status, roll back, remove, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from k8snetc.apply.document import schema
from k8snetc.lab.cluster import Cluster
from tests.faults import node
from tests.faults.node import W1
from tests.support.repository import ROOT

pytestmark = pytest.mark.kernel

SHOP = ROOT / "examples" / "web-shop" / "manifests"
PROGRAM = Path(sys.executable).with_name("k8snetc")


class Console:
    """Runs k8snetc on node w1."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def __call__(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.cluster.run(W1, [str(PROGRAM), *map(str, words)], check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done


@pytest.fixture
def k8snetc(shared_cluster: Cluster) -> Console:
    return Console(shared_cluster)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The web shop, with an endpoint of `web` less."""
    text = (SHOP / "services.yaml").read_text()
    for file in SHOP.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    changed = text.replace("10.96.7.9", "10.96.7.19")
    assert changed != text
    (tmp_path / "services.yaml").write_text(changed)
    return tmp_path


ON = ("--backend", "iptables", "--node", "worker-1")


def test_the_life_of_a_node(k8snetc: Console, manifests: Path, tmp_path: Path) -> None:
    k8snetc("status", code=1)
    k8snetc("diff", SHOP, *ON, code=1)
    assert "Applied and verified: receipt 1" in k8snetc("apply", SHOP, *ON).stdout
    assert k8snetc("diff", SHOP, *ON).stdout == "No changes.\n"
    assert "back end     iptables" in k8snetc("status").stdout

    plan = tmp_path / "saved.plan"
    said = k8snetc("diff", manifests, *ON, "--out", plan, code=1).stdout
    assert "- everyone" in said
    assert "shop/db:sql (10.96.7.9:5432)" in said
    assert "+ everyone" in said
    assert "shop/db:sql (10.96.7.9:5432)" in k8snetc("apply", "--plan", plan, "--dry-run").stdout
    assert "10.96.7.19" not in k8snetc.cluster.run(W1, ["iptables-save"]).stdout
    assert "shop/db:sql" in k8snetc("apply", "--plan", plan).stdout
    stale = k8snetc("apply", "--plan", plan, code=4).stderr
    assert "the node has changed since this plan was made" in stale

    k8snetc.cluster.run(W1, ["iptables", "-t", "nat", "-F", "K8SNETC-SERVICES"])
    assert "missing: nat IPv4 K8SNETC-SERVICES" in k8snetc("verify", code=1).stdout
    assert "Drift" in k8snetc("diff", manifests, *ON, code=1).stdout
    status = json.loads(k8snetc("status", "--format", "json", code=1).stdout)
    assert (status["installed"]["number"], status["intact"]) == (2, False)
    k8snetc("apply", manifests, *ON)
    k8snetc("verify")

    assert "receipt" in k8snetc("rollback", "--yes").stdout
    assert k8snetc("diff", SHOP, *ON).stdout == "No changes.\n"
    assert "no earlier receipt" in k8snetc("rollback", code=4).stderr
    k8snetc("rollback", "--to", 2)
    k8snetc("remove", "--yes")
    assert "Nothing to do" in k8snetc("remove", "--backend", "iptables").stdout
    assert "K8SNETC" not in k8snetc.cluster.run(W1, ["iptables-save"]).stdout
    k8snetc("verify", "--backend", "iptables", code=4)


def test_machines_read_the_plan(k8snetc: Console, manifests: Path) -> None:
    live = json.loads(k8snetc("diff", SHOP, *ON, "--format", "json", code=1).stdout)
    two = json.loads(
        k8snetc("diff", SHOP, manifests, "--node", "worker-1", "--format", "json", code=1).stdout
    )
    for document in (live, two):
        jsonschema.validate(document, json.loads(schema()))
    assert live["rules"]
    assert {e["symbol"] for e in two["connectivity"]} == {"+", "-", "~"}
    assert any("services.yaml" in c for e in two["connectivity"] for c in e["causes"])
    assert k8snetc("diff", "--schema").stdout == schema().decode()
    markdown = k8snetc("diff", SHOP, manifests, "--node", "worker-1", "--format", "markdown", code=1).stdout
    assert markdown.startswith("### k8snetc:")


def test_what_is_refused(k8snetc: Console, manifests: Path) -> None:
    assert "--node" in k8snetc("apply", SHOP, "--backend", "iptables", code=2).stderr
    assert "--backend" in k8snetc("apply", SHOP, "--node", "worker-1", code=2).stderr
    assert "--from" in k8snetc("diff", SHOP, SHOP, SHOP, code=2).stderr
    assumed = k8snetc("apply", SHOP, *ON, "--assume-addresses", code=4).stderr
    assert "assumed" in assumed
    (manifests / "bad.yaml").write_text("kind: Service\n\tx: 1\n")
    assert "bad.yaml:2" in k8snetc("apply", manifests, *ON, code=2).stderr
    assert "ot a valid object name" in k8snetc("diff", "git:nope:x", SHOP, code=2).stderr
    assert k8snetc.cluster.run(W1, ["ls", "/run/k8snetc"], check=False).returncode != 0


def test_a_dry_run_changes_nothing(k8snetc: Console) -> None:
    assert "Connectivity:" in k8snetc("apply", SHOP, *ON, "--dry-run").stdout
    assert "K8SNETC" not in k8snetc.cluster.run(W1, ["iptables-save"]).stdout


def test_revisions_of_git(k8snetc: Console) -> None:
    """The same files at HEAD and in the folder compile to the same program, under their own names."""
    same = k8snetc("diff", f"git:HEAD:{SHOP.relative_to(ROOT)}", SHOP, "--node", "worker-1")
    assert same.stdout == "No changes.\n"


def test_golden_files(k8snetc: Console, manifests: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    words = ("--backend", "iptables", "--node", "worker-1", "--golden", golden)
    k8snetc("check", SHOP, *words, "--update")
    assert k8snetc("diff", SHOP, *words).stdout.endswith("No changes.\n")
    said = k8snetc("diff", manifests, *words, code=1).stdout
    assert "10.96.7.19" in said
    assert "files of golden output" in said


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_plan_after_a_killed_apply_is_for_what_ran_before(
    k8snetc: Console, manifests: Path, backend: str
) -> None:
    on = ("--backend", backend, "--node", "worker-1")
    k8snetc("apply", SHOP, *on)
    cluster = k8snetc.cluster
    kill = node.Kill(0, after=True) if backend == "nftables" else node.Kill(3)
    assert cluster.call(W1, node.install_and_die, backend, node.NEW, kill) == -9
    said = k8snetc("diff", SHOP, *on)
    assert "No changes." in said.stdout
    assert "is not undone yet" in said.stderr
    assert k8snetc("verify", code=1).stdout != ""  # the node as it is
    done = k8snetc("apply", manifests, *on)
    assert "will be undone first" in done.stderr
    assert "Applied and verified" in done.stdout
    k8snetc("verify")


def test_another_back_end_is_refused_before_anything_is_shown(k8snetc: Console) -> None:
    k8snetc("apply", SHOP, *ON)
    other = ("--backend", "nftables", "--node", "worker-1")
    for command in ("diff", "apply", "verify"):
        said = k8snetc(command, SHOP, *other, code=4).stderr
        assert "the iptables back end is installed on this node" in said
    k8snetc("remove", "--yes")
    for command in ("verify", "rollback"):
        assert "nothing is installed here" in k8snetc(command, code=4).stderr


def test_git_shows_what_is_committed_and_no_less(k8snetc: Console, manifests: Path) -> None:
    """Whatever `.gitattributes` says; links and submodules can't be compared, so they are refused."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(manifests), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    def diff(code: int) -> subprocess.CompletedProcess[str]:
        words = [str(PROGRAM), "diff", "git:HEAD:", ".", "--node", "worker-2"]
        done = subprocess.run(words, cwd=manifests, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    git("init", "-q")
    (manifests / ".gitattributes").write_text("policies.yaml export-ignore\nservices.yaml eol=crlf\n")
    git("add", ".")
    git("commit", "-qm", "one")
    assert diff(0).stdout == "No changes.\n"
    (manifests / "policies.yaml").unlink()
    assert "was git:HEAD:/policies.yaml:2 NetworkPolicy shop/db-from-cart" in diff(1).stdout
    (manifests / "link.yaml").symlink_to("services.yaml")
    git("add", ".")
    git("commit", "-qm", "two")
    assert "link.yaml is a link" in diff(2).stderr
