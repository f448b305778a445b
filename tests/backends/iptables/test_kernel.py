"""The rules on the real kernel: what iptables prints back, and what only packets can tell."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from k8snetc.backends.base import EmitOptions
from k8snetc.backends.common import conntrack
from k8snetc.backends.iptables import BACKEND
from k8snetc.backends.iptables.lower import lower
from k8snetc.ir.parse import parse
from k8snetc.ir.types import (
    Action,
    Admission,
    Affinity,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    Origin,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)
from k8snetc.ir.verify import verify
from k8snetc.lab.cluster import Cluster
from k8snetc.lab.handle import LabError
from k8snetc.lab.probe import Outcome, Probe
from tests.support import xtables
from tests.support.lab import TCP, UDP
from tests.support.programs import Generator

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("variant", xtables.VARIANTS)]

V4 = Family.IPV4
A, B, C, D = (ip_address(a) for a in ("10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3"))
SERVICE = ip_address("10.96.0.1")
NODE = Node("w1", (V4,), (ip_address("172.18.0.1"),), detector=SourceIn((ip_network("10.244.0.0/16"),)))
GOLDEN = Path(__file__).parent / "golden"


def put(cluster: Cluster, program: Program, variant: str) -> None:
    xtables.install(cluster, "node/w1", BACKEND.compile(verify(program), EmitOptions()), variant)


def cluster_ip(balancer: str | Action, *, port: int = 80, protocol: Protocol = TCP) -> Frontend:
    action = Balance(balancer) if isinstance(balancer, str) else balancer
    routes = (Route(Who.ANY, action),)
    return Frontend(Exposure.CLUSTER_IP, V4, SERVICE, protocol, port, routes, service=f"shop/web:{port}")


def balancer(
    *endpoints: Endpoint, name: str = "b", protocol: Protocol = TCP, affinity: Affinity | None = None
) -> Balancer:
    return Balancer(name, V4, protocol, endpoints, affinity)


# --- text ---


def printed_back(cluster: Cluster, program: Program, variant: str) -> None:
    """Every line that we wrote is printed back byte for byte, in our order, and nothing else of ours is there."""
    put(cluster, program, variant)
    for ruleset in lower(program).rulesets:
        tool = "iptables" if ruleset.family is V4 else "ip6tables"
        for table in ruleset.tables:
            out = cluster.run("node/w1", [f"{tool}-{variant}-save", "-t", table.name]).stdout
            lines = [line for line in out.splitlines() if "K8SNETC-" in line]
            declared = [line.split()[0][1:] for line in lines if line.startswith(":")]
            assert sorted(declared) == [c.name for c in table.chains]
            for chain in table.chains:
                mine = [line for line in lines if line.startswith(f"-A {chain.name} ")]
                assert mine == [*chain.lines]
            jumps = [line for line in lines if line.startswith("-A ") and not line.startswith("-A K8SNETC-")]
            assert sorted(jumps) == sorted(j.text for j in table.jumps)
    saved = cluster.run("node/w1", ["ipset", "save"]).stdout.splitlines()
    model = lower(program)
    elements = sorted(line for line in saved if line.startswith("add "))
    assert elements == sorted(f"add {s.name} {e}" for s in model.sets for e in s.elements)
    created = {line.split()[1]: line.split() for line in saved if line.startswith("create ")}
    assert sorted(created) == [s.name for s in model.sets]
    for one in model.sets:
        assert set(one.create.split()) <= set(created[one.name])


@pytest.mark.parametrize("case", sorted(p.name for p in GOLDEN.iterdir()))
def test_golden_programs_are_printed_back_as_written(
    shared_cluster: Cluster, variant: str, case: str
) -> None:
    printed_back(shared_cluster, parse((GOLDEN / case / "program.ir").read_text()), variant)


@pytest.mark.parametrize("seed", range(100, 106))
def test_random_programs_are_printed_back_as_written(
    shared_cluster: Cluster, variant: str, seed: int
) -> None:
    printed_back(shared_cluster, Generator(shared_cluster.topology, seed).program(services=40), variant)


ODD = (
    "plain",
    'it\'s "odd" \\ back\\"slash',
    "-j ACCEPT\n-A INPUT -j ACCEPT",
    "`touch /tmp/x` $(id) %s %n",
    "ünïcödé 漢字",
    "x" * 300,
    " leading and trailing ",
    "#",
    "*nat",
    "COMMIT",
)


def test_odd_comments_are_printed_back_as_written(shared_cluster: Cluster, variant: str) -> None:
    frontends = []
    for i, odd in enumerate(ODD):
        origin = Origin(odd, i + 1, "Service", "shop", "web")
        address = ip_address(f"10.96.1.{i}")
        routes = (Route(Who.ANY, Balance("b")),)
        frontends.append(Frontend(Exposure.CLUSTER_IP, V4, address, TCP, 80, routes, None, odd, origin))
    program = Program(NODE, (balancer(Endpoint(A, 8080)),), tuple(frontends))
    printed_back(shared_cluster, program, variant)


def test_foreign_rules_stay_and_reinstalling_changes_nothing(shared_cluster: Cluster, variant: str) -> None:
    run = shared_cluster.run
    tool = f"iptables-{variant}"
    run("node/w1", [tool, "-t", "nat", "-N", "KUBE-SERVICES"])
    run("node/w1", [tool, "-t", "nat", "-A", "KUBE-SERVICES", "-d", "10.96.9.9", "-j", "ACCEPT"])
    run("node/w1", [tool, "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES"])
    run("node/w1", [tool, "-A", "FORWARD", "-s", "10.99.0.0/16", "-j", "DROP"])
    run("node/w1", [tool, "-P", "INPUT", "ACCEPT"])
    program = Program(NODE, (balancer(Endpoint(A, 8080)),), (cluster_ip("b"),))
    put(shared_cluster, program, variant)
    before = xtables.saved(shared_cluster, "node/w1", variant)
    everything = run("node/w1", [f"{tool}-save"]).stdout
    for line in ("-A KUBE-SERVICES -d 10.96.9.9/32 -j ACCEPT", "-A FORWARD -s 10.99.0.0/16 -j DROP"):
        assert line in everything.splitlines()
    assert everything.index("-A PREROUTING -j K8SNETC") < everything.index("-A PREROUTING -j KUBE")
    tables = [a for a in BACKEND.compile(program, EmitOptions()) if "jumps" not in a.name]
    xtables.install(shared_cluster, "node/w1", tables, variant)
    assert xtables.saved(shared_cluster, "node/w1", variant) == before


def test_jumps_are_deleted_by_their_own_words(shared_cluster: Cluster, variant: str) -> None:
    program = Program(
        NODE, (balancer(Endpoint(A, 8080)),), (cluster_ip("b"), cluster_ip(Refusal.REJECT, port=1))
    )
    put(shared_cluster, program, variant)
    for table in lower(program).rulesets[0].tables:
        lines = [
            f"*{table.name}",
            *(j.delete for j in table.jumps),
            *(f":{c.name} - [0:0]" for c in table.chains),
        ]
        lines += [f"-X {c.name}" for c in table.chains]
        text = "\n".join([*lines, "COMMIT", ""])
        shared_cluster.run("node/w1", [f"iptables-{variant}-restore", "--noflush"], input=text)
    assert xtables.saved(shared_cluster, "node/w1", variant)["iptables"] == []


# --- balancing ---


def answers(cluster: Cluster, who: str, count: int, *, port: int = 80) -> Counter[str]:
    results = cluster.probe_all(Probe(who, SERVICE, TCP, port, timeout=4) for _ in range(count))
    assert all(r.answered for r in results)
    return Counter(str(r.endpoint.address) + ":" + str(r.endpoint.port) for r in results if r.endpoint)


def test_shares_follow_weights(shared_cluster: Cluster, variant: str) -> None:
    ends = (Endpoint(A, 8080), Endpoint(B, 8080, weight=2), Endpoint(C, 8080), Endpoint(D, 8080, weight=4))
    put(shared_cluster, Program(NODE, (balancer(*ends),), (cluster_ip("b"),)), variant)
    seen = answers(shared_cluster, "pod/shop/a", 800)
    # 800 draws of probability p: five standard deviations are at most 71.
    for end in ends:
        assert abs(seen[f"{end.address}:8080"] - 800 * end.weight / 8) < 75, seen


def test_a_large_balancer_draws_from_all_its_endpoints(shared_cluster: Cluster, variant: str) -> None:
    """Sixty endpoints, so a tree; only w1's own addresses answer, all on one port each."""
    ports = range(21000, 21060)
    script = "import socket,sys,time\nkeep=[]\nfor p in range(21000,21060):\n s=socket.socket();"
    script += "s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1);s.bind(('',p));"
    script += "s.listen(512);keep.append(s)\nprint('ready',flush=True)\ntime.sleep(600)\n"
    ends = tuple(Endpoint(C, port) for port in ports)
    put(shared_cluster, Program(NODE, (balancer(*ends),), (cluster_ip("b"),)), variant)
    server = shared_cluster.popen("pod/shop/c", ["python3", "-c", script])
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        shared_cluster.call("pod/shop/a", connect_often, str(SERVICE), 80, 1800)
        table = shared_cluster.run("node/w1", ["conntrack", "-L", "-p", "tcp"]).stdout
    finally:
        server.kill()
        server.communicate()
    seen = Counter(int(w.split("=")[1]) for w in table.split() if w.startswith("sport=21"))
    assert sorted(seen) == list(ports)
    assert sum(seen.values()) >= 1700
    # Thirty each; six standard deviations are 33.
    assert max(seen.values()) < 65, seen


