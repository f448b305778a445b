"""The lab on the real kernel: without rules everybody reaches everybody, and probes tell what rules do."""

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from k8snetc.ir.types import Family, Protocol
from k8snetc.lab import names
from k8snetc.lab.cluster import Cluster, clean_leftovers
from k8snetc.lab.handle import LabError
from k8snetc.lab.probe import Outcome, Probe
from k8snetc.lab.topology import Port, Topology
from tests.support.lab import SCTP, TCP, UDP, pod, small

pytestmark = pytest.mark.kernel

PORT = {TCP: 8080, UDP: 5353, SCTP: 9999}
CLIENTS = ("pod/shop/a", "pod/shop/c", "pod/shop/h", "node/w1", "node/w2", "client/out")
SERVERS = ("pod/shop/a", "pod/shop/b", "pod/shop/c", "pod/back/d")


PATIENCE = 0.9
"""Seconds for what has to be answered on a busy machine; below a second, for TCP sends a lost SYN again after that."""


def address(cluster: Cluster, place: str, family: Family = Family.IPV4) -> str:
    found = cluster.topology.address(place, family)
    assert found is not None
    return str(found)


def test_everybody_reaches_every_pod_and_is_seen_with_its_address(shared_cluster: Cluster) -> None:
    topology = shared_cluster.topology
    probes, expected = [], []
    for who, server, family, protocol in product(CLIENTS, SERVERS, Family, Protocol):
        destination = topology.address(server, family)
        assert destination is not None
        probes.append(Probe(who, destination, protocol, PORT[protocol], timeout=PATIENCE))
        expected.append((server, destination, PORT[protocol], topology.address(who, family)))
    seen = []
    for probe, result in zip(probes, shared_cluster.probe_all(probes), strict=True):
        assert result.endpoint is not None, f"{probe}: {result}"
        assert result.source is not None
        seen.append((result.server, *result.endpoint, result.source.address))
    assert seen == expected


@pytest.mark.parametrize("family", Family)
def test_closed_ports_are_refused_in_every_protocol(shared_cluster: Cluster, family: Family) -> None:
    for who, protocol in product(CLIENTS, Protocol):
        there = address(shared_cluster, "pod/shop/b", family)
        result = shared_cluster.probe(who, there, 1, protocol.value, timeout=PATIENCE)
        assert result.outcome is Outcome.REFUSED, f"{who} {protocol}: {result}"


@pytest.mark.parametrize("family", Family)
def test_ping(shared_cluster: Cluster, family: Family) -> None:
    for who in CLIENTS:
        assert shared_cluster.probe(
            who, address(shared_cluster, "pod/shop/c", family), protocol=None
        ).answered


def test_host_network_pods_serve_on_their_node_under_their_own_name(shared_cluster: Cluster) -> None:
    for who, (port, protocol) in product(CLIENTS, ((7070, "tcp"), (7071, "udp"))):
        result = shared_cluster.probe(who, "172.18.0.2", port, protocol, timeout=PATIENCE)
        assert (result.server, result.outcome) == ("pod/shop/h", Outcome.ANSWERED), f"{who}: {result}"
    assert shared_cluster.probe("client/out", "172.18.0.1", 10250).server == "node/w1"


def test_pods_reach_the_outside_with_their_own_address(shared_cluster: Cluster) -> None:
    result = shared_cluster.probe("pod/shop/a", "203.0.113.9", 8080)
    assert (result.server, result.source and str(result.source.address)) == ("client/out", "10.244.1.2")


def test_source_address_and_port_are_as_asked(shared_cluster: Cluster) -> None:
    for protocol in Protocol:
        result = shared_cluster.probe(
            "client/out",
            "10.244.1.2",
            PORT[protocol],
            protocol,
            source="198.51.100.9",
            source_port=4242,
            timeout=PATIENCE,
        )
        assert result.source is not None, str(result)
        assert (str(result.source.address), result.source.port) == ("198.51.100.9", 4242)


def test_a_source_port_can_be_used_again_at_once(shared_cluster: Cluster) -> None:
    for _ in range(5):
        assert shared_cluster.probe("pod/shop/a", "10.244.2.2", 8080, source_port=5555).answered


def test_addresses_of_nobody_are_silent(shared_cluster: Cluster) -> None:
    probes = [
        Probe(who, ip, protocol, 80)
        for who in CLIENTS
        for protocol in Protocol
        for ip in (pod("x", 1, 200).addresses + pod("x", 3, 200).addresses)
    ]
    outcomes = {r.outcome for r in shared_cluster.probe_all(probes)}
    # A node asks its neighbours for an unknown pod of its own; nobody answers, which is silence too.
    assert outcomes == {Outcome.TIMEOUT}


