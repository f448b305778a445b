"""The process that lives in a lab: one per node, and one for everything outside the cluster.

It holds the node's mount namespace (its own /run, /sys and /sys/fs/bpf), listens and probes in the namespaces of its
node and pods, and, outside, removes the lab when the process that built it vanishes. Started as
`python -m k8snetc.lab.agent FD` with one end of a socketpair; must not be used otherwise.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import assert_never

from k8snetc.ir.types import Protocol
from k8snetc.lab import cgroups, messages, raw, syscalls, traffic
from k8snetc.lab.attempts import Batch, Prober
from k8snetc.lab.loop import READ, Loop, Spaces
from k8snetc.lab.names import NETNS_DIR
from k8snetc.lab.servers import TcpServer, UdpServer


class Agent:
    """Answers requests until the other end closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = messages.Decoder()
        self._loop = Loop()
        self._setup = messages.Setup(())
        self._orderly = False
        self._prober: Prober | None = None
        self._flows: dict[int, traffic.Flow] = {}
        self._traffic: dict[int, traffic.Generator] = {}
        self._captures: dict[int, raw.Capture] = {}
        self._servers: dict[tuple[str, str, int], list[TcpServer | UdpServer]] = {}

    def run(self) -> None:
        """Until Close or the end of the socket; then reap if nobody said Close."""
        self._loop.add(self._control, READ, lambda _mask: self._receive())
        try:
            self._loop.run()
        finally:
            if not self._orderly:
                self._reap()

    def _receive(self) -> None:
        try:
            requests = messages.receive(self._control, self._decoder)
        except (EOFError, ConnectionResetError):
            self._loop.running = False
            return
        for number, request in requests:
            try:
                self._handle(number, request)
            except OSError as error:
                # What the network refused says it all; where in the agent is for its own defects.
                self._reply(number, messages.Failure(str(error)))
            except Exception:  # noqa: BLE001 - whatever it is, the one who asked is told
                self._reply(number, messages.Failure(traceback.format_exc()))

    def _reply(self, number: int, reply: messages.Reply) -> None:
        try:
            self._control.sendall(messages.encode(number, reply))
        except BrokenPipeError:
            self._loop.running = False

    @property
    def prober(self) -> Prober:
        """What makes sockets; there after Setup."""
        assert self._prober is not None, "Setup comes first"
        return self._prober

    def _handle(self, number: int, message: object) -> None:
        assert isinstance(message, messages.Request)
        match message:
            case messages.RunProbes(probes, window):
                Batch(self.prober, probes, window, partial(self._reply, number)).run()
                return
            case messages.OpenFlow(flow, space, probe, interval):
                answer = partial(self._reply, number)
                self._flows[flow] = traffic.open_flow(self.prober, space, probe, interval, answer)
                return
            case messages.LookAtFlow(flow):
                self._reply(number, self._flows[flow].report())
                return
            case messages.CloseFlow(flow, patience):
                self._flows.pop(flow).close(partial(self._reply, number), patience)
                return
            case messages.StartTraffic(what, space, probe, rate):
                self._traffic[what] = traffic.Generator(self.prober, space, probe, rate)
            case messages.StopTraffic(what):
                self._traffic.pop(what).stop(partial(self._reply, number))
                return
            case messages.Setup():
                self._prepare(message)
            case messages.Write(space, values, optional):
                self._write(space, values, optional)
            case messages.Listen(space, ports, families):
                self._listen(space, ports, families)
            case messages.Unlisten(space, ports):
                for protocol, port in ports:
                    self._unlisten(space, protocol, port)
            case messages.Inject(space, packet):
                raw.inject(self.prober.spaces, space, packet)
            case messages.StartCapture(what, space, interface):
                self._captures[what] = raw.Capture(self._loop, self.prober.spaces, space, interface)
            case messages.StopCapture(what):
                self._reply(number, self._captures.pop(what).stop())
                return
            case messages.Close():
                self._orderly = True
                self._loop.running = False
            case _:
                assert_never(message)
        self._reply(number, None)

    def _prepare(self, setup: messages.Setup) -> None:
        self._setup = setup
        if setup.cgroup:
            Path(setup.cgroup, "cgroup.procs").write_text(str(os.getpid()))
        spaces = Spaces(setup.spaces)
        if setup.isolated:
            isolate()
        self._prober = Prober(self._loop, spaces)

    def _write(self, space: str, values: tuple[tuple[str, str], ...], optional: bool) -> None:
        with self.prober.spaces.inside(space):
            for key, value in values:
                # /proc/sys/net is that of the network namespace the reader is in.
                path = Path("/proc/sys", key)
                if not optional or path.exists():
                    path.write_text(value)

    def _listen(self, space: str, ports: tuple[tuple[str, int, str], ...], families: tuple[int, ...]) -> None:
        prober = self.prober
        for protocol, port, name in ports:
            self._unlisten(space, protocol, port)
            servers: list[TcpServer | UdpServer] = []
            for version in families:
                match Protocol(protocol):
                    case Protocol.TCP:
                        servers.append(
                            TcpServer(self._loop, prober.spaces, space, version, port=port, name=name)
                        )
                    case Protocol.UDP:
                        servers.append(
                            UdpServer(self._loop, prober.spaces, space, version, port=port, name=name)
                        )
                    case Protocol.SCTP:
                        prober.sctp(space, version).servers[port] = name
            self._servers[space, protocol, port] = servers

    def _unlisten(self, space: str, protocol: str, port: int) -> None:
        servers = self._servers.pop((space, protocol, port), None)
        if servers is None:
            return
        for server in servers:
            server.close()
        if protocol == Protocol.SCTP:
            for version in (4, 6):
                self.prober.sctp(space, version).servers.pop(port, None)

    def _reap(self) -> None:
        """The lab's process is gone without a word: remove what it cannot remove any more."""
        names = [n for n in self._setup.reap if (NETNS_DIR / n).exists()]
        if names:
            text = "".join(f"netns delete {n}\n" for n in names)
            subprocess.run(
                ["ip", "-force", "-batch", "-"], input=text, text=True, check=False, capture_output=True
            )
        cgroups.remove(map(Path, self._setup.reap_cgroups))


def isolate() -> None:
    """Give this process its own /run (locks, state), /sys (its network devices) and /sys/fs/bpf (pins).

    Call inside the network namespace that /sys shall show. What other labs mount and unmount later still
    propagates into here, but nothing from here to the machine.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    # Their bind mounts in here would keep other labs' namespaces alive after their end.
    with suppress(OSError):
        syscalls.unmount(str(NETNS_DIR))
    syscalls.mount("tmpfs", "/run", "tmpfs", data="mode=755")
    for folder in ("/run/lock", "/run/sys"):
        os.mkdir(folder)
    syscalls.mount("sysfs", "/run/sys", "sysfs")
    for inner in ("fs/cgroup", "kernel/debug", "kernel/tracing"):
        if os.path.ismount(f"/sys/{inner}"):
            syscalls.mount(f"/sys/{inner}", f"/run/sys/{inner}", flags=syscalls.MS_BIND | syscalls.MS_REC)
    if os.path.isdir("/run/sys/fs/bpf"):
        syscalls.mount("bpf", "/run/sys/fs/bpf", "bpf", data="mode=700")
    syscalls.mount("/run/sys", "/sys", flags=syscalls.MS_MOVE)
    os.rmdir("/run/sys")


def main() -> None:
    """Run an agent on the socket whose number is the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # A Ctrl-C in the terminal is for the lab's process, which then closes us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Agent(control).run()


if __name__ == "__main__":
    main()
