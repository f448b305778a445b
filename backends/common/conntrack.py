"""Tracked connections that a new program would not make: which those are, and how the kernel forgets them.

Knows: what Kubernetes says of connections whose endpoint or permission goes, and the conntrack tool.
Must not know: any one back end.

- A UDP flow keeps its translation for as long as packets come. If the endpoint is gone, or if the flow began before
  the service had one, its entry is deleted, so that its next packet is balanced anew. (TCP and SCTP endpoints answer
  for themselves: a new listener resets the connection, and an endpoint that ends gracefully keeps it.)
- A connection that policy denies from now on is *cut*: its entry gets the connection mark `CUT`, and the first rule of
  every policy drops what bears it, in both directions. Deleting the entry would not do: the next packet, perhaps one
  of the answering side, would make a new one the other way round, which another rule may allow. A connection that a
  later program allows again loses the mark. Where nobody knows who began (`picked_up`), both must be allowed to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from k8snetc.backends.common.picked_up import Picked, picked_up
from k8snetc.backends.common.run import CommandError, run
from k8snetc.ir.types import Address, Balance, Family, Frontend, Program, Protocol

CUT = "0x1000/0x1000"
"""Connection mark (bit 12) of connections that policy has cut."""
CUT_BIT = 0x1000
_ATTEMPTS = 5
_ENTRY = re.compile(
    r"^ipv[46] +\d+ +(\S+) [^\n]*?\bsrc=(\S+) dst=(\S+)(?: sport=\d+ dport=(\d+))?"
    r"[^\n]*? src=(\S+) dst=\S+(?: sport=(\d+) dport=\d+)?(?:[^\n]* mark=(\d+))?",
    re.MULTILINE,
)
"""What matters of an entry: as its first packet was (protocol, both addresses, destination port), who answers, mark."""
_PROTOCOLS = {p.value: p for p in Protocol}


@dataclass(frozen=True, slots=True)
class Flow:
    """One tracked connection: as its first packet was (`source` to `destination`), and where it really goes."""

    protocol: str
    source: Address
    destination: Address
    port: int
    endpoint: Address
    endpoint_port: int
    mark: int

    @property
    def filter(self) -> str:
        """Options of the conntrack tool that select this flow and its like (other source ports)."""
        text = f"-p {self.protocol} -s {self.source} -d {self.destination} -r {self.endpoint}"
        if self.protocol in _PROTOCOLS:
            text += f" --dport {self.port} --reply-port-src {self.endpoint_port}"
        return f"-f ipv{self.source.version} {text}"


def cut(old: Program | None, new: Program) -> int:
    """Forget or cut what `new` would not make, and return how many kinds of flows that were.

    `old` None: not known what ran before, so everything is looked at. Raises `CommandError` and `InstallError`.

    The conntrack tool (1.4.7) gives up where an entry ends by itself just as it is about to be forgotten, and where it
    takes the kernel's answer to one request for that to the next, for it numbers them by the clock's seconds. Nothing
    that is done twice does harm, so it is told again what is left to do.
    """
    stale = old is None or _udp(old) != _udp(new)
    denied = old is None or (old.enforcements, old.sets) != (new.enforcements, new.sets)
    told: dict[str, None] = {}
    for left in reversed(range(_ATTEMPTS if stale or denied else 0)):
        try:
            commands = dict.fromkeys(_commands(old, new, stale=stale, denied=denied))
            told |= commands
            if commands:  # "-" would be /dev/stdin, which not every machine has
                run(["conntrack", "-R", "/proc/self/fd/0"], "".join(f"{c}\n" for c in commands))
            break
        except CommandError as error:
            if error.code is None or not left:
                raise
    return len(told)


def _commands(old: Program | None, new: Program, *, stale: bool, denied: bool) -> Iterator[str]:
    only = [] if denied else ["-p", "udp"]
    flows = tuple(parse(run(["conntrack", "-L", "-o", "extended", *only])))
    if denied:
        # A kind that is allowed again may have connections that were picked up and are not, so these come after it.
        yield from (f"-U {f.filter} -m 0/{CUT_BIT:#x}" for f in allowed_again(new, flows))
        yield from (f"-U {f.filter} -m {CUT}" for f in denied_flows(new, flows))
        yield from (f"-U {f.filter} -m {CUT}" for f in denied_either_way(new, picked_up()))
    if stale:
        yield from (f"-D {f.filter}" for f in stale_udp(old, new, flows))


def parse(text: str) -> Iterator[Flow]:
    """The flows in what `conntrack -L -o extended` prints, each kind once; protocols without ports have port 0.

    A busy node has a hundred thousand entries, and only some thousand kinds: what differs in nothing but the client's
    port, timers and counters is dropped before anything is made of it.
    """
    for found in dict.fromkeys(_ENTRY.findall(text)):
        protocol, source, destination, port, endpoint, endpoint_port, mark = found
        yield Flow(
            protocol,
            ip_address(source),
            ip_address(destination),
            int(port or 0),
            ip_address(endpoint),
            int(endpoint_port) if port else 0,
            int(mark or 0),
        )


def stale_udp(old: Program | None, new: Program, flows: Iterable[Flow]) -> Iterator[Flow]:
    """UDP flows of services that go where their service has no endpoint any more, or to no endpoint at all."""
    now, before = _udp(new), _udp(old) if old is not None else {}
    for flow in flows:
        if flow.protocol != Protocol.UDP.value:
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


def denied_flows(new: Program, flows: Iterable[Flow]) -> Iterator[Flow]:
    """Flows that the policies of `new` deny and that aren't cut yet."""
    return (f for f, denied in _judged(new, flows) if denied and not f.mark & CUT_BIT)


def allowed_again(new: Program, flows: Iterable[Flow]) -> Iterator[Flow]:
    """Flows that are cut and that the policies of `new` allow."""
    return (f for f, denied in _judged(new, (f for f in flows if f.mark & CUT_BIT)) if not denied)


def denied_either_way(new: Program, connections: Iterable[Picked]) -> Iterator[Picked]:
    """Connections whose ends may not both ask the other by the policies of `new`: who of them did is not known."""
    denies = None
    for c in connections:
        denies = denies or _judge(new)
        if denies(c.source, c.endpoint, "tcp", c.endpoint_port) or denies(
            c.endpoint, c.source, "tcp", c.source_port
        ):
            yield c


def _judged(new: Program, flows: Iterable[Flow]) -> Iterator[tuple[Flow, bool]]:
    denies = _judge(new)
    return ((f, denies(f.source, f.endpoint, f.protocol, f.endpoint_port)) for f in flows)


def _judge(new: Program) -> Callable[[Address, Address, str, int], bool]:
    """Whether the policies of a program deny a connection from an address to an address, protocol and port."""
    from k8snetc.ir.interpret import Interpreter, Sender  # compiling needs the marks of this module alone

    interpreter = Interpreter(new)
    pods = frozenset(p for e in new.enforcements for p in e.pods)
    own = frozenset(new.node.addresses)

    def denies(source: Address, endpoint: Address, protocol: str, port: int) -> bool:
        if source not in pods and endpoint not in pods:
            return False
        sender = Sender.NODE if source in own or source.is_loopback else Sender.EXTERNAL
        return interpreter.judge(sender, source, endpoint, _PROTOCOLS.get(protocol), port).denial is not None

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
