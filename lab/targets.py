"""What there is to reach in a lab, and questions like `from pod/shop/cart-0 to svc/shop/db:5432/tcp`.

Knows: the frontends of the programs and the ports of the topology. Must not know: what will become of a probe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address

from k8snetc.ir.types import Address, Exposure, Family, Frontend, Program, Protocol
from k8snetc.lab.probe import Probe
from k8snetc.lab.topology import Client, Node, Pod, Topology

_QUESTION = re.compile(r"\s*(?:from\s+)?(?P<client>\S+)\s+to\s+(?P<target>\S+)\s*")
_TARGET = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+?)(?::(?P<port>[A-Za-z0-9-]+))?(?:/(?P<protocol>tcp|udp|sctp|icmp))?"
)


class QuestionError(ValueError):
    """The question is not understood, or names something that is not there. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address, protocol and port to try, and the name that people know it by."""

    name: str
    address: Address
    protocol: Protocol | None
    port: int

    @property
    def family(self) -> Family:
        """The family of its address."""
        return Family(self.address.version)

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}/icmp" if self.protocol is None else f"{host}:{self.port}/{self.protocol}"


def services(topology: Topology, programs: Mapping[str, Program]) -> list[Target]:
    """Every address of every service port, each once; NodePorts on every address of every node."""
    found: dict[Target, None] = {}
    for frontend in _frontends(programs):
        for target in _of_frontend(topology, frontend):
            found[target] = None
    return sorted(found, key=lambda t: (t.name, t.address.version, int(t.address), t.port))


def ports(topology: Topology) -> list[Target]:
    """Every port that a pod listens on, at the pod's own addresses."""
    return [
        Target(pod.place, address, port.protocol, port.number)
        for pod in topology.pods
        for address in topology.addresses(pod.place)
        for port in pod.ports
    ]


def clients(topology: Topology) -> list[str]:
    """The places that probes come from: pods, nodes, and the clients outside that serve nobody."""
    return [p.place for p in topology.all if not (isinstance(p, Client) and p.ports)]


def probes(topology: Topology, client: str, target: Target, timeout: float) -> list[Probe]:
    """One probe from each of an outside client's addresses, else one; none where the client lacks the family."""
    addresses = [a for a in topology.addresses(client) if a.version == target.address.version]
    if isinstance(topology.places[client], Client):
        return [
            Probe(client, target.address, target.protocol, target.port, source, timeout=timeout)
            for source in addresses
        ]
    if not addresses:
        return []
    return [Probe(client, target.address, target.protocol, target.port, timeout=timeout)]


def ask(topology: Topology, programs: Mapping[str, Program], question: str) -> tuple[str, list[Target]]:
    """The client and the targets of a question. Raises `QuestionError`."""
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise QuestionError(
            f"{question!r}: write it as 'from pod/NAMESPACE/NAME to svc/NAMESPACE/NAME:PORT/tcp'"
        )
    client = match["client"]
    if client not in topology.places:
        raise QuestionError(f"{client!r} is not in this lab; {_near(client, topology.places)}")
    return client, _targets(topology, programs, match["target"])


def _targets(topology: Topology, programs: Mapping[str, Program], text: str) -> list[Target]:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise QuestionError(
            f"{text!r}: write svc/NAMESPACE/NAME:PORT, pod/NAMESPACE/NAME:PORT, node/NAME:PORT or IP:PORT, then /tcp, "
            "/udp, /sctp or /icmp"
        )
    host, port, name = match["host"], match["port"], match["protocol"] or "tcp"
    protocol = None if name == "icmp" else Protocol(name)
    if host.startswith("svc/"):
        return _service(topology, programs, host, port, protocol, said=match["protocol"] is not None)
    if protocol is not None and not (port and port.isdecimal() and 0 < int(port) < 65536):
        raise QuestionError(f"{text!r} needs a port, as {host}:80/{name}")
    number = int(port) if protocol is not None and port else 0
    if host in topology.places:
        return [Target(host, a, protocol, number) for a in topology.addresses(host)]
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        raise QuestionError(f"{host!r} is not in this lab; {_near(host, topology.places)}") from None
    return [Target(topology.owners.get(address, ""), address, protocol, number)]


def _service(
    topology: Topology,
    programs: Mapping[str, Program],
    host: str,
    port: str | None,
    protocol: Protocol | None,
    *,
    said: bool,
) -> list[Target]:
    """Every address of the ports of a service that fit. Without a port, all of its ports."""
    service = host.removeprefix("svc/")
    frontends = [f for f in _frontends(programs) if _split(f.service)[0] == service]
    if not frontends:
        names = {f"svc/{_split(f.service)[0]}" for f in _frontends(programs)}
        raise QuestionError(f"there is no service {host!r} with an address; {_near(host, names)}")
    if protocol is None:
        addresses = {(f.service, f.address) for f in frontends if f.address is not None}
        return [Target(name, a, None, 0) for name, a in sorted(addresses, key=str)]
    fitting = [
        f
        for f in frontends
        if (not said or f.protocol is protocol)
        and (port is None or port in {str(f.port), _split(f.service)[1]})
    ]
    if not fitting:
        known = ", ".join(sorted({f"{f.port}/{f.protocol}" for f in frontends}))
        raise QuestionError(
            f"{host} has no port {port or ''}{'/' + protocol if said else ''}; it has {known}"
        )
    return sorted(
        {t for f in fitting for t in _of_frontend(topology, f)},
        key=lambda t: (t.name, t.address.version, int(t.address), t.port),
    )


def _frontends(programs: Mapping[str, Program]) -> Iterator[Frontend]:
    for program in programs.values():
        yield from program.frontends


def _split(service: str) -> tuple[str, str]:
    """A frontend's service as namespace/name and port name ("" if the port has none)."""
    owner, _, port = service.partition(":")
    return owner, port


def _of_frontend(topology: Topology, frontend: Frontend) -> Iterator[Target]:
    if frontend.exposure is not Exposure.NODE_PORT:
        assert frontend.address is not None
        yield Target(frontend.service, frontend.address, frontend.protocol, frontend.port)
        return
    for node in topology.nodes:
        for address in node.addresses:
            if Family(address.version) is frontend.family:
                yield Target(frontend.service, address, frontend.protocol, frontend.port)


def _near(name: str, names: Iterable[str]) -> str:
    known = sorted(names)
    near = get_close_matches(name, known, 1, 0.4)
    if near:
        return f"did you mean {near[0]}?"
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"there is {shown or 'nothing'}"


def thinned(topology: Topology, names: list[str], most: int) -> list[str]:
    """At most about `most` of the clients: all that are no pods, and pods taken evenly from every node."""
    if len(names) <= most:
        return names
    pods = [n for n in names if isinstance(topology.places[n], Pod)]
    others = [n for n in names if n not in set(pods)]
    room = max(most - len(others), len(topology.nodes))
    by_node: dict[str | None, list[str]] = {}
    for name in pods:
        by_node.setdefault(topology.node_of(name), []).append(name)
    share = max(1, room // max(1, len(by_node)))
    kept = {n for names in by_node.values() for n in names[:share]}
    return [n for n in names if n in kept or n in set(others)]


def is_own(topology: Topology, client: str, address: Address) -> bool:
    """Whether an address is the client's own, as it sends."""
    return address in topology.addresses(client) or (
        isinstance(topology.places[client], Node) and address.is_loopback
    )
