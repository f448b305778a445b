"""Which connections the kernel began to track in their middle, on its own connection table."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.repository import ROOT

# Connections from before tracking, where the server speaks first after it began, and some from after that.
CONNECTIONS = """
import json, socket, subprocess
from k8snetc.backends.common.picked_up import picked_up
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
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
found = sorted(picked_up(), key=lambda p: p.source_port)
for p in found:
    for _ in range(5):  # conntrack may take the kernel's answer for somebody else's
        if not subprocess.run(["conntrack", "-U", *p.filter.split(), "-m", "7"], capture_output=True).returncode: break
marked = subprocess.run(["conntrack", "-L", "-m", "7"], capture_output=True, text=True).stdout
print(json.dumps([ports, [[str(p.source), p.source_port, str(p.destination), p.destination_port, str(p.endpoint),
    p.endpoint_port] for p in found], len(marked.splitlines())]))
"""


@pytest.mark.kernel
def test_those_older_than_tracking_and_no_others() -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", CONNECTIONS],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (first, second), found, marked = json.loads(done.stdout)
    assert found == [
        ["127.0.0.1", 7001, "127.0.0.1", first, "127.0.0.1", first],
        ["::1", 7002, "::1", second, "::1", second],
    ]
    assert marked == 2, "the filter of a connection selects that one"