@pytest.mark.parametrize("iptables", ["iptables-legacy", "iptables-nft"])
@pytest.mark.parametrize("protocol", Protocol)
def test_dropped_is_a_timeout_and_rejected_is_refused(
    shared_cluster: Cluster, iptables: str, protocol: Protocol
) -> None:
    run, port = shared_cluster.run, PORT[protocol]
    for family, tables in (
        (Family.IPV4, iptables),
        (Family.IPV6, iptables.replace("ip", "ip6", 1)),
    ):
        there = address(shared_cluster, "pod/shop/c", family)
        match = ["-p", protocol.value, "--dport", str(port)]
        for chain, who in (("FORWARD", "pod/shop/a"), ("OUTPUT", "node/w1")):
            for target, outcome in (("DROP", Outcome.TIMEOUT), ("REJECT", Outcome.REFUSED)):
                run("node/w1", [tables, "-I", chain, *match, "-j", target])
                result = shared_cluster.probe(who, there, port, protocol)
                assert result.outcome is outcome, f"{tables} {chain} {target}: {result}"
                run("node/w1", [tables, "-D", chain, *match, "-j", target])
                assert shared_cluster.probe(who, there, port, protocol, timeout=PATIENCE).answered


def test_admin_prohibited_is_unreachable(shared_cluster: Cluster) -> None:
    for tables, code in (("iptables", "icmp-host-prohibited"), ("ip6tables", "icmp6-adm-prohibited")):
        shared_cluster.run("node/w1", [tables, "-A", "FORWARD", "-j", "REJECT", "--reject-with", code])
    for family, protocol in product(Family, (TCP, SCTP)):
        result = shared_cluster.probe(
            "pod/shop/a", address(shared_cluster, "pod/shop/c", family), PORT[protocol], protocol
        )
        assert result.outcome is Outcome.UNREACHABLE, f"{family} {protocol}: {result}"


NAT = """
table inet t {
  chain pre { type nat hook prerouting priority dstnat
    ip daddr 10.96.0.1 tcp dport 80 dnat to 10.244.2.2:8080
    ip daddr 10.96.0.1 udp dport 53 dnat to 10.244.2.2:5353
    ip daddr 10.96.0.1 sctp dport 99 dnat to 10.244.2.2:9999
    ip6 daddr fd96::1 tcp dport 80 dnat to [fd44:2::2]:8080
    ip6 daddr fd96::1 udp dport 53 dnat to [fd44:2::2]:5353
    ip6 daddr fd96::1 sctp dport 99 dnat to [fd44:2::2]:9999
  }
  chain post { type nat hook postrouting priority srcnat
    ip saddr 203.0.113.0/24 masquerade
    ip6 saddr 2001:db8::/32 masquerade
  }
}"""


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 80), (UDP, 53), (SCTP, 99)])
@pytest.mark.parametrize(("service", "family"), [("10.96.0.1", Family.IPV4), ("fd96::1", Family.IPV6)])
def test_translation_is_seen_by_the_server(
    shared_cluster: Cluster, protocol: Protocol, port: int, service: str, family: Family
) -> None:
    shared_cluster.run("node/w1", ["nft", "-f", "-"], input=NAT)
    for who, source in (("pod/shop/a", "pod/shop/a"), ("client/out", "node/w1")):
        result = shared_cluster.probe(who, service, port, protocol, timeout=PATIENCE)
        assert result.server == "pod/shop/c", f"{who}: {result}"
        assert result.source is not None
        assert result.endpoint is not None
        assert str(result.source.address) == address(shared_cluster, source, family)
        assert str(result.endpoint.address) == address(shared_cluster, "pod/shop/c", family)


def test_a_service_address_without_rules_is_silent(shared_cluster: Cluster) -> None:
    for who, ip in product(CLIENTS, ("10.96.0.1", "fd96::1")):
        assert shared_cluster.probe(who, ip, 80).outcome is Outcome.TIMEOUT


def test_listen_and_unlisten(shared_cluster: Cluster) -> None:
    for protocol, family in product(Protocol, Family):
        there = address(shared_cluster, "pod/shop/b", family)
        shared_cluster.listen("pod/shop/b", Port(protocol, 1234))
        result = shared_cluster.probe("pod/shop/a", there, 1234, protocol, timeout=PATIENCE)
        assert result.server == "pod/shop/b"
        shared_cluster.unlisten("pod/shop/b", Port(protocol, 1234))
        result = shared_cluster.probe("pod/shop/a", there, 1234, protocol, timeout=PATIENCE)
        assert result.outcome is Outcome.REFUSED


