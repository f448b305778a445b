"""The kernel's own connection table, read by kinds and changed by entries, in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.repository import ROOT

pytestmark = pytest.mark.kernel


def in_a_namespace(script: str) -> Any:
    command = [
        "unshare",
        "-n",
        "sh",
        "-ec",
        'ip link set lo up; exec "$0" -c "$1"',
        sys.executable,
        HEAD + script,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HEAD = """
import json, socket, subprocess
from k8snetc.backends.common import ctnetlink
def shown(mask=0xffffffff, only=None):
    return sorted([f.protocol.value if f.protocol else "", str(f.source), f.source_port or 0, str(f.destination),
        f.port, str(f.endpoint), f.endpoint_port, f.mark, len(f.entries)] for f in ctnetlink.flows(mask, only))
def do(*words): subprocess.run(words, check=True, capture_output=True)
"""

# Entries as the conntrack tool makes them: many clients' ports, a mark, translation, IPv6, ICMP, a zone.
ENTRIES = """
from k8snetc.ir.types import Protocol
udp = "conntrack -I -p udp -s 10.0.0.1 -t 600 --dport 53".split()
for port in range(40000, 40030): do(*udp, "-d", "10.0.0.2", "--sport", str(port))
do(*udp, "-d", "10.0.0.2", "--sport", "41000", "-m", "4097")
do(*udp, "-d", "10.96.0.10", "--sport", "42000", "-r", "10.0.1.5", "-q", "10.0.0.1",
    "--reply-port-src", "5353", "--reply-port-dst", "42000")
do(*udp, "-d", "10.0.0.2", "--sport", "43000", "-w", "7")
do(*"conntrack -I -p sctp -s fd00::1 -d fd00::2 --sport 5 --dport 9 --state ESTABLISHED -t 600".split(),
    "--orig-vtag", "1", "--reply-vtag", "2")
do(*"conntrack -I -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 7 -t 600".split())
before = shown(0x1000)
flows = ctnetlink.flows(0x1000)
marked = [f for f in flows if f.mark]
many = [f for f in flows if len(f.entries) == 31]
do(*"conntrack -D -p udp --orig-port-src 40003".split())
ctnetlink.set_mark([e for f in many for e in f.entries], 0x1000, 0x1000)
ctnetlink.set_mark([e for f in marked for e in f.entries], 0, 0x1000)
changed = shown()
ctnetlink.forget(e for f in many for e in f.entries)
ctnetlink.forget(e for f in many for e in f.entries)
print(json.dumps([before, shown(0x1000, Protocol.SCTP), changed, shown()]))
"""


def test_kinds_are_read_marked_and_forgotten() -> None:
    before, sctp, changed, left = in_a_namespace(ENTRIES)
    rest = [
        ["", "10.0.0.1", 0, "10.0.0.2", 0, "10.0.0.2", 0, 0, 1],
        ["sctp", "fd00::1", 0, "fd00::2", 9, "fd00::2", 9, 0, 1],
    ]
    dns = ["udp", "10.0.0.1", 0, "10.0.0.2", 53, "10.0.0.2", 53]
    translated = ["udp", "10.0.0.1", 0, "10.96.0.10", 53, "10.0.1.5", 5353, 0, 1]
    # One in another zone is one of them: 31.
    assert before == [*rest, [*dns, 0, 31], [*dns, 0x1000, 1], translated]
    assert sctp == rest[1:]
    # One has ended meanwhile; the others are marked, each in its zone, and one keeps the rest of its mark.
    assert changed == [*rest, [*dns, 1, 1], [*dns, 0x1000, 30], translated]
    assert left == [*rest, [*dns, 1, 1], translated]


# Connections from before tracking, where the server speaks first after it began, and some from after that.
CONNECTIONS = """
kept, servers = [], {}
def connect(address, port, family):
    listener = socket.create_server((address, port), family=family)
    client = socket.create_connection((address, port))
    server, _ = listener.accept()
    kept.extend((listener, client, server))
    servers[port] = server, client
    return client.getsockname()[1]
def speak(port):
    server, client = servers[port]
    server.send(b"x"); client.recv(1); client.send(b"y"); server.recv(1)
ports = [connect("127.0.0.1", 7001, socket.AF_INET), connect("::1", 7002, socket.AF_INET6)]
rules = "table inet t { chain c { type filter hook input priority 0; ct state new counter; }; }"
subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
connect("127.0.0.1", 7003, socket.AF_INET); connect("::1", 7004, socket.AF_INET6)
for port in servers: speak(port)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); datagrams.sendto(b"x", ("127.0.0.1", 7005))
print(json.dumps([ports, shown()]))
"""


def test_what_was_picked_up_in_its_middle_is_told() -> None:
    (first, second), found = in_a_namespace(CONNECTIONS)
    assert found == sorted(
        [
            ["tcp", "127.0.0.1", 7001, "127.0.0.1", first, "127.0.0.1", first, 0, 1],
            ["tcp", "::1", 7002, "::1", second, "::1", second, 0, 1],
            ["tcp", "127.0.0.1", 0, "127.0.0.1", 7003, "127.0.0.1", 7003, 0, 1],
            ["tcp", "::1", 0, "::1", 7004, "::1", 7004, 0, 1],
            ["udp", "127.0.0.1", 0, "127.0.0.1", 7005, "127.0.0.1", 7005, 0, 1],
        ]
    )


def test_without_privilege_it_is_said() -> None:
    script = """
import os
from k8snetc.backends.target import InstallError
os.setresuid(65534, 65534, 65534)
try: ctnetlink.forget([ctnetlink.Entry(2, b"", b"")])
except InstallError as e: print(json.dumps(str(e)))
"""
    assert "the kernel does not forget connections: Operation not permitted; it needs root" in in_a_namespace(
        script
    )
