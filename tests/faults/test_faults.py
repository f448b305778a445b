"""What can go wrong around an apply, on the real kernel: refusals, locks, a full disk, strangers, old connections."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.apply.errors import LockedError, RolledBackError, StateError
from k8snetc.apply.store import open_store
from k8snetc.apply.transaction import apply
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.iptables.install import IptablesTarget
from k8snetc.backends.target import InstallOptions
from k8snetc.ir.types import Family, Program, Protocol
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.faults import node

pytestmark = pytest.mark.kernel
VARIANTS = pytest.mark.parametrize("variant", ["legacy", "nft"])


class Refusing(Tools):
    """iptables whose commit number `at` holds a rule that the real kernel refuses."""

    at = 0
    seen = -1

    def restore(self, family: Family, text: str) -> None:
        self.seen += 1
        if self.seen == self.at:
            text = text.replace("COMMIT", "-A K8SNETC-NOWHERE -j ACCEPT\nCOMMIT")
        super().restore(family, text)


def install_refused(variant: str, wanted: Program, at: int) -> str:
    """Apply with the refusal, and say what the error was."""
    grip = IptablesTarget(InstallOptions(iptables=variant, wait=2))
    tools = Refusing(InstallOptions(iptables=variant, wait=2))
    tools.at = at
    grip._tools = tools
    store = open_store(node.STATE)
    try:
        apply(grip, wanted, store)
    except RolledBackError as e:
        return str(e)
    finally:
        store.close()
    return ""


@VARIANTS
def test_a_commit_that_the_kernel_refuses_changes_nothing(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    before = cluster.call(node.W1, node.state, variant)
    for at in range(12):
        said = cluster.call(node.W1, install_refused, variant, node.NEW, at)
        assert "what ran before runs again" in said
        assert f"-{variant}-restore" in said
        assert cluster.call(node.W1, node.state, variant) == before, f"commit {at}"


def install_while_xtables_is_held(wanted: Program, seconds: float) -> str:
    """Apply with the legacy tools while a child holds the lock for that long, or until the apply has ended.

    Says what went wrong, "" if nothing.
    """
    reader, writer = os.pipe()
    waiting, ended = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ended)
        fd = os.open("/run/xtables.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(writer, b"held")
        select.select([waiting], [], [], seconds)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4) == b"held"
    try:
        node.install("legacy", wanted)
    except RolledBackError as e:
        return str(e)
    finally:
        os.close(ended)
        os.waitpid(pid, 0)
    return ""


def test_the_xtables_lock_is_waited_for(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, "legacy", node.OLD)
    assert cluster.call(node.W1, install_while_xtables_is_held, node.NEW, 1.0) == ""
    assert cluster.call(node.W1, node.desired_steps, "legacy", node.NEW) == 0


def test_the_xtables_lock_held_too_long_is_an_error_that_names_it(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, "legacy", node.OLD)
    said = cluster.call(node.W1, install_while_xtables_is_held, node.NEW, 60.0)
    assert "xtables lock" in said
    assert cluster.call(node.W1, node.desired_steps, "legacy", node.OLD) == 0


def install_on_small_disk(variant: str, wanted: Program, room: int) -> str:
    """Apply with a state directory that has only `room` bytes left."""
    with open(node.STATE / "filler", "wb") as filler:
        free = os.statvfs(node.STATE)
        filler.write(b"x" * max(0, free.f_bavail * free.f_frsize - room))
    try:
        node.install(variant, wanted)
    except (StateError, RolledBackError) as e:
        return type(e).__name__
    finally:
        os.unlink(node.STATE / "filler")
    return ""


def test_a_full_disk_changes_nothing(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    cluster.run(node.W1, ["mkdir", "-m", "700", str(node.STATE)])
    cluster.run(node.W1, ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(node.STATE)])
    try:
        cluster.call(node.W1, node.install, "nft", node.OLD)
        before = cluster.call(node.W1, node.state, "nft")
        kinds = set()
        for room in (0, 4096, 8192, 12288, 16384, 20480, 24576):
            kinds.add(cluster.call(node.W1, install_on_small_disk, "nft", node.NEW, room))
            if "" in kinds:
                break
            assert cluster.call(node.W1, node.state, "nft") == before
        # No room for the journal: nothing begun. Room for it but not for the receipt: put back. Room for all: done.
        assert kinds >= {"StateError", "RolledBackError"}
    finally:
        cluster.run(node.W1, ["umount", str(node.STATE)])


def install_at_once(variant: str, wait: float) -> str:
    """Apply while another process holds the node's lock for a second."""
    store = open_store(node.STATE)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with store.locked(0):
            os.write(writer, b"held")
            time.sleep(1)
        os._exit(0)
    assert os.read(reader, 4) == b"held"
    try:
        apply(node.target(variant), node.OLD, store, wait=wait)
    except LockedError as e:
        return str(e)
    finally:
        os.waitpid(pid, 0)
        store.close()
    return ""