def connect_often(address: str, port: int, count: int) -> None:
    """Open and close connections, one after the other."""
    for _ in range(count):
        with socket.create_connection((address, port), 5):
            pass


def test_many_ports_of_one_address(shared_cluster: Cluster, variant: str) -> None:
    """More ports than a chain holds, of two protocols; one more is refused."""
    tcp = [cluster_ip("t", port=1000 + 7 * i) for i in range(40)]
    udp = [cluster_ip("u", port=1000 + 7 * i, protocol=UDP) for i in range(20)]
    balancers = (
        balancer(Endpoint(C, 8080), name="t"),
        balancer(Endpoint(D, 5353), name="u", protocol=UDP),
    )
    put(
        shared_cluster, Program(NODE, balancers, (*tcp, *udp, cluster_ip(Refusal.REJECT, port=1001))), variant
    )
    probes = [Probe("pod/shop/a", SERVICE, f.protocol, f.port, timeout=4) for f in (*tcp, *udp)]
    for probe, result in zip(probes, shared_cluster.probe_all(probes), strict=True):
        assert result.server == ("pod/shop/c" if probe.protocol is TCP else "pod/back/d"), str(probe)
    assert shared_cluster.probe("pod/shop/a", SERVICE, 1001).outcome is Outcome.REFUSED


