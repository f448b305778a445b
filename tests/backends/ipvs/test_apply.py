"""Applying IPVS programs to a real kernel: nothing left half-way, nothing lost, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from k8snetc.apply.store import open_store
from k8snetc.apply.transaction import Silent, apply, recover, remove
from k8snetc.backends.ipvs.emit import emit
from k8snetc.backends.ipvs.install import IpvsTarget
from k8snetc.backends.ipvs.lower import lower
from k8snetc.backends.target import InstallError, InstallOptions, Step
from k8snetc.compiler.cli import cli
from k8snetc.ir.types import (
    Affinity,
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    Frontend,
    Node,
    Program,
    Protocol,
    Route,
    Who,
)
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Probe
from tests.faults import node
from tests.support.repository import ROOT

pytestmark = pytest.mark.vm(machine="ipvs")

VIP = ip_address("10.96.0.1")
UDP_VIP = ip_address("10.96.0.2")
OPTIONS = InstallOptions(iptables="legacy")
APPLIES = 200
"""Applies under traffic."""


def program(*pods: str, scheduler: str = "", affinity: int = 0, more: bool = False) -> Program:
    """A TCP and a UDP service and a NodePort with those endpoints; `more`: another service beside."""
    node = Node("w1", (Family.IPV4,), (ip_address("172.18.0.1"),))
    memory = Affinity("web", affinity) if affinity else None
    web = Balancer(
        "web",
        Family.IPV4,
        Protocol.TCP,
        tuple(Endpoint(ip_address(p), 8080) for p in pods),
        memory,
        scheduler,
    )
    dns = Balancer("dns", Family.IPV4, Protocol.UDP, tuple(Endpoint(ip_address(p), 5353) for p in pods))
    frontends = [
        _frontend(Exposure.CLUSTER_IP, "10.96.0.1", Protocol.TCP, 80, "web"),
        _frontend(Exposure.CLUSTER_IP, "10.96.0.2", Protocol.UDP, 53, "dns"),
        _frontend(Exposure.NODE_PORT, "", Protocol.TCP, 30080, "web"),
    ]
    if more:
        frontends.append(_frontend(Exposure.LOAD_BALANCER, "192.0.2.7", Protocol.TCP, 443, "web"))
    return Program(node, (web, dns), tuple(frontends))


def _frontend(exposure: Exposure, address: str, protocol: Protocol, port: int, balancer: str) -> Frontend:
    to = ip_address(address) if address else None
    family = Family(to.version) if to else Family.IPV4
    return Frontend(
        exposure, family, to, protocol, port, (Route(Who.ANY, Balance(balancer, masquerade=True)),)
    )


PATIENCE = 10.0
"""Seconds for a probe: an emulated processor has much to do."""
A, B, C = "10.244.1.2", "10.244.1.3", "10.244.2.2"
ONE, OTHER = program(A, B), program(B, C, more=True)


class Kill(Silent):
    """Dies at once before a step."""

    def __init__(self, at: int) -> None:
        self._at = at

    def began(self, at: int, total: int, step: Step) -> None:
        if at == self._at:
            os._exit(9)


# Each of these runs in the node, in a child process of its own.


def _apply(state: Path, wanted: Program, kill: int | None = None) -> tuple[str, ...]:
    target, store = IpvsTarget(OPTIONS), open_store(state)
    outcome = apply(target, wanted, store, watch=Silent() if kill is None else Kill(kill))
    return outcome.steps


def _alternate(state: Path, programs: Sequence[Program], times: int) -> list[tuple[str, ...]]:
    """The programs in turn, so many times; what each apply did. One child for all: a fork costs an apply's third."""
    return [_apply(state, programs[number % len(programs)]) for number in range(times)]


