"""Two programs for node w1 of the lab cluster, and how tests apply them there, whole or killed half way.

`OLD` and `NEW` differ in both tables of both families: the services' endpoints (nat) and the policy of pod b (filter).
What both allow and what both deny is listed, so that a test can ask at any moment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from k8snetc.apply.store import open_store
from k8snetc.apply.transaction import Outcome, Silent, apply, recover, remove
from k8snetc.backends.registry import NAMES
from k8snetc.backends.target import InstallOptions, Step, Target, target_for
from k8snetc.ir.types import (
    Address,
    AddressSet,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    PortRange,
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
from k8snetc.lab.probe import Probe

STATE = Path("/run/k8snetc")
W1 = "node/w1"
A, B, C, OUT = "pod/shop/a", "pod/shop/b", "pod/shop/c", "client/out"
POD = {
    Family.IPV4: {"a": "10.244.1.2", "b": "10.244.1.3", "c": "10.244.2.2", "d": "10.244.2.3"},
    Family.IPV6: {"a": "fd44:1::2", "b": "fd44:1::3", "c": "fd44:2::2", "d": "fd44:2::3"},
}
SERVICE = {Family.IPV4: "10.96.0.%d", Family.IPV6: "fd96::%d"}


def program(keep: str, moving: str, *, dns: str, peers: str, ports: PortRange) -> Program:
    """Services 1 to `keep`, 2 to `moving` (empty: refused), 3 (UDP) to `dns`; pod b lets `peers` in on `ports`."""
    balancers: list[Balancer] = []
    frontends: list[Frontend] = []
    sets: list[AddressSet] = []
    enforcements: list[Enforcement] = []
    from k8snetc.ir.addresses import cover_prefixes, prefix_of

    for family in Family:
        services = (
            (1, keep, Protocol.TCP, 80, 8080),
            (2, moving, Protocol.TCP, 80, 8080),
            (3, dns, Protocol.UDP, 53, 5353),
        )
        for number, pods, protocol, port, target in services:
            name = f"b{number}-{family}"
            if pods:
                places = tuple(Endpoint(ip_address(POD[family][p]), target, p in "ab") for p in pods)
                balancers.append(Balancer(name, family, protocol, places))
            exposed: list[tuple[Exposure, Address | None, int, bool]] = [
                (Exposure.CLUSTER_IP, ip_address(SERVICE[family] % number), port, False)
            ]
            if number == 1:
                exposed.append((Exposure.NODE_PORT, None, 30080, True))
            for exposure, address, at, masquerade in exposed:
                action = Balance(name, masquerade) if pods else Refusal.REJECT
                frontends.append(
                    Frontend(
                        exposure,
                        family,
                        address,
                        protocol,
                        at,
                        (Route(Who.ANY, action),),
                        service=f"shop/s{number}:p",
                    )
                )
        members = cover_prefixes(family, [prefix_of(ip_address(POD[family][p])) for p in peers])
        sets.append(AddressSet(f"peers{family}", family, members))
        enforcements.append(
            Enforcement(
                f"b-in-{family}",
                family,
                Direction.INGRESS,
                (ip_address(POD[family]["b"]),),
                rules=(
                    Rule(Verdict.ALLOW, f"peers{family}", Protocol.TCP, (ports,)),
                    Rule(Verdict.ALLOW, None, Protocol.UDP),
                ),
            )
        )
    node = Node(
        "w1",
        addresses=(ip_address("172.18.0.1"), ip_address("fd18::1")),
        pod_networks=(ip_network("10.244.1.0/24"), ip_network("fd44:1::/64")),
        detector=SourceIn((ip_network("10.244.0.0/16"), ip_network("fd44::/16"))),
    )
    return verify(
        Program(node, tuple(balancers), tuple(frontends), tuple(sets), enforcements=tuple(enforcements))
    )


OLD = program("ac", "", dns="a", peers="acd", ports=PortRange(8080, 8080))
NEW = program("ac", "d", dns="d", peers="ac", ports=PortRange(8080, 8081))
OTHER = program("a", "b", dns="b", peers="c", ports=PortRange(8081, 8081))


def allowed() -> list[Probe]:
    """What both `OLD` and `NEW` allow. Below a second, for TCP sends a lost SYN again after that."""
    probes = []
    for family in Family:
        service = ip_address(SERVICE[family] % 1)
        probes += [
            Probe(A, service, Protocol.TCP, 80),
            Probe(B, service, Protocol.TCP, 80),
            Probe(A, ip_address(POD[family]["b"]), Protocol.TCP, 8080),
            Probe(C, ip_address(POD[family]["b"]), Protocol.TCP, 8080),
            Probe(A, ip_address(POD[family]["d"]), Protocol.TCP, 8081),
            Probe(A, ip_address(SERVICE[family] % 3), Protocol.UDP, 53),
        ]
    probes.append(Probe(OUT, ip_address("172.18.0.1"), Protocol.TCP, 30080))
    return [replace(p, timeout=0.9) for p in probes]


def denied() -> list[Probe]:
    """What both deny."""
    return [
        Probe(place, ip_address(POD[family]["b"]), Protocol.TCP, port, timeout=0.4)
        for family in Family
        for place, port in (("pod/back/d", 8081), (OUT, 8080), (OUT, 8081))
    ]


@dataclass(frozen=True)
class Kill(Silent):
    """Dies at once, as `kill -9` does, before step `at` (or after it)."""

    at: int
    after: bool = False

    def began(self, at: int, total: int, step: Step) -> None:
        if at == self.at and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)

    def ended(self, at: int, total: int, step: Step) -> None:
        if at == self.at and self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def target(variant: str) -> Target[object]:
    """The iptables back end in one of its variants, or another back end by its name."""
    if variant in NAMES:
        # Without sockets: the lab's nodes are network namespaces of one kernel, and share its cgroups.
        return target_for(variant, InstallOptions(wait=2, no_cgroup=True))
    return target_for("iptables", InstallOptions(iptables=variant, wait=2))


def install(variant: str, wanted: Program) -> Outcome:
    """Apply in the place that this is called in."""
    store = open_store(STATE)
    try:
        return apply(target(variant), wanted, store)
    finally:
        store.close()


def install_many(variant: str, programs: tuple[Program, ...], times: int) -> int:
    """Apply the programs in turn, and return how many lines reached the kernel."""
    store = open_store(STATE)
    grip = target(variant)
    size = 0
    try:
        for number in range(times):
            size += apply(grip, programs[number % len(programs)], store).size
    finally:
        store.close()
    return size


def install_and_die(variant: str, wanted: Program, kill: Kill) -> int:
    """Apply in a child that is killed half way; returns how the child ended: -9, or 0 if it came to the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = open_store(STATE)
            apply(target(variant), wanted, store, watch=kill)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def undo(variant: str) -> bool:
    """Undo what was killed; whether there was anything."""
    store = open_store(STATE)
    try:
        with store.locked(5):
            return recover(target(variant), store, Silent())
    finally:
        store.close()


def uninstall(variant: str) -> Outcome:
    """Remove everything."""
    store = open_store(STATE)
    try:
        return remove(target(variant), store)
    finally:
        store.close()


def uninstall_and_die(variant: str, kill: Kill) -> int:
    """Remove in a child that is killed half way; returns how the child ended: -9, or 0 if it came to the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = open_store(STATE)
            remove(target(variant), store, watch=kill)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state(variant: str) -> bytes:
    """All that is ours in the kernel."""
    grip = target(variant)
    return grip.dump(grip.observe())


def desired_steps(variant: str, wanted: Program) -> int:
    """How many steps an apply of `wanted` would take now."""
    grip = target(variant)
    return len(grip.steps(grip.observe(), grip.desired(wanted)))


Called = Callable[[], object]