# --- affinity ---


def test_clients_stay_with_their_endpoint(shared_cluster: Cluster, variant: str) -> None:
    affinity = Affinity("web", 60)
    ends = tuple(Endpoint(a, p) for a in (A, B, C, D) for p in (8080, 8081))
    node_port = Frontend(
        Exposure.NODE_PORT, V4, None, TCP, 30080, (Route(Who.ANY, Balance("b", masquerade=True)),)
    )
    entrance = cluster_ip(Balance("b", masquerade=True))
    program = Program(NODE, (balancer(*ends, affinity=affinity),), (entrance, node_port))
    put(shared_cluster, program, variant)
    clients = ("pod/shop/a", "pod/shop/b", "node/w1", "client/out")
    homes: dict[str, str] = {}
    for who in clients:
        seen = answers(shared_cluster, who, 1)
        homes[who] = next(iter(seen))
        assert set(answers(shared_cluster, who, 30)) == {homes[who]}
        through = shared_cluster.probe(who, "172.18.0.1", 30080)
        assert through.endpoint is not None
        # The NodePort shares the memory of the ClusterIP.
        assert f"{through.endpoint.address}:{through.endpoint.port}" == homes[who]
    # Some other endpoints go, the others' clients stay.
    kept = {homes["pod/shop/a"], homes["client/out"]}
    gone = next(e for e in ends if f"{e.address}:{e.port}" not in set(homes.values()))
    rest = tuple(e for e in ends if e is not gone)
    put_tables(
        shared_cluster, Program(NODE, (balancer(*rest, affinity=affinity),), program.frontends), variant
    )
    for who in ("pod/shop/a", "client/out"):
        assert set(answers(shared_cluster, who, 20)) <= kept
        assert set(answers(shared_cluster, who, 20)) == {homes[who]}