def test_thousands_of_probes_at_once(shared_cluster: Cluster) -> None:
    there = pod("c", 2, 2).addresses
    probes = [Probe("pod/shop/a", there[n % 2], TCP, 8080 if n % 3 else 1) for n in range(3000)]
    results = shared_cluster.probe_all(probes)
    assert [r.outcome for r in results] == [
        Outcome.ANSWERED if n % 3 else Outcome.REFUSED for n in range(3000)
    ]


def _count(number: int) -> tuple[str, int, bool]:
    Path("/run/here").write_text("x")
    return os.readlink("/proc/self/ns/net"), number + 1, Path("/sys/class/net/pod0").exists()


def _fail() -> None:
    raise KeyError("mine")


def test_call_runs_a_function_inside_a_node(shared_cluster: Cluster) -> None:
    net, number, sees_devices = shared_cluster.call("node/w1", _count, 41)
    assert number == 42
    assert sees_devices
    assert net != os.readlink("/proc/self/ns/net")
    assert not Path("/run/here").exists(), "the node has a /run of its own"
    assert shared_cluster.node_path("w1", "/run/here").read_text() == "x"
    assert not shared_cluster.node_path("w2", "/run/here").exists()
    with pytest.raises(KeyError, match="mine"):
        shared_cluster.call("node/w1", _fail)


def test_run_keeps_the_working_directory_and_tells_failures(
    shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_cluster.run("node/w1", ["pwd"]).stdout.strip() == str(tmp_path)
    assert shared_cluster.run("pod/shop/a", ["cat"], input="x; rm -rf $HOME").stdout == "x; rm -rf $HOME"
    with pytest.raises(LabError, match="No such file"):
        shared_cluster.run("node/w1", ["ls", "/nothing-here"])


def test_what_the_network_refuses_is_told_in_words(shared_cluster: Cluster) -> None:
    with pytest.raises(LabError, match=r"failed: \[Errno 19\] No such device$"):
        shared_cluster.capture("pod/shop/a", "nothing")


def test_the_xtables_lock_of_a_node_is_its_own(shared_cluster: Cluster) -> None:
    holder = shared_cluster.popen("node/w1", ["flock", "--no-fork", "/run/xtables.lock", "sleep", "30"])
    try:
        deadline = time.monotonic() + 10
        while not shared_cluster.node_path("w1", "/run/xtables.lock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        command = ["iptables-legacy", "-w", "1", "-N", "X"]
        refused = shared_cluster.run("node/w1", command, check=False)
        assert refused.returncode == 4, refused.stderr
        assert shared_cluster.run("node/w2", command).returncode == 0
    finally:
        holder.kill()
        holder.communicate()


def test_bpf_pins_of_a_node_are_its_own(shared_cluster: Cluster) -> None:
    shared_cluster.run("node/w1", ["mkdir", "/sys/fs/bpf/mine"])
    assert "mine" in shared_cluster.run("node/w1", ["ls", "/sys/fs/bpf"]).stdout
    assert "mine" not in shared_cluster.run("node/w2", ["ls", "/sys/fs/bpf"]).stdout
    assert not Path("/sys/fs/bpf/mine").exists()


def test_ip_netns_exec_works_for_users(shared_cluster: Cluster) -> None:
    name = shared_cluster.netns("pod/shop/a")
    done = subprocess.run(
        ["ip", "netns", "exec", name, "ip", "-br", "address"], capture_output=True, text=True
    )
    assert "10.244.1.2/32" in done.stdout, done.stderr


def test_reset_leaves_nothing(shared_cluster: Cluster) -> None:
    run = shared_cluster.run
    for command in (
        "iptables-legacy -t nat -N X",
        "ip6tables-legacy -P FORWARD DROP",
        "iptables-nft -A FORWARD -j DROP",
        "ipset create s hash:ip",
        "tc qdisc add dev pod0 clsact",
        "mkdir -p /run/k8snetc/x /sys/fs/bpf/k8snetc",
    ):
        run("node/w1", command.split())
    shared_cluster.probe("pod/shop/a", "10.244.2.2", 8080)
    shared_cluster.reset("w1")
    assert "X" not in run("node/w1", ["iptables-legacy", "-t", "nat", "-S"]).stdout
    assert "-P FORWARD ACCEPT" in run("node/w1", ["ip6tables-legacy", "-S"]).stdout
    assert run("node/w1", ["nft", "list", "ruleset"]).stdout == ""
    assert run("node/w1", ["ipset", "list"]).stdout == ""
    assert run("node/w1", ["conntrack", "-L"]).stdout == ""
    assert "clsact" not in run("node/w1", ["tc", "qdisc", "show"]).stdout
    assert not shared_cluster.node_path("w1", "/run/k8snetc").exists()
    assert "k8snetc" not in shared_cluster.run("node/w1", ["ls", "/sys/fs/bpf"]).stdout


def test_two_labs_with_the_same_addresses_do_not_meet() -> None:
    with Cluster(small()) as one, Cluster(small()) as other:
        one.run("node/w1", ["iptables", "-A", "FORWARD", "-j", "DROP"])
        assert one.probe("pod/shop/a", "10.244.2.2", 8080).outcome is Outcome.TIMEOUT
        assert other.probe("pod/shop/a", "10.244.2.2", 8080).answered


def _left(prefix: str) -> list[str]:
    return [n for n in names.netns_names() if n.startswith(prefix + "-")]


def test_close_removes_everything() -> None:
    cluster = Cluster(small())
    agents = [a.pid for a in cluster._agents.values()]
    assert _left(cluster.name)
    cluster.close()
    cluster.close()
    assert _left(cluster.name) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in agents)


def test_a_failure_while_building_removes_what_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Cluster) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Cluster, "_listeners", fail)
    before = set(names.netns_names())
    with pytest.raises(RuntimeError):
        Cluster(small())
    assert not {n for n in set(names.netns_names()) - before if n.startswith(f"k8snetc-{os.getpid()}-")}


