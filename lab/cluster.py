"""A cluster of network namespaces: built, used and removed.

Knows the order of building and the tools. Must not know how traffic ought to be treated: rules are put into a node by
`run` or `call`, and probes report what the kernel did.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import signal
import subprocess
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from k8snetc.ir.types import Address, Protocol
from k8snetc.lab import cgroups, flush, messages, names, syscalls, wiring
from k8snetc.lab.handle import AgentHandle, LabError
from k8snetc.lab.probe import DEFAULT_TIMEOUT, Probe, ProbeResult
from k8snetc.lab.sessions import Capture, Flow, Traffic
from k8snetc.lab.topology import Pod, Port, Topology

P = ParamSpec("P")
R = TypeVar("R")

_OUTSIDE = ""
_WINDOW = 512
_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP, "icmp": None}


def clean_leftovers() -> list[str]:
    """Remove namespaces and cgroups of labs whose process is gone. Returns their names."""
    abandoned = [n for n in names.netns_names() if names.is_abandoned(n)]
    _delete(abandoned)
    folders = cgroups.abandoned()
    cgroups.remove(folders, patience=0)
    return abandoned + [str(f) for f in folders]


class Cluster:
    """A running lab. Use it as a context manager; the end of the process, however it comes, removes it too.

    Places are named as in `Topology`. `with_cgroups`: the sockets of each node and its pods are in a cgroup of its own
    (see `cgroup`). Raises `LabError` when a tool fails, with the tool's own words.
    """

    def __init__(self, topology: Topology, *, with_cgroups: bool = False) -> None:
        self.topology = topology
        self.name = names.new_lab()
        self._owner = os.getpid()
        self._spaces = wiring.spaces(topology)
        self._names = {s: names.netns_name(self.name, s) for s in self._spaces}
        self._agents: dict[str, AgentHandle] = {}
        self._cgroups: dict[str, Path] = {}
        if with_cgroups:
            root = cgroups.mount_point()
            if root is None:
                raise LabError("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
            self._cgroups = {n: root / f"{self.name}-{n}" for n in topology.node_by_name}
        # Without a reference to self, so that a forgotten cluster is collected, and with it removed.
        self._finalizer = weakref.finalize(
            self, _remove, self._owner, self._agents, list(self._names.values()), list(self._cgroups.values())
        )
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything. Safe to call twice; never raises."""
        self._finalizer()

    # --- where things are ---

    def netns(self, place: str) -> str:
        """The network namespace of a place, as `ip netns exec` takes it."""
        return self._names[self.topology.home(place) if place != wiring.UNDERLAY else place]

    def interface(self, pod: str) -> str:
        """The name of the node's interface to a pod (a place)."""
        found = self.topology.places[pod]
        if not isinstance(found, Pod) or found.host_network:
            raise LabError(f"{pod} has no interface of its own on a node")
        return wiring.interface(self.topology, found)

    def node_path(self, node: str, path: str) -> Path:
        """A file as the node sees it (its /run, /sys), seen from here."""
        return Path(f"/proc/{self._agents[node].pid}/root{path}")

    @property
    def has_cgroups(self) -> bool:
        """Whether each node has a cgroup of its own."""
        return bool(self._cgroups)

    def cgroup(self, node: str) -> Path:
        """The cgroup of a node's and its pods' sockets; only with `with_cgroups`."""
        if node not in self._cgroups:
            raise LabError("this lab has no cgroups: build it with Cluster(topology, with_cgroups=True)")
        return self._cgroups[node]

    def enter_command(self, place: str) -> list[str]:
        """The words that, put before a command, run it where `run` would."""
        words = ["nsenter", f"--net={names.NETNS_DIR / self.netns(place)}"]
        node = self.topology.node_of(place)
        if node is not None:
            words.append(f"--mount=/proc/{self._agents[node].pid}/ns/mnt")
        return words

    # --- run something there ---

    def run(
        self,
        place: str,
        command: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - the word of subprocess.run
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a place's network namespace and its node's view of /run and /sys.

        Raises LabError when it fails and `check` is True.
        """
        done = subprocess.run(
            self._command(place, command),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=None if env is None else {**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise LabError(
                f"{' '.join(command)} in {place}: exit status {done.returncode}\n{done.stderr}{done.stdout}"
            )
        return done

    def popen(
        self,
        place: str,
        command: Sequence[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a command like `run`, without waiting. The process id is that of the command itself."""
        return subprocess.Popen(
            self._command(place, command), stdin=stdin, stdout=stdout, stderr=stderr, text=True
        )

    def call(self, place: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in a forked child inside a place, and return what it returns (it must pickle).

        An exception of the function is raised here.
        """
        net = names.NETNS_DIR / self.netns(place)
        node = self.topology.node_of(place)
        mount = None if node is None else f"/proc/{self._agents[node].pid}/ns/mnt"
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            # A child that outlives a killed parent would keep the lab's namespaces alive.
            syscalls.die_with(parent)
            _child(writer, str(net), mount, lambda: function(*args, **kwargs))
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                data = pipe.read()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
        if not data:
            raise LabError(f"the child in {place} ended with status {os.waitstatus_to_exitcode(status)}")
        ok, value = pickle.loads(data)  # noqa: S301 - written by our own child
        if not ok:
            raise value
        result: R = value
        return result

    def sysctl(self, place: str, key: str, value: str) -> None:
        """Write a sysctl in a place, e.g. `net/ipv4/conf/all/route_localnet`."""
        space = self.topology.home(place)
        self._agent(place).ask(messages.Write(space, ((key, value),)))

    def reset(self, *nodes: str) -> None:
        """Remove all rules, sets, tracked connections, BPF pins and state of those nodes (default: all)."""
        for node in nodes or self.topology.node_by_name:
            self.call(f"node/{node}", flush.everything)

    # --- traffic ---

    def listen(self, place: str, port: Port, *, families: tuple[int, ...] | None = None) -> None:
        """Let a place serve one more port (in the families it has an address of)."""
        if families is None:
            families = self._families(place)
        wanted = ((port.protocol.value, port.number, place),)
        self._agent(place).ask(messages.Listen(self.topology.home(place), wanted, families))

    def unlisten(self, place: str, port: Port) -> None:
        """Stop serving a port."""
        gone = ((port.protocol.value, port.number),)
        self._agent(place).ask(messages.Unlisten(self.topology.home(place), gone))

    def probe(
        self,
        client: str,
        destination: Address | str,
        port: int = 0,
        protocol: Protocol | str | None = Protocol.TCP,
        *,
        source: Address | str | None = None,
        source_port: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connected: bool = True,
    ) -> ProbeResult:
        """Try once and wait for what comes of it. `protocol` None (or "icmp") is an ICMP echo."""
        probe = Probe(
            client,
            _address(destination),
            protocol if protocol is None else _PROTOCOLS[protocol],
            port,
            None if source is None else _address(source),
            source_port,
            timeout,
            connected,
        )
        return self.probe_all([probe])[0]

    def flow(self, probe: Probe, *, interval: float = 0.02) -> Flow:
        """Open a TCP connection or UDP flow that sends a message every `interval` seconds, until closed."""
        return Flow(self._agents[self._prober(probe)], self.topology.home(probe.client), probe, interval)

    def traffic(self, probe: Probe, *, rate: float = 100) -> Traffic:
        """Try again and again, `rate` times a second, until stopped. Mind the probe's time-out."""
        return Traffic(self._agents[self._prober(probe)], self.topology.home(probe.client), probe, rate)

    def inject(self, place: str, packet: bytes) -> None:
        """Send an IP packet, header and all, from a place (`packets` builds some). Raises LabError."""
        self._agent(place).ask(messages.Inject(self.topology.home(place), packet))

    def capture(self, place: str, interface: str = "") -> Capture:
        """Record the IP packets of an interface of a place, or of all its interfaces, until stopped."""
        return Capture(self._agent(place), self.topology.home(place), interface)

    def probe_all(self, probes: Iterable[Probe], *, window: int = _WINDOW) -> list[ProbeResult]:
        """Run many probes at once, at most `window` per agent, and return the results in their order."""
        numbered = list(enumerate(probes))
        by_agent: dict[str, list[tuple[int, Probe]]] = {}
        for at, probe in numbered:
            by_agent.setdefault(self._prober(probe), []).append((at, probe))
        asked = [
            (key, self._agents[key].send(self._probes((p for _, p in part), window)), [at for at, _ in part])
            for key, part in by_agent.items()
        ]
        results: dict[int, ProbeResult] = {}
        for key, number, places in asked:
            reply = self._agents[key].reply(number)
            assert isinstance(reply, tuple)
            results.update(zip(places, reply, strict=True))
        return [results[at] for at, _ in numbered]

    # --- the inside ---

    def _probes(self, probes: Iterable[Probe], window: int) -> messages.RunProbes:
        return messages.RunProbes(tuple((self.topology.home(p.client), p) for p in probes), window)

    def _agent_key(self, place: str) -> str:
        if place not in self.topology.places:
            raise LabError(f"there is no {place!r} in this lab: {', '.join(self.topology.places)}")
        return self.topology.node_of(place) or _OUTSIDE

    def _prober(self, probe: Probe) -> str:
        """The agent that makes a probe. The one outside a node's cgroup is started when first needed."""
        node = self._agent_key(probe.client)
        if probe.in_cgroup or node not in self._cgroups:
            return node
        key = f"{node}/outside its cgroup"
        if key not in self._agents:
            agent = self._agents[key] = AgentHandle(key)
            agent.ask(messages.Setup(self._paths(node)))
        return key

    def _agent(self, place: str) -> AgentHandle:
        return self._agents[self._agent_key(place)]

    def _families(self, place: str) -> tuple[int, ...]:
        return tuple(sorted({a.version for a in self.topology.addresses(place)}))

    def _command(self, place: str, command: Sequence[str]) -> list[str]:
        # Entering a mount namespace changes to its root; relative paths are to mean what they mean here.
        return [*self.enter_command(place), "--", "env", f"--chdir={Path.cwd()}", "--", *command]

    def _spaces_of(self, agent: str) -> list[str]:
        if agent == _OUTSIDE:
            return [wiring.UNDERLAY, *(c.place for c in self.topology.clients)]
        node = self.topology.node_by_name[agent]
        return [node.place, *(p.place for p in wiring.pods_on(self.topology, agent))]

    def _build(self) -> None:
        for tool in ("ip", "nsenter"):
            if shutil.which(tool) is None:
                raise LabError(f"{tool} is missing: apt-get install iproute2 util-linux")
        if os.geteuid() != 0:
            raise LabError("a lab needs root, because it makes network namespaces")
        clean_leftovers()
        # The agents start while the kernel makes the namespaces.
        for key in (_OUTSIDE, *self.topology.node_by_name):
            self._agents[key] = AgentHandle(f"node {key}" if key else "the outside")
        for folder in self._cgroups.values():
            folder.mkdir()
        _batch(f"netns add {n}" for n in self._names.values())
        plan = wiring.wire(self.topology, self._names)
        self._each(self._setups())
        self._each(
            (key, messages.Write(space, plan.sysctls[space]))
            for key in self._agents
            for space in self._spaces_of(key)
        )
        self._each(
            (key, messages.Write(space, wiring.OPTIONAL_SYSCTLS, optional=True))
            for key in self._agents
            for space in self._spaces_of(key)
        )
        _batch(plan.links)
        _batch_inside({self._names[space]: lines for space, lines in plan.inside.items()})
        self._each(self._listeners())

    def _each(self, requests: Iterable[tuple[str, messages.Request]]) -> None:
        """Ask all, then wait for all."""
        asked = [(self._agents[key], self._agents[key].send(request)) for key, request in requests]
        for agent, number in asked:
            agent.reply(number)

    def _setups(self) -> Iterable[tuple[str, messages.Request]]:
        for key in self._agents:
            if key == _OUTSIDE:
                folders = tuple(map(str, self._cgroups.values()))
                yield (
                    key,
                    messages.Setup(self._paths(key), reap=tuple(self._names.values()), reap_cgroups=folders),
                )
            else:
                folder = str(self._cgroups.get(key, ""))
                yield key, messages.Setup(self._paths(key), isolated=True, cgroup=folder)

    def _paths(self, agent: str) -> tuple[tuple[str, str], ...]:
        return tuple((s, str(names.NETNS_DIR / self._names[s])) for s in self._spaces_of(agent))

    def _listeners(self) -> Iterable[tuple[str, messages.Request]]:
        for place in self.topology.places.values():
            if place.ports:
                wanted = tuple((p.protocol.value, p.number, place.place) for p in place.ports)
                yield (
                    self._agent_key(place.place),
                    messages.Listen(self.topology.home(place.place), wanted, self._families(place.place)),
                )


def _address(value: Address | str) -> Address:
    return ip_address(value) if isinstance(value, str) else value


def _child(writer: int, net: str, mount: str | None, work: Callable[[], object]) -> None:
    """The forked child of `call`; never returns."""
    status = 1
    try:
        try:
            with open(net, "rb") as fd:
                syscalls.setns(fd.fileno(), syscalls.CLONE_NEWNET)
            if mount is not None:
                cwd = os.getcwd()
                with open(mount, "rb") as fd:
                    syscalls.setns(fd.fileno(), syscalls.CLONE_NEWNS)
                os.chdir(cwd)
            outcome: tuple[bool, object] = (True, work())
        except BaseException as error:  # noqa: BLE001 - handed to the parent, which raises it
            outcome = (False, error)
        try:
            data = pickle.dumps(outcome)
            pickle.loads(data)  # noqa: S301 - ours; some exceptions only fail here
        except Exception:  # noqa: BLE001 - what does not pickle is said in words
            kind, value = ("raised", outcome[1]) if not outcome[0] else ("returned", outcome[1])
            data = pickle.dumps((False, LabError(f"{kind} {type(value).__name__}: {value}")))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)
        status = 0
    finally:
        os._exit(status)


def _batch(lines: Iterable[str]) -> None:
    text = "\n".join(lines) + "\n"
    done = subprocess.run(
        ["ip", "-batch", "-"], input=text, text=True, capture_output=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise LabError(f"ip -batch: {done.stderr.strip()}\n{text}")


def _batch_inside(batches: Mapping[str, Iterable[str]]) -> None:
    """One `ip -batch` per namespace, a few at a time."""
    waiting = iter(batches.items())
    running: list[tuple[str, str, subprocess.Popen[str]]] = []
    problems: list[str] = []
    while True:
        for name, lines in itertools.islice(waiting, 4 - len(running)):
            text = "\n".join(lines) + "\n"
            process = subprocess.Popen(
                ["ip", "-netns", name, "-batch", "-"],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.append((name, text, process))
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.close()
        if not running:
            break
        name, text, process = running.pop(0)
        assert process.stderr is not None
        with process.stderr:
            words = process.stderr.read()
        if process.wait(60) != 0:
            problems.append(f"ip -netns {name} -batch: {words.strip()}\n{text}")
    if problems:
        raise LabError("\n".join(problems))


def _delete(netns: Sequence[str]) -> None:
    there = [n for n in netns if (names.NETNS_DIR / n).exists()]
    if there:
        text = "".join(f"netns delete {n}\n" for n in there)
        with suppress(OSError):
            subprocess.run(
                ["ip", "-force", "-batch", "-"], input=text, text=True, capture_output=True, check=False
            )


def _remove(owner: int, agents: dict[str, AgentHandle], netns: list[str], folders: list[Path]) -> None:
    if os.getpid() != owner:
        return  # a forked child: the lab is its parent's
    for agent in agents.values():
        agent.close()
    agents.clear()
    _delete(netns)
    cgroups.remove(folders)
