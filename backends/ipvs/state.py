"""What of IPVS is ours, as values that compare: the state of this back end.

Knows: the text of `ipvsadm -Sn` and of /proc/net/ip_vs. Must not know: programs, how anything is changed.

The IPVS table of a network namespace has no owners, so all of it is taken to be ours (`warnings` names what is not).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from socket import AF_INET6, inet_ntop
from types import MappingProxyType

from k8snetc.backends.common.xtables import state as xtables
from k8snetc.backends.ipvs.model import DEVICE, Ipvs, canonical


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service: its options in canonical order, and method and weight by server."""

    options: str
    destinations: Mapping[str, tuple[str, int]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class State:
    """All that is ours. `addresses`: of the device, None where there is no device.

    `leaving`: servers of weight 0 with the connections that they still have, by service. They come and go with traffic,
    so they take no part in comparison.
    """

    services: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    addresses: frozenset[str] | None = None
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    xtables: xtables.State = field(default_factory=xtables.State)
    leaving: Mapping[str, Mapping[str, int]] = field(
        default_factory=lambda: MappingProxyType({}), compare=False
    )


def state_of(model: Ipvs) -> State:
    """The state that a lowered program wants."""
    return State(
        {
            s.key: Service(canonical(s.options), {d.server: (d.method, d.weight) for d in s.destinations})
            for s in model.services
        },
        frozenset(model.addresses) if model.addresses else None,
        {s.name: s.value for s in model.sysctls},
        xtables.state_of(model.xtables),
        {},  # unlike the default, it can leave the process
    )


def parse_services(text: str, connections: Mapping[tuple[str, str], int] = MappingProxyType({})) -> State:
    """Services and leaving servers in what `ipvsadm -Sn` prints. Raises `ValueError` with a line of another kind."""
    options: dict[str, str] = {}
    servers: dict[str, dict[str, tuple[str, int]]] = {}
    leaving: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        command, *words = line.split()
        if command not in ("-A", "-a") or len(words) < 2:
            raise ValueError(f"no line of ipvsadm -Sn: {line!r}")
        size = 3 if words[0] == "-f" and words[2:3] == ["-6"] else 2
        key, rest = " ".join(words[:size]), words[size:]
        if command == "-A":
            options[key] = canonical(" ".join(rest))
            servers.setdefault(key, {})
            continue
        server, method, weight = _destination(line, rest)
        if weight:
            servers[key][server] = (method, weight)
        else:
            leaving.setdefault(key, {})[server] = connections.get((key, server), 0)
    return State({k: Service(o, servers[k]) for k, o in options.items()}, leaving=leaving)


def _destination(line: str, words: list[str]) -> tuple[str, str, int]:
    server, method, weight = "", "", 1
    at = 0
    while at < len(words):
        match words[at]:
            case "-r":
                server = words[at + 1]
                at += 1
            case "-w":
                weight = int(words[at + 1])
                at += 1
            case "-m" | "-g" | "-i":
                method = words[at]
            case _:  # thresholds, tunnel types: not ours to read
                pass
        at += 1
    if not server or not method:
        raise ValueError(f"no line of ipvsadm -Sn: {line!r}")
    return server, method, weight


_KINDS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}


def parse_connections(text: str) -> dict[tuple[str, str], int]:
    """Connections, active and inactive, of servers of weight 0, by service and server, from /proc/net/ip_vs."""
    found: dict[tuple[str, str], int] = {}
    keys: tuple[str, ...] = ()
    for line in text.splitlines()[3:]:
        words = line.split()
        if words[0] in _KINDS:
            keys = (f"{_KINDS[words[0]]} {_place(words[1])}",)
        elif words[0] == "FWM":
            # The mark's family is not shown; of two services of one mark each has servers of its own family.
            mark = int(words[1], 16)
            keys = (f"-f {mark}", f"-f {mark} -6")
        elif words[0] == "->" and words[3] == "0":
            found |= dict.fromkeys(((k, _place(words[1])) for k in keys), int(words[4]) + int(words[5]))
    return found


def _place(text: str) -> str:
    """`0A600001:0050` or `[fd00:...:0001]:0050`, as ipvsadm writes it."""
    address, _, port = text.rpartition(":")
    if address.startswith("["):
        return f"[{inet_ntop(AF_INET6, IPv6Address(address.strip('[]')).packed)}]:{int(port, 16)}"
    return ".".join(str(b) for b in bytes.fromhex(address)) + f":{int(port, 16)}"


def print_services(services: Mapping[str, Service]) -> str:
    """The services as `parse_services` reads them."""
    return "".join(f"{line}\n" for key in sorted(services) for line in _lines(key, services[key]))


def _lines(key: str, service: Service) -> Iterator[str]:
    yield f"-A {key} {service.options}"
    for server, (method, weight) in sorted(service.destinations.items()):
        yield f"-a {key} -r {server} {method} -w {weight}"


def print_state(state: State) -> bytes:
    """The state as text that `read_state` reads back. Equal for equal states."""
    addresses = (
        "" if state.addresses is None else "".join(f"{a}\n" for a in [DEVICE, *sorted(state.addresses)])
    )
    parts = {
        "services": print_services(state.services).encode(),
        "addresses": addresses.encode(),
        "sysctls": "".join(f"{n}={v}\n" for n, v in sorted(state.sysctls.items())).encode(),
        "xtables": xtables.print_state(state.xtables),
    }
    return b"".join(f"{name} {len(data)}\n".encode() + data for name, data in parts.items())


def read_state(data: bytes) -> State:
    """The state that `print_state` printed. Raises `ValueError` for anything else."""
    parts: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, _, size = data[at:end].decode().partition(" ")
        at = end + 1 + int(size)
        parts[name] = data[end + 1 : at]
    try:
        addresses = parts["addresses"].decode().split()
        return State(
            parse_services(parts["services"].decode()).services,
            frozenset(addresses[1:]) if addresses else None,
            dict(line.split("=", 1) for line in parts["sysctls"].decode().splitlines()),
            xtables.read_state(parts["xtables"]),
        )
    except KeyError as e:
        raise ValueError(f"no dumped state: {e} is missing") from e