def put_tables(cluster: Cluster, program: Program, variant: str) -> None:
    artifacts = [a for a in BACKEND.compile(verify(program), EmitOptions()) if "jumps" not in a.name]
    xtables.install(cluster, "node/w1", artifacts, variant)


def test_memory_ends_with_its_time_out(shared_cluster: Cluster, variant: str) -> None:
    ends = tuple(Endpoint(a, p) for a in (A, B, C, D) for p in (8080, 8081))
    program = Program(NODE, (balancer(*ends, affinity=Affinity("web", 1)),), (cluster_ip("b"),))
    put(shared_cluster, program, variant)
    homes: set[str] = set()
    for _ in range(6):
        homes.update(answers(shared_cluster, "pod/shop/a", 1))
        time.sleep(1.6)
    assert len(homes) > 1  # all the same by chance: 8^-5


# --- filter ---


def test_forwarding_may_be_closed_by_default(shared_cluster: Cluster, variant: str) -> None:
    """What was masqueraded, and replies to service connections, pass a FORWARD policy of DROP."""
    node_port = Frontend(
        Exposure.NODE_PORT, V4, None, TCP, 30080, (Route(Who.ANY, Balance("b", masquerade=True)),)
    )
    put(shared_cluster, Program(NODE, (balancer(Endpoint(A, 8080)),), (node_port,)), variant)
    shared_cluster.run("node/w1", [f"iptables-{variant}", "-P", "FORWARD", "DROP"])
    try:
        assert shared_cluster.probe("client/out", "172.18.0.1", 30080, timeout=4).answered
        assert shared_cluster.probe("client/out", A, 8080).outcome is Outcome.TIMEOUT
    finally:
        shared_cluster.run("node/w1", [f"iptables-{variant}", "-P", "FORWARD", "ACCEPT"])


def test_admissions_open_the_nodes_own_ports(shared_cluster: Cluster, variant: str) -> None:
    admissions = tuple(Admission(TCP, port) for port in (10250, *range(32000, 32040)))
    put(shared_cluster, Program(NODE, admissions=admissions), variant)
    shared_cluster.run("node/w1", [f"iptables-{variant}", "-P", "INPUT", "DROP"])
    try:
        assert shared_cluster.probe("client/out", "172.18.0.1", 10250, timeout=4).server == "node/w1"
        # Let in, but nobody listens; whatever is not let in is silence.
        assert shared_cluster.probe("client/out", "172.18.0.1", 32017).outcome is Outcome.REFUSED
        assert shared_cluster.probe("client/out", "172.18.0.1", 32041).outcome is Outcome.TIMEOUT
    finally:
        shared_cluster.run("node/w1", [f"iptables-{variant}", "-P", "INPUT", "ACCEPT"])


def test_localhost_nodeports_leave_localhost_closed_to_others(shared_cluster: Cluster, variant: str) -> None:
    """route_localnet opens 127.0.0.0/8 to the network; the guard closes it again (CVE-2020-8558)."""
    routes = (Route(Who.ANY, Balance("b", masquerade=True)),)
    node_port = Frontend(Exposure.NODE_PORT, V4, None, TCP, 30080, routes)
    node = Node("w1", (V4,), NODE.addresses, localhost_nodeports=True)
    program = Program(node, (balancer(Endpoint(C, 8080)),), (node_port,))
    shared_cluster.run("client/out", ["ip", "route", "add", "127.9.0.0/16", "via", "172.18.0.1"], check=False)
    # Then it knows the node's link-layer address.
    assert shared_cluster.probe("client/out", "172.18.0.1", 10250, timeout=4).answered
    try:
        shared_cluster.call("client/out", send_to_localhost)  # can it send at all?
    except OSError as error:
        pytest.fail(f"the client can't send to 127.9.9.9: {error}")
    artifacts = BACKEND.compile(verify(program), EmitOptions())
    put(shared_cluster, program, variant)
    try:
        assert any(a.name == "sysctl.conf" for a in artifacts)
        value = shared_cluster.run("node/w1", ["sysctl", "-n", "net.ipv4.conf.all.route_localnet"]).stdout
        assert value.strip() == "1"
        assert shared_cluster.probe("node/w1", "127.0.0.1", 30080, timeout=4).server == "pod/shop/c"
        dropped = counter(shared_cluster, variant)
        shared_cluster.call("client/out", send_to_localhost)
        time.sleep(0.1)
        assert counter(shared_cluster, variant) > dropped
    finally:
        shared_cluster.sysctl("node/w1", "net/ipv4/conf/all/route_localnet", "0")
        shared_cluster.sysctl("client/out", "net/ipv4/conf/all/route_localnet", "0")


