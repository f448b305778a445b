"""Tracked connections that a new program would not make: which those are, and how the kernel forgets them.

Knows: what Kubernetes says of connections whose endpoint or permission goes.
Must not know: any one back end.

- A UDP flow keeps its translation for as long as packets come. If the endpoint is gone, or if the flow began before
  the service had one, its entry is deleted, so that its next packet is balanced anew. (TCP and SCTP endpoints answer
  for themselves: a new listener resets the connection, and an endpoint that ends gracefully keeps it.)
- A connection that policy denies from now on is *cut*: its entry gets the connection mark `CUT`, and the first rule of
  every policy drops what bears it, in both directions. Deleting the entry would not do: the next packet, perhaps one
  of the answering side, would make a new one the other way round, which another rule may allow. A connection that a
  later program allows again loses the mark. Where nobody knows who began (`ctnetlink`), both must be allowed to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from k8snetc.backends.common import ctnetlink
from k8snetc.backends.common.ctnetlink import Flow
from k8snetc.ir.types import Address, Balance, Family, Frontend, Program, Protocol

CUT = "0x1000/0x1000"
"""Connection mark (bit 12) of connections that policy has cut."""
CUT_BIT = 0x1000


def cut(old: Program | None, new: Program) -> int:
    """Forget or cut what `new` would not make, and return how many kinds of flows that were.

    `old` None: not known what ran before, so everything is looked at. Raises `InstallError`.
    """
    stale = old is None or _udp(old) != _udp(new)
    denied = old is None or (old.enforcements, old.sets) != (new.enforcements, new.sets)
    if not stale and not denied:
        return 0
    flows = ctnetlink.flows(CUT_BIT, None if denied else Protocol.UDP)
    ended, again = judged(new, flows) if denied else ((), ())
    gone = tuple(stale_udp(old, new, flows)) if stale else ()
    ctnetlink.set_mark(_entries(ended), CUT_BIT, CUT_BIT)
    ctnetlink.set_mark(_entries(again), 0, CUT_BIT)
    ctnetlink.forget(_entries(gone))
    return len(ended) + len(gone)


def _entries(flows: Iterable[Flow]) -> Iterator[ctnetlink.Entry]:
    return chain.from_iterable(f.entries for f in flows)


def stale_udp(old: Program | None, new: Program, flows: Iterable[Flow]) -> Iterator[Flow]:
    """UDP flows of services that go where their service has no endpoint any more, or to no endpoint at all."""
    now, before = _udp(new), _udp(old) if old is not None else {}
    for flow in flows:
        if flow.protocol is not Protocol.UDP:
            continue
        translated = (flow.destination, flow.port) != (flow.endpoint, flow.endpoint_port)
        family = Family(flow.source.version)
        for key in ((flow.destination, flow.port), (family, flow.port)):
            # A port of the node's own: only what was translated, or every flow to such a port of anyone would be one.
            if (key not in now and key not in before) or (key[0] is family and not translated):
                continue
            endpoints = now.get(key)
            if endpoints is None and not translated:
                continue
            there = (flow.endpoint, flow.endpoint_port)
            if there not in (endpoints or ()) and (key[0] is not family or there in before.get(key, ())):
                yield flow
            break


def judged(new: Program, flows: Iterable[Flow]) -> tuple[tuple[Flow, ...], tuple[Flow, ...]]:
    """Flows that the policies of `new` deny and that aren't cut yet, and flows that are cut and that they allow.

    If nobody knows which end asked, a flow is denied where not both may ask the other.
    """
    denies = _judge(new)
    ended: list[Flow] = []
    again: list[Flow] = []
    for f in flows:
        denied = denies(f.source, f.endpoint, f.protocol, f.endpoint_port)
        if f.source_port is not None:
            denied = denied or denies(f.endpoint, f.source, f.protocol, f.source_port)
        if denied != bool(f.mark & CUT_BIT):
            (ended if denied else again).append(f)
    return tuple(ended), tuple(again)


def _judge(new: Program) -> Callable[[Address, Address, Protocol | None, int], bool]:
    """Whether the policies of a program deny a connection from an address to an address, protocol and port."""
    from k8snetc.ir.interpret import Interpreter, Sender  # compiling needs the marks of this module alone

    interpreter = Interpreter(new)
    pods = frozenset(p for e in new.enforcements for p in e.pods)
    own = frozenset(new.node.addresses)

    def denies(source: Address, endpoint: Address, protocol: Protocol | None, port: int) -> bool:
        if source not in pods and endpoint not in pods:
            return False
        sender = Sender.NODE if source in own or source.is_loopback else Sender.EXTERNAL
        return interpreter.judge(sender, source, endpoint, protocol, port).denial is not None

    return denies


_Served = dict[tuple[Address | Family, int], frozenset[tuple[Address, int]]]


def _udp(program: Program) -> _Served:
    """The endpoints of each UDP frontend, over all its routes."""
    balancers = {b.name: b for b in program.balancers}

    def endpoints(frontend: Frontend) -> frozenset[tuple[Address, int]]:
        names = {r.action.balancer for r in frontend.routes if isinstance(r.action, Balance)}
        return frozenset((e.address, e.port) for n in names for e in balancers[n].endpoints)

    return {
        (f.family if f.address is None else f.address, f.port): endpoints(f)
        for f in program.frontends
        if f.protocol is Protocol.UDP
    }