CHILD = """
import signal, sys, time
from k8snetc.lab.cluster import Cluster
from tests.support.lab import small
def stubborn():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ready()
    time.sleep(60)
def ready():
    print(c.name, *[a.pid for a in c._agents.values()], flush=True)
c = Cluster(small())
if "call" in sys.argv: c.call("node/w1", stubborn)
ready()
time.sleep(60)
"""


def _start_child(*words: str) -> tuple[subprocess.Popen[str], str, list[int]]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, *words], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name, *agents = child.stdout.readline().split()
    return child, name, [int(a) for a in agents]


def _wait_gone(name: str) -> None:
    deadline = time.monotonic() + 20
    while _left(name):
        assert time.monotonic() < deadline, _left(name)
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_lab_is_removed_by_its_agents(number: signal.Signals) -> None:
    child, name, _agents = _start_child()
    with child:
        assert _left(name)
        child.send_signal(number)
        child.wait(20)
        _wait_gone(name)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_call_ends_with_the_lab(number: signal.Signals) -> None:
    """What runs inside a node, also if it puts signals off, keeps nothing of a killed lab."""
    child, name, _agents = _start_child("call")
    with child:
        child.send_signal(number)
        child.wait(20)
        _wait_gone(name)


def test_a_lab_killed_with_its_agents_is_removed_by_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    child, name, agents = _start_child()
    with child:
        for pid in agents:
            os.kill(pid, signal.SIGKILL)
        child.kill()
        child.wait(20)
    # A lab of a test beside this one may be the next, and be at it still.
    clean_leftovers()
    _wait_gone(name)


def test_no_lab_without_nodes_is_needed() -> None:
    with Cluster(Topology((), (), ())) as cluster:
        assert cluster.topology.places == {}


def test_unknown_places_are_named(shared_cluster: Cluster) -> None:
    with pytest.raises(LabError, match="no 'pod/shop/zzz'"):
        shared_cluster.probe("pod/shop/zzz", "10.0.0.1", 80)


def test_each_node_has_a_cgroup_of_its_own() -> None:
    with Cluster(small(), with_cgroups=True) as cluster:
        folder = cluster.cgroup("w1")
        assert folder.is_dir()
        assert cluster.run("node/w1", ["ls", str(folder)]).stdout, "the node sees it too"
        agents = [cluster._agents[n].pid for n in ("w1", "w2")]
        assert (folder / "cgroup.procs").read_text().split() == [str(agents[0])]
        assert (cluster.cgroup("w2") / "cgroup.procs").read_text().split() == [str(agents[1])]
        there = pod("c", 2, 2).addresses[0]
        outside = Probe("pod/shop/a", there, TCP, 8080, in_cgroup=False)
        assert cluster.probe_all([outside, Probe("pod/shop/a", there, TCP, 8080)])[0].answered
        other = cluster._agents["w1/outside its cgroup"].pid
        assert str(other) not in (folder / "cgroup.procs").read_text().split()
    assert not folder.exists()


def test_cgroups_of_a_killed_lab_are_removed() -> None:
    child = CHILD.replace("Cluster(small())", "Cluster(small(), with_cgroups=True)").replace(
        "print(c.name,", "print(c.cgroup('w1'),"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().split()[0])
        assert folder.is_dir()
        process.kill()
        process.wait(20)
        deadline = time.monotonic() + 20
        while folder.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