def send_to_localhost() -> None:
    """Send a SYN to 127.9.9.9 as it would come off the wire from a hostile neighbour."""
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((names[0], 0))
    neighbour = Path("/proc/net/arp").read_text().splitlines()[1:]
    target = bytes.fromhex(
        next(n.split()[3] for n in neighbour if n.startswith("172.18.0.1 ")).replace(":", "")
    )
    own = bytes.fromhex(Path(f"/sys/class/net/{names[0]}/address").read_text().strip().replace(":", ""))
    source, destination = socket.inet_aton("203.0.113.9"), socket.inet_aton("127.9.9.9")
    tcp = struct.pack("!HHIIBBHHH", 4242, 10250, 1, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = source + destination + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, source, destination)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    wire.send(target + own + b"\x08\x00" + ip + tcp)
    wire.close()


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def counter(cluster: Cluster, variant: str) -> int:
    """Packets that the guard dropped."""
    out = cluster.run("node/w1", [f"iptables-{variant}", "-nvxL", "K8SNETC-INPUT"]).stdout
    first: str = next(line.split(maxsplit=1)[0] for line in out.splitlines() if "DROP" in line)
    return int(first)


def test_a_cut_connection_is_not_revived_by_its_server(shared_cluster: Cluster, variant: str) -> None:
    """The server goes on sending, which a rule for new connections would allow; nothing passes in either direction."""
    shut = Program(NODE, enforcements=(Enforcement("in", V4, Direction.INGRESS, (A,)),))
    everyone = (Rule(Verdict.ALLOW, None, TCP),)
    wide = Program(NODE, enforcements=(Enforcement("in", V4, Direction.INGRESS, (A,), rules=everyone),))
    put(shared_cluster, wide, variant)
    processes = [shared_cluster.popen("pod/shop/a", ["python3", "-uc", STREAM_SERVER])]
    try:
        port = _line(processes[0])
        processes.append(shared_cluster.popen("pod/shop/c", ["python3", "-uc", STREAM_CLIENT, str(A), port]))
        client = processes[1]
        assert int(_line(client)) > 0
        put_tables(shared_cluster, shut, variant)
        assert shared_cluster.call("node/w1", conntrack.cut, wide, shut) == 1
        time.sleep(0.3)
        first = [int(_line(client)) for _ in range(8)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert first[-1] == first[-2] == first[-3], f"bytes still arrive: {first}"


def _line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints; fails with what it said instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended with {process.wait(10)}"
    return line.strip()


# A port that the kernel chooses: what was cut holds its port for a while after both ends are gone.
STREAM_SERVER = """
import socket, time
s = socket.socket(); s.listen(); print(s.getsockname()[1], flush=True)
c, _ = s.accept()
c.setblocking(False)
while True:
    try: c.send(b"x" * 100)
    except BlockingIOError: pass
    time.sleep(0.02)
"""
STREAM_CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.settimeout(0.1)
total, told = 0, time.monotonic()
while True:
    try: total += len(s.recv(65536))
    except TimeoutError: pass
    if total and time.monotonic() - told > 0.2: print(total, flush=True); told = time.monotonic()
"""


def test_what_can_not_be_read_is_refused_by_iptables_itself(shared_cluster: Cluster, variant: str) -> None:
    """The test's own installer does see errors."""
    with pytest.raises(LabError):
        shared_cluster.run(
            "node/w1", [f"iptables-{variant}-restore", "--noflush"], input="*nat\n-A X -j Y\nCOMMIT\n"
        )
