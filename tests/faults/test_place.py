"""A rule of others that comes before ours and accepts: policy is void, the commands say so, an apply mends it."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest
from click.testing import CliRunner

from k8snetc.compiler.cli import cli
from k8snetc.ir.types import Family, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.faults import node
from tests.faults.test_faults import install_refused
from tests.support.repository import ROOT

pytestmark = pytest.mark.kernel
VARIANTS = pytest.mark.parametrize("variant", ["legacy", "nft"])


def command(*words: str) -> tuple[int, str]:
    """A command as a user gives it: exit code, and what it says on both streams."""
    done = CliRunner().invoke(cli, list(words), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.output


def denied(family: Family, port: int = 8081) -> Probe:
    pod = ip_address(node.POD[family]["b"])
    return Probe("pod/back/d", pod, Protocol.TCP, port, timeout=0.4)


def tools(family: Family, variant: str) -> str:
    return f"ip{'6' if family is Family.IPV6 else ''}tables-{variant}"


@VARIANTS
@pytest.mark.parametrize("family", Family)
def test_a_rule_before_ours_is_drift_and_is_overtaken(
    shared_cluster: Cluster, variant: str, family: Family
) -> None:
    """As the CNI plugin `firewall` does it: a chain of its own at the head, which accepts by the pods' addresses."""
    cluster = shared_cluster
    options = ("-b", "iptables", "--iptables", variant)

    def said(what: str, code: int) -> str:
        found, words = cluster.call(node.W1, command, what, *options)
        assert found == code, words
        return words

    cluster.call(node.W1, node.install, variant, node.OLD)
    said("verify", 0)
    tool = tools(family, variant)
    cluster.run(node.W1, [tool, "-N", "CNI-FORWARD"])
    cluster.run(node.W1, [tool, "-I", "FORWARD", "1", "-j", "CNI-FORWARD"])
    said("verify", 0)  # it is empty
    assert not cluster.probe_all([denied(family)])[0].answered
    cluster.run(node.W1, [tool, "-A", "CNI-FORWARD", "-d", node.POD[family]["b"], "-j", "ACCEPT"])
    cluster.run(node.W1, [tool, "-A", "CNI-FORWARD", "-s", node.POD[family]["b"], "-j", "ACCEPT"])
    with cluster.flow(denied(family), interval=0.05) as flow:
        assert flow.opening.answered, "this is what the rule does to policy"
        words = said("verify", 1)
        assert f"differs: filter IPv{family} FORWARD: `-j CNI-FORWARD` comes before our rules" in words
        assert "comes before our rules and may decide first" not in words, "it is said once"
        assert "differs in 1 place" in said("status", 1)
        outcome = cluster.call(node.W1, node.install, variant, node.OLD)
        assert outcome.steps == (f"filter (IPv{family}): put our rules first",)
        time.sleep(0.3)
        answered = flow.report().answered
        time.sleep(0.4)
        assert flow.report().answered == answered, "what came in meanwhile is cut"
        flow.close(patience=0.1)
    assert not cluster.probe_all([denied(family)])[0].answered
    assert all(r.answered for r in cluster.probe_all(node.allowed()))
    rules = cluster.run(node.W1, [tool, "-S", "FORWARD"]).stdout.splitlines()
    assert rules[1:] == ["-A FORWARD -j K8SNETC-FORWARD", "-A FORWARD -j CNI-FORWARD"]
    said("verify", 0)
    assert "as installed" in said("status", 0)
    assert cluster.call(node.W1, node.install, variant, node.OLD).receipt is None


@VARIANTS
def test_the_first_policy_comes_before_what_was_no_matter_until_then(
    shared_cluster: Cluster, variant: str
) -> None:
    """Without policy a rule that accepts stays where it is; the policy that comes is enforced from the first packet."""
    cluster = shared_cluster
    services = replace(node.OLD, enforcements=())
    cluster.call(node.W1, node.install, variant, services)
    for family in Family:
        cluster.run(node.W1, [tools(family, variant), "-I", "FORWARD", "1", "-j", "ACCEPT"])
    assert cluster.call(node.W1, node.install, variant, services).receipt is None
    assert all(r.answered for r in cluster.probe_all([denied(f) for f in Family]))
    cluster.call(node.W1, node.install, variant, node.OLD)
    assert not any(r.answered for r in cluster.probe_all([denied(f) for f in Family]))
    cluster.call(node.W1, node.uninstall, variant)
    rules = cluster.run(node.W1, [tools(Family.IPV4, variant), "-S", "FORWARD"]).stdout
    assert rules == "-P FORWARD ACCEPT\n-A FORWARD -j ACCEPT\n"


@VARIANTS
def test_a_change_that_fails_puts_back_what_ran_before_without_its_hole(
    shared_cluster: Cluster, variant: str
) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    whole = cluster.call(node.W1, node.state, variant)
    cluster.run(node.W1, [tools(Family.IPV4, variant), "-I", "FORWARD", "1", "-j", "ACCEPT"])
    assert cluster.call(node.W1, node.state, variant) != whole
    said = cluster.call(node.W1, install_refused, variant, node.NEW, 0)
    assert "what ran before runs again" in said
    assert cluster.call(node.W1, node.state, variant) == whole
    assert not cluster.probe_all([denied(Family.IPV4)])[0].answered


@VARIANTS
def test_rules_that_drop_keep_their_place(shared_cluster: Cluster, variant: str) -> None:
    """They make no hole, and an operator who blocks somebody in a hurry must not be overtaken."""
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    tool = tools(Family.IPV4, variant)
    a, b = (node.POD[Family.IPV4][pod] for pod in "ab")
    for rule in (["-s", a, "-d", b, "-j", "DROP"], ["-j", "LOG"], ["-m", "mark", "--mark", "1"]):
        cluster.run(node.W1, [tool, "-I", "FORWARD", "1", *rule])
    assert cluster.call(node.W1, node.install, variant, node.OLD).receipt is None
    assert not cluster.probe("pod/shop/a", ip_address(b), 8080, timeout=0.4).answered
    (warning,) = (w for w in cluster.call(node.W1, lambda: node.target(variant).warnings()) if "FORWARD" in w)
    assert f"`-s {a}/32 -d {b}/32 -j DROP` comes before our rules and may decide first" in warning


@VARIANTS
def test_the_plan_says_it(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    shop = str(ROOT / "examples" / "web-shop" / "manifests")
    options = ("-b", "iptables", "--iptables", variant, "--node", "worker-2")

    def said(what: str, code: int, *more: str) -> str:
        found, words = cluster.call(node.W1, command, what, shop, *options, *more)
        assert found == code, words
        return words

    said("apply", 0, "--yes")
    cluster.run(
        node.W1, [tools(Family.IPV4, variant), "-I", "FORWARD", "-s", "10.244.1.0/24", "-j", "ACCEPT"]
    )
    place = (
        "  ~ filter IPv4 FORWARD: `-s 10.244.1.0/24 -j ACCEPT` comes before our rules, which have to be first: "
        "network policy never judges what it lets past\n"
    )
    assert said("diff", 1) == (
        f"Drift: the node differs from what was installed last\n{place}\n"
        f"Rules (iptables):\n{place}\n"
        "Legend: ~ changed\n"
        "No connectivity changes but what the drift did; 1 change of rules and sets in 1 step.\n"
    )
    said("apply", 0, "--yes")
    assert said("diff", 0) == "No changes.\n"
