"""From one state of IPVS to another: the lines of ipvsadm and ip, in an order that no service suffers by.

Knows: what comes before what. Must not know: programs, how lines get to the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.common.xtables import changes as xtables
from k8snetc.backends.ipvs.emit import address_line
from k8snetc.backends.ipvs.model import DEVICE, UDP_MARK
from k8snetc.backends.ipvs.state import Service, State
from k8snetc.backends.target import Change

_GONE = Service("")


def marked_lines(live: State, goal: State) -> list[str]:
    """New services of marks: nothing reaches them yet."""
    return [line for key in sorted(_new(live, goal)) if key.startswith("-f ") for line in _create(key, goal)]


def service_lines(live: State, goal: State) -> list[str]:
    """New services of addresses, and all changes inside services. Servers come before others go."""
    lines = [ln for key in sorted(_new(live, goal)) if not key.startswith("-f ") for ln in _create(key, goal)]
    for key in sorted(live.services.keys() & goal.services.keys()):
        lines.extend(_change(key, live, goal))
    return lines


def removal_lines(live: State, goal: State) -> list[str]:
    """Services that go as a whole."""
    return [f"-D {key}" for key in sorted(live.services.keys() - goal.services.keys())]


def collected_lines(live: State, goal: State) -> list[str]:
    """Servers that were leaving and have no connection left."""
    return [
        f"-d {key} -r {server}"
        for key in sorted(live.leaving.keys() & goal.services.keys())
        for server, connections in sorted(live.leaving[key].items())
        if connections == 0 and server not in goal.services[key].destinations
    ]


def address_lines(live: State, goal: State) -> tuple[list[str], list[str]]:
    """Lines of `ip -batch`: those that add (the device first), and those that remove (the device last)."""
    there, wanted = live.addresses or frozenset(), goal.addresses or frozenset()
    coming = [address_line("replace", a) for a in sorted(wanted - there)]
    going = [address_line("delete", a) for a in sorted(there - wanted)]
    if live.addresses is None and goal.addresses is not None:
        coming.insert(0, f"link add {DEVICE} type dummy")
    if live.addresses is not None and goal.addresses is None:
        going = [f"link delete {DEVICE}"]
    return coming, going


def changes(live: State, goal: State) -> tuple[Change, ...]:
    """For people. Empty exactly when `goal` is what `live` does; servers that are leaving do nothing any more."""
    return tuple(_changes(live, goal))


def _changes(live: State, goal: State) -> Iterator[Change]:
    for name, value in sorted(goal.sysctls.items()):
        now = live.sysctls.get(name)
        if now != value:
            yield Change(f"setting {name}", (now,) if now is not None else (), (value,))
    for key in sorted({*live.services, *goal.services}):
        was, will = live.services.get(key, _GONE), goal.services.get(key, _GONE)
        if was != will:
            before, after = _shown(was), _shown(will)
            yield Change(
                f"virtual service {key}",
                tuple(line for line in before if line not in after),
                tuple(line for line in after if line not in before),
            )
    if live.addresses != goal.addresses:
        there, wanted = live.addresses or frozenset(), goal.addresses or frozenset()
        removed, added = tuple(sorted(there - wanted)), tuple(sorted(wanted - there))
        if live.addresses is None or goal.addresses is None:
            removed = ((), (DEVICE,))[goal.addresses is None] + removed
            added = ((), (DEVICE,))[live.addresses is None] + added
        yield Change(f"addresses of {DEVICE}", removed, added)
    yield from xtables.changes(live.xtables, goal.xtables)


def _shown(service: Service) -> list[str]:
    if service is _GONE:
        return []
    servers = (f"-r {s} {m} -w {w}" for s, (m, w) in sorted(service.destinations.items()))
    return [service.options, *servers]


def _new(live: State, goal: State) -> set[str]:
    return goal.services.keys() - live.services.keys()


def _create(key: str, goal: State) -> Iterator[str]:
    service = goal.services[key]
    yield f"-A {key} {service.options}"
    for server, (method, weight) in sorted(service.destinations.items()):
        yield f"-a {key} -r {server} {method} -w {weight}"


def _serves_udp(key: str) -> bool:
    kind, place = key.split()[:2]
    return kind == "-u" or (kind == "-f" and bool(int(place) & UDP_MARK))


def _change(key: str, live: State, goal: State) -> Iterator[str]:
    was, will = live.services[key], goal.services[key]
    leaving = live.leaving.get(key, {})
    if was.options != will.options:
        yield f"-E {key} {will.options}"
    for server, (method, weight) in sorted(will.destinations.items()):
        if server not in was.destinations:
            yield f"-{'e' if server in leaving else 'a'} {key} -r {server} {method} -w {weight}"
        elif was.destinations[server] != (method, weight):
            yield f"-e {key} -r {server} {method} -w {weight}"
    for server, (method, _) in sorted(was.destinations.items()):
        if server in will.destinations:
            continue
        if _serves_udp(key) or will.options.split()[:2] == ["-s", "dh"]:
            # Nothing tells a UDP client that its server is gone: its next packet shall find another one. And dh, which
            # has no fallback, would refuse whom it hashes to a server of weight 0.
            yield f"-d {key} -r {server}"
        else:
            yield f"-e {key} -r {server} {method} -w 0"