def _killed(state: Path, wanted: Program, at: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            _apply(state, wanted, at)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _recover(state: Path, expected: Program) -> list[str]:
    target, store = IpvsTarget(OPTIONS), open_store(state)
    with store.locked(5):
        assert recover(target, store, Silent())
    goal = target.grounded(target.desired(expected), target.empty())
    return [f"{c.symbol} {c.where} {c.removed} {c.added}" for c in target.changes(target.observe(), goal)]


def _seen() -> bytes:
    target = IpvsTarget(OPTIONS)
    return target.dump(target.observe())


def _remove(state: Path) -> None:
    remove(IpvsTarget(OPTIONS), open_store(state))


def _broken_and_repaired(state: Path, commands: Sequence[Sequence[str]]) -> None:
    """Each command makes a difference to what is seen, and the next apply undoes it."""
    whole = _seen()
    for command in commands:
        subprocess.run(command, check=True)
        assert _seen() != whole, command
        assert _apply(state, ONE), command
        assert _seen() == whole, command


def _k8snetc(*words: str) -> tuple[int, str]:
    """A command as a user gives it: exit code, and what it says on both streams."""
    done = CliRunner().invoke(cli, list(words), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.output


def _named_and_mended(state: Path, wanted: Program) -> tuple[str, tuple[str, ...], int]:
    """What `verify` says of a node that differs, what an apply then does, and how `verify` ends after it."""
    options = ("verify", "-b", "ipvs", "--iptables", "legacy", "--state-dir", str(state))
    code, said = _k8snetc(*options)
    assert code == 1, said
    return said, _apply(state, wanted), _k8snetc(*options)[0]


def _tracked(cluster: Cluster) -> bool:
    """Whether IPVS knows of any connection on w1."""
    table = cluster.call("node/w1", Path("/proc/net/ip_vs_conn").read_text, "ascii")
    return len(table.splitlines()) > 1


def _leaving() -> dict[str, dict[str, int]]:
    return {k: dict(v) for k, v in IpvsTarget(OPTIONS).observe().leaving.items()}


def test_apply_and_remove_leave_the_node_as_it_was(shared_cluster: Cluster, tmp_path: Path) -> None:
    before = shared_cluster.call("node/w1", _seen)
    shared_cluster.call("node/w1", _apply, tmp_path / "state", ONE)
    assert shared_cluster.probe("pod/shop/a", VIP, 80, timeout=PATIENCE).answered
    assert shared_cluster.call("node/w1", _apply, tmp_path / "state", ONE) == ()
    shared_cluster.call("node/w1", _remove, tmp_path / "state")
    assert shared_cluster.call("node/w1", _seen) == before


@pytest.mark.timeout(900)
def test_killed_at_any_step_the_next_call_undoes(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shared_cluster.call("node/w1", _apply, state, ONE)
    for at in range(40):
        status = shared_cluster.call("node/w1", _killed, state, OTHER, at)
        if status == 0:
            break
        assert status == 9
        left = shared_cluster.call("node/w1", _recover, state, ONE)
        assert not left, f"killed at step {at}: {left}"
        assert shared_cluster.probe("pod/shop/a", VIP, 80, timeout=PATIENCE).answered
    else:
        pytest.fail("more steps than there can be")
    assert at >= 3, "a change of this size has more steps"


@pytest.mark.timeout(1200)
def test_no_connection_fails_while_programs_alternate(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shared_cluster.call("node/w1", _apply, state, ONE)
    probe = Probe("pod/shop/a", VIP, Protocol.TCP, 80, timeout=20)
    outside = Probe("client/out", ip_address("172.18.0.1"), Protocol.TCP, 30080, timeout=20)
    with shared_cluster.traffic(probe, rate=5) as inside, shared_cluster.traffic(outside, rate=5) as ports:
        did = shared_cluster.call("node/w1", _alternate, state, (OTHER, ONE), APPLIES)
        reports = inside.stop(), ports.stop()
    assert len(did) == APPLIES
    assert all(did)
    for report in reports:
        assert report.started > APPLIES
        assert not report.failures, report


def test_open_connections_survive_and_servers_leave_gracefully(
    shared_cluster: Cluster, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shared_cluster.call("node/w1", _apply, state, program(A))
    with shared_cluster.flow(
        Probe("pod/shop/b", VIP, Protocol.TCP, 80, timeout=PATIENCE), interval=0.2
    ) as flow:
        shared_cluster.call("node/w1", _apply, state, program(B, C))
        leaving = shared_cluster.call("node/w1", _leaving)
        assert leaving["-t 10.96.0.1:80"][f"{A}:8080"] == 1
        report = flow.close(10.0)
    assert report.intact, report
    assert shared_cluster.probe("pod/shop/a", VIP, 80, timeout=PATIENCE).server != "pod/shop/a"
    # It is no difference, comes back with the connections that it has, and is not taken for new.
    shared_cluster.call("node/w1", _apply, state, program(A, B, C))
    assert not shared_cluster.call("node/w1", _leaving).get("-t 10.96.0.1:80")


def test_what_has_left_is_collected_when_its_connections_end(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def gc(*words: str, backend: str = "ipvs") -> tuple[int, str]:
        options = ("-b", backend, "--state-dir", str(state))
        return shared_cluster.call("node/w1", _k8snetc, "gc", *options, *words)

    assert gc() == (0, "Nothing to collect: nothing of k8snetc is installed.\n")
    shared_cluster.call("node/w1", _apply, state, program(A))
    assert gc() == (0, "Collected: 0 endpoints without connections; 0 still have some.\n")
    with shared_cluster.flow(
        Probe("pod/shop/b", VIP, Protocol.TCP, 80, timeout=PATIENCE), interval=0.2
    ) as flow:
        shared_cluster.call("node/w1", _apply, state, program(B))
        # The NodePort's service has no connection: it is collected at once.
        assert gc("--dry-run") == (1, "To collect: 1 endpoints without connections; 1 still have some.\n")
        assert gc() == (1, "Collected: 1 endpoints without connections; 1 still have some.\n")
        assert flow.report().ended is None
        # Reset: IPVS remembers that for ten seconds, and an orderly end for two minutes.
        shared_cluster.run("pod/shop/b", ["ss", "--kill", "dst", str(VIP)])
    until = time.monotonic() + 150
    while _tracked(shared_cluster) and time.monotonic() < until:
        time.sleep(0.5)
    assert gc() == (0, "Collected: 1 endpoints without connections; 0 still have some.\n")
    assert shared_cluster.call("node/w1", _leaving) == {}
    assert gc("-q") == (0, "")
    assert gc(backend="iptables") == (0, "Nothing to collect: iptables leaves nothing behind.\n")


def test_a_udp_server_leaves_at_once(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shared_cluster.call("node/w1", _apply, state, program(A))
    with shared_cluster.flow(
        Probe("pod/shop/b", UDP_VIP, Protocol.UDP, 53, timeout=PATIENCE), interval=0.2
    ) as flow:
        shared_cluster.call("node/w1", _apply, state, program(C))
        report = flow.close(10.0)
    assert report.servers == ("pod/shop/a", "pod/shop/c"), report


def test_what_somebody_broke_is_repaired(shared_cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shared_cluster.call("node/w1", _apply, state, ONE)
    commands = (
        ["ipvsadm", "-C"],
        ["ip", "link", "delete", "k8snetc0"],
        ["ipvsadm", "-d", "-t", "10.96.0.1:80", "-r", f"{A}:8080"],
        ["iptables-legacy", "-t", "mangle", "-F", "K8SNETC-PREROUTING"],
        ["sysctl", "-qw", "net.ipv4.vs.conntrack=0"],
        ["ipvsadm", "-A", "-t", "10.96.0.99:80"],
    )
    shared_cluster.call("node/w1", _broken_and_repaired, state, commands)


def test_rules_of_others_that_let_packets_past_policy_are_overtaken(
    shared_cluster: Cluster, tmp_path: Path
) -> None:
    """What IPVS sends on for others is judged in OUTPUT: there, too, an ACCEPT before our rules makes policy void."""
    state = tmp_path / "state"
    service, tool = ip_address(node.SERVICE[Family.IPV4] % 2), "iptables-legacy"

    def passes() -> bool:
        return shared_cluster.probe("pod/shop/a", service, 80, timeout=PATIENCE if opened else 2).answered

    opened = False
    one = replace(
        node.OTHER,  # whose second service has an endpoint that lets in nobody there
        node=replace(node.OTHER.node, families=(Family.IPV4,)),
        balancers=tuple(b for b in node.OTHER.balancers if b.family is Family.IPV4),
        frontends=tuple(f for f in node.OTHER.frontends if f.family is Family.IPV4),
        sets=tuple(s for s in node.OTHER.sets if s.family is Family.IPV4),
        enforcements=tuple(e for e in node.OTHER.enforcements if e.family is Family.IPV4),
    )
    shared_cluster.call("node/w1", _apply, state, one)
    assert not passes()
    for chain in ("OUTPUT", "FORWARD"):
        shared_cluster.run("node/w1", [tool, "-I", chain, "1", "-p", "tcp", "-j", "ACCEPT"])
    opened = True
    assert passes()
    said, steps, after = shared_cluster.call("node/w1", _named_and_mended, state, one)
    for chain in ("OUTPUT", "FORWARD"):
        assert f"differs: filter IPv4 {chain}: `-p tcp -j ACCEPT` comes before our rules" in said
    assert steps == ("filter (IPv4): put our rules first",)
    assert after == 0
    opened = False
    assert not passes()


def test_the_commands_of_a_node(shared_cluster: Cluster, tmp_path: Path) -> None:
    manifests = str(ROOT / "examples/web-shop/manifests")
    place = ("-b", "ipvs", "--iptables", "legacy", "--state-dir", str(tmp_path / "state"))

    def run(command: str, *words: str, code: int = 0) -> str:
        found, said = shared_cluster.call("node/w1", _k8snetc, command, *words, *place)
        assert found == code, said
        return said

    shared_cluster.sysctl("node/w1", "net/ipv4/vs/conntrack", "0")  # as nobody has it who has no IPVS yet
    before = shared_cluster.call("node/w1", _seen)
    plan = run("diff", manifests, "--node", "worker-1", "--full", code=1)
    assert "setting net.ipv4.vs.conntrack" in plan
    assert "addresses of k8snetc0" in plan
    assert "Applied and verified" in run("apply", manifests, "--node", "worker-1", "--yes")
    assert "No changes." in run("diff", manifests, "--node", "worker-1")
    run("verify")
    assert "ipvs" in run("status")
    shared_cluster.run("node/w1", ["ipvsadm", "-d", "-t", "10.96.7.7:80", "-r", "10.244.1.10:8080"])
    assert "10.244.1.10:8080" in run("verify", code=1)
    other = ("--cluster-cidr", "10.0.0.0/8", "--ipvs-scheduler", "wlc")
    run("apply", manifests, "--node", "worker-1", "--yes", *other)
    assert "-s wlc" in shared_cluster.run("node/w1", ["ipvsadm", "-Sn"]).stdout
    run("rollback", "--yes")
    assert "No changes." in run("diff", manifests, "--node", "worker-1")
    assert "-s wlc" not in shared_cluster.run("node/w1", ["ipvsadm", "-Sn"]).stdout
    run("remove", "--yes")
    assert shared_cluster.call("node/w1", _seen) == before


def test_a_missing_scheduler_is_named_before_anything_changes(
    shared_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from k8snetc.backends.ipvs import install

    monkeypatch.setattr(install, "_available", lambda module: module != "ip_vs_mh")
    before = shared_cluster.call("node/w1", _seen)
    with pytest.raises(InstallError, match="lacks ip_vs_mh"):
        shared_cluster.call("node/w1", _apply, tmp_path / "state", program(A, affinity=60))
    assert shared_cluster.call("node/w1", _seen) == before


SCHEDULERS = (
    "rr",
    "wrr",
    "lc",
    "wlc",
    "lblc",
    "lblcr",
    "dh",
    "sh:sh-port,sh-fallback",
    "sed",
    "nq",
    "mh:mh-port",
    "fo",
    "ovf",
)


def test_every_scheduler_serves(shared_cluster: Cluster, tmp_path: Path) -> None:
    """Each with a service of its own, with and without affinity, in one program."""
    base = program(A, B)
    balancers, frontends = [], []
    for number, (scheduler, seconds) in enumerate(product(SCHEDULERS, (0, 60))):
        name = f"{scheduler} {seconds}"
        memory = Affinity(name, seconds) if seconds else None
        balancers.append(replace(base.balancers[0], name=name, affinity=memory, scheduler=scheduler))
        frontends.append(_frontend(Exposure.CLUSTER_IP, str(VIP), Protocol.TCP, 1000 + number, name))
    wanted = replace(base, balancers=tuple(balancers), frontends=tuple(frontends))
    shared_cluster.call("node/w1", _apply, tmp_path / "state", wanted)
    probes = [
        Probe("client/out", VIP, Protocol.TCP, f.port, timeout=PATIENCE) for f in frontends for _ in range(3)
    ]
    results = shared_cluster.probe_all(probes)
    failed = [f"{p}: {r}" for p, r in zip(probes, results, strict=True) if not r.answered]
    assert not failed, failed


@pytest.mark.parametrize("method", ["direct", "tunnel"])
def test_forwarding_without_translation(shared_cluster: Cluster, tmp_path: Path, method: str) -> None:
    """What `real-servers.txt` says is done in the pod, and then the client's own address arrives there."""
    ends = {Family.IPV4: ("192.0.2.9", A), Family.IPV6: ("2001:db8:9::9", "fd44:1::2")}
    node = Node("w1", tuple(ends), (ip_address("172.18.0.1"), ip_address("fd18::1")))
    balancers = tuple(
        Balancer(f"web {f}", f, Protocol.TCP, (Endpoint(ip_address(pod), 8080),), forwarding=method)
        for f, (_, pod) in ends.items()
    )
    frontends = tuple(
        _frontend(Exposure.EXTERNAL_IP, vip, Protocol.TCP, 8080, f"web {f}") for f, (vip, _) in ends.items()
    )
    wanted = Program(node, balancers, frontends)
    texts = {a.name: a.text for a in emit(lower(wanted))}
    commands = [line for line in texts["real-servers.txt"].splitlines() if not line.startswith("#")]
    shared_cluster.call("node/w1", _apply, tmp_path / "state", wanted)
    before = shared_cluster.run("pod/shop/a", ["sysctl", *SETTINGS]).stdout.replace(" = ", "=").split()
    shared_cluster.run("pod/shop/a", ["sh", "-ec", "\n".join(commands)])
    try:
        for vip, own in (("192.0.2.9", "203.0.113.9"), ("2001:db8:9::9", "2001:db8::9")):
            result = shared_cluster.probe("client/out", ip_address(vip), 8080, timeout=PATIENCE)
            assert result.server == "pod/shop/a", f"{vip}: {result}"
            assert result.source is not None
            assert result.source.address == ip_address(own), "the client's own address arrives"
    finally:
        undo = [
            c.replace(" replace ", " delete ").replace(" nodad", "") for c in commands if " replace " in c
        ]
        undo += [f"ip link set {d} down" for d in ("tunl0", "ip6tnl0") if method == "tunnel"]
        shared_cluster.run("pod/shop/a", ["sh", "-ec", "\n".join([*undo, f"sysctl -qw {' '.join(before)}"])])


SETTINGS = tuple(f"net.ipv4.conf.all.{n}" for n in ("arp_ignore", "arp_announce", "rp_filter"))
