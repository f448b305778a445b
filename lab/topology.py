"""What a lab cluster consists of: nodes, pods, outside clients, their addresses and open ports.

Knows: what is there and where it lives. Must not know: namespaces, links, manifests, or how traffic is treated.

A place is where packets start or end, written as in `k8snetc trace`: `pod/shop/cart-0`, `node/worker-1`,
`client/outside`. A host-network pod is a place of its own but lives in its node's namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from k8snetc.ir.types import Address, Family, Network, Protocol

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class TopologyError(ValueError):
    """The description contradicts itself. The message names the place and says what to change."""


class Port(NamedTuple):
    """A port that a place listens on, in every family it has an address of."""

    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster. The first address of each family is its primary one.

    `pod_networks` are routed to it by the other nodes. `sysctls` are written after the lab's own, names as
    `net/ipv4/conf/all/route_localnet`. `ports` are those of the node's own processes.
    """

    name: str
    addresses: tuple[Address, ...]
    pod_networks: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """Its name as a place."""
        return f"node/{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with its addresses, at most one per family. A host-network pod has none of its own."""

    namespace: str
    name: str
    node: str
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()
    host_network: bool = False

    @property
    def place(self) -> str:
        """Its name as a place."""
        return f"pod/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Client:
    """A machine outside the cluster, on the nodes' network.

    It reaches nodes directly, pods through their node, and everything else (service addresses) through
    the node `gateway`, by default the first.
    """

    name: str
    addresses: tuple[Address, ...]
    gateway: str = ""
    ports: tuple[Port, ...] = ()

    @property
    def place(self) -> str:
        """Its name as a place."""
        return f"client/{self.name}"


Place = Node | Pod | Client


@dataclass(frozen=True)
class Topology:
    """A whole cluster. Checks itself: unique names and addresses, known nodes, no port listened on twice."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...] = ()
    clients: tuple[Client, ...] = ()

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise TopologyError("\n".join(problems))

    @property
    def all(self) -> tuple[Place, ...]:
        """Nodes, pods and clients."""
        return (*self.nodes, *self.pods, *self.clients)

    @cached_property
    def places(self) -> dict[str, Place]:
        """Everything by its name as a place."""
        return {p.place: p for p in self.all}

    @cached_property
    def node_by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {n.name: n for n in self.nodes}

    @cached_property
    def owners(self) -> dict[Address, str]:
        """Which place has an address. A node's address is the node's, also with host-network pods on it."""
        return {a: p.place for p in self.all for a in p.addresses}

    def home(self, place: str) -> str:
        """The place whose network namespace `place` lives in: a host-network pod lives in its node's."""
        match self.places[place]:
            case Pod(host_network=True, node=node):
                return f"node/{node}"
            case _:
                return place

    def node_of(self, place: str) -> str | None:
        """The name of the node that a place belongs to; None for an outside client."""
        match self.places[place]:
            case Node(name=name) | Pod(node=name):
                return name
            case Client():
                return None

    def addresses(self, place: str) -> tuple[Address, ...]:
        """The addresses that packets from a place carry."""
        return self.places[self.home(place)].addresses

    def address(self, place: str, family: Family) -> Address | None:
        """The first address of a place in a family."""
        return next((a for a in self.addresses(place) if a.version == family), None)

    def gateway(self, client: Client) -> Node | None:
        """The node a client sends to what it has no route for."""
        if client.gateway:
            return self.node_by_name[client.gateway]
        return self.nodes[0] if self.nodes else None

    def _problems(self) -> Iterator[str]:
        yield from self._name_problems()
        nodes = {n.name for n in self.nodes}
        for pod in self.pods:
            if pod.node not in nodes:
                yield f"{pod.place}: there is no node {pod.node!r}; add it or move the pod"
            if pod.host_network and pod.addresses:
                yield f"{pod.place}: a host-network pod has its node's addresses; give it none"
            if not pod.host_network and not pod.addresses:
                yield f"{pod.place}: a pod needs an address to take part; leave it out or give it one"
            if len({a.version for a in pod.addresses}) != len(pod.addresses):
                yield f"{pod.place}: two addresses of one family; a pod has at most one of each"
        for client in self.clients:
            if client.gateway and client.gateway not in nodes:
                yield f"{client.place}: there is no node {client.gateway!r} to be its gateway"
        owner: dict[Address, str] = {}
        for place in self.all:
            for address in place.addresses:
                if address in owner:
                    yield f"{place.place}: {address} is already {owner[address]}'s; addresses are unique"
                owner[address] = place.place
        yield from self._port_problems()

    def _name_problems(self) -> Iterator[str]:
        seen: set[str] = set()
        for place in self.all:
            if place.place in seen:
                yield f"{place.place}: is there twice; names are unique"
            seen.add(place.place)
            if not _NAME.fullmatch(place.name) or (
                isinstance(place, Pod) and not _LABEL.fullmatch(place.namespace)
            ):
                yield f"{place.place}: not a name that Kubernetes allows"

    def _port_problems(self) -> Iterator[str]:
        taken: dict[tuple[str, Port], str] = {}
        for place in self.all:
            is_host = isinstance(place, Pod) and place.host_network
            home = f"node/{place.node}" if isinstance(place, Pod) and is_host else place.place
            for port in place.ports:
                if not 0 < port.number < 65536:
                    yield f"{place.place}: {port.number} is no port"
                if (home, port) in taken:
                    yield (
                        f"{place.place}: {port.number}/{port.protocol} is already taken by {taken[home, port]} "
                        f"in the same network namespace"
                    )
                taken[home, port] = place.place