def test_two_applies_at_once(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    assert "another k8snetc (process" in cluster.call(node.W1, install_at_once, "nft", 0)
    assert cluster.call(node.W1, install_at_once, "nft", 10) == ""
    assert cluster.call(node.W1, node.desired_steps, "nft", node.OLD) == 0


def changed(variant: str) -> list[str]:
    """What differs from `OLD`, in words."""
    grip = node.target(variant)
    return [f"{c.symbol} {c.where}" for c in grip.changes(grip.observe(), grip.desired(node.OLD))]


@VARIANTS
def test_drift_is_named_and_repaired(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    tool = f"iptables-{variant}"
    a_set = next(
        w for w in cluster.run(node.W1, ["ipset", "list", "-n"]).stdout.split() if w.startswith("K8SNETC-S")
    )
    member = cluster.run(node.W1, ["ipset", "save", a_set]).stdout.splitlines()[1].split()[2]
    meddling = (
        ([tool, "-t", "nat", "-D", "PREROUTING", "1"], "+ nat IPv4 PREROUTING"),
        ([tool, "-t", "nat", "-F", "K8SNETC-SERVICES"], "+ nat IPv4 K8SNETC-SERVICES"),
        (
            [tool, "-I", "K8SNETC-FORWARD", "1", "-s", "10.9.9.9", "-j", "ACCEPT"],
            "- filter IPv4 K8SNETC-FORWARD",
        ),
        ([f"ip6{tool[2:]}", "-D", "FORWARD", "1"], "+ filter IPv6 FORWARD"),
        (["ipset", "del", a_set, member], f"+ set {a_set}"),
        ([tool, "-N", "K8SNETC-STRAY"], "- filter IPv4 K8SNETC-STRAY"),
    )
    for command, named in meddling:
        cluster.run(node.W1, command)
        assert named in cluster.call(node.W1, changed, variant), command
        assert cluster.call(node.W1, node.install, variant, node.OLD).receipt is not None
        assert cluster.call(node.W1, changed, variant) == []


@VARIANTS
def test_foreign_rules_are_not_touched_and_named_when_first(shared_cluster: Cluster, variant: str) -> None:
    cluster = shared_cluster
    tool = f"iptables-{variant}"
    foreign = (
        [tool, "-t", "nat", "-N", "KUBE-SERVICES"],
        [tool, "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES"],
        [tool, "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"],
        ["ipset", "create", "theirs", "hash:ip"],
    )
    for command in foreign:
        cluster.run(node.W1, command)

    def theirs() -> list[str]:
        rules = cluster.run(node.W1, [f"{tool}-save"]).stdout.splitlines()
        return [x for x in rules if x.startswith("-A") and "K8SNETC" not in x]

    before = theirs()
    cluster.call(node.W1, node.install, variant, node.OLD)
    cluster.call(node.W1, node.install, variant, node.NEW)
    assert theirs() == before
    assert not [
        w for w in cluster.call(node.W1, lambda: node.target(variant).warnings()) if "comes before" in w
    ]
    cluster.run(node.W1, [tool, "-t", "nat", "-I", "PREROUTING", "1", "-j", "KUBE-SERVICES"])
    (warning,) = [
        w for w in cluster.call(node.W1, lambda: node.target(variant).warnings()) if "comes before" in w
    ]
    assert "nat IPv4 PREROUTING: kube-proxy's KUBE-SERVICES comes before our rules" in warning
    cluster.call(node.W1, node.uninstall, variant)
    assert "theirs" in cluster.run(node.W1, ["ipset", "list", "-n"]).stdout
    assert len(theirs()) == len(before) + 1


@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables"])
def test_connections_through_an_apply(shared_cluster: Cluster, variant: str) -> None:
    """UDP leaves an endpoint that is gone; what policy denies is cut, both ways, until it is allowed again."""
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.OLD)
    for family in Family:
        service = node.SERVICE[family]

        dns = cluster.flow(
            Probe(node.C, ip_address(node.POD[family]["a"]), Protocol.UDP, 5353), interval=0.05
        )
        moved = cluster.flow(Probe(node.A, ip_address(service % 3), Protocol.UDP, 53), interval=0.05)
        cut = cluster.flow(
            Probe("pod/back/d", ip_address(node.POD[family]["b"]), Protocol.TCP, 8080), interval=0.05
        )
        time.sleep(0.3)
        assert moved.report().servers == ("pod/shop/a",)
        assert cut.report().answered > 0
        cluster.call(node.W1, node.install, variant, node.NEW)
        time.sleep(0.4)
        answered = cut.report().answered
        time.sleep(0.4)
        assert cut.report().answered == answered, "policy denies the connection now"
        assert moved.report().servers[-1] == "pod/back/d"
        cluster.call(node.W1, node.install, variant, node.OLD)
        until = time.monotonic() + 20  # the client sends again after ever longer times
        while cut.report().answered == answered:
            assert time.monotonic() < until, "it is allowed again"
            time.sleep(0.1)
        assert dns.close().intact
        moved.close()
        cut.close()
    assert "mark=4096" not in cluster.run(node.W1, ["conntrack", "-L"]).stdout


SOMEBODY_TRACKS = (
    "table inet other { chain c { type filter hook forward priority 0; ct state new counter; }; }"
)


@pytest.mark.parametrize("variant", ["legacy", "nft", "nftables"])
def test_what_came_in_while_rules_were_gone_is_cut(shared_cluster: Cluster, variant: str) -> None:
    """The repair installs the program that was installed, and yet connections are open that it denies."""
    cluster = shared_cluster
    cluster.call(node.W1, node.install, variant, node.NEW)
    cluster.run(node.W1, ["nft", "-f", "-"], input=f"flush ruleset; {SOMEBODY_TRACKS}")
    if variant == "legacy":
        for tables in ("iptables-legacy", "ip6tables-legacy"):
            cluster.run(node.W1, [tables, "-F"])
    flows = [
        cluster.flow(
            Probe("pod/back/d", ip_address(node.POD[f]["b"]), Protocol.TCP, 8080, timeout=0.9), interval=0.05
        )
        for f in Family
    ]
    assert all(flow.opening.answered for flow in flows)
    cluster.call(node.W1, node.install, variant, node.NEW)
    time.sleep(0.3)
    answered = [flow.report().answered for flow in flows]
    time.sleep(0.4)
    assert [flow.report().answered for flow in flows] == answered
    for flow in flows:
        flow.close(patience=0.1)


def test_a_killed_parent_s_child_keeps_the_lock(tmp_path: Path) -> None:
    """The restore of a killed apply may still run: the next apply has to wait for it."""
    store = open_store(tmp_path / "state")
    pid = os.fork()
    if pid == 0:
        from k8snetc.backends.common.run import run

        with store.locked(0):
            subprocess.Popen(["sleep", "0.6"])  # closed descriptors: holds nothing
            done = tmp_path / "started"
            run(["sh", "-c", f"touch {done}; kill -9 {os.getpid()}; sleep 1"])
    os.waitpid(pid, 0)
    assert (tmp_path / "started").exists()
    with pytest.raises(LockedError), store.locked(0):
        pass
    with store.locked(5):
        pass
    store.close()
