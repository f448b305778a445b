"""What is installed, or should be, as one value: the program's C, its constants, its tables, where it is attached.

Knows: how a model and the node's facts make a state, and a state's bytes for the journal. Must not know the kernel.
"""

from __future__ import annotations

import json
import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from k8snetc.backends.ebpf import emit, layouts
from k8snetc.backends.ebpf.model import Kind, Layout, Model, Row, Table, Type
from k8snetc.backends.ebpf.node import Device, Facts, Sites
from k8snetc.ir.addresses import Members, prefix_of
from k8snetc.ir.types import Family, FromInterface, Program

FORMAT = 2

CONFIG = Layout(
    (
        ("netns_low", Type.U32),
        ("netns_high", Type.U32),
        ("generation", Type.U32),
        ("loopback", Type.U32),
        ("nodeport_first", Type.U16),
        ("nodeport_last", Type.U16),
        ("masquerade_first", Type.U16),
        ("masquerade_last", Type.U16),
    )
)
TC_HOOKS = ("from_pod", "to_pod", "from_outside", "to_outside")
INGRESS = ("from_pod", "from_outside")
JUDGING = ("from_pod", "to_pod")
"""The hooks where policy is decided: who runs before them there can let packets pass that policy denies."""
PACKETS = "packets"
"""The program of a generation that all of `TC_HOOKS` hand on to, each with its number among them in `cb[0]`."""
ACCEPT_LOCAL = "net/ipv4/conf/lo/accept_local"
ROUTE_LOCALNET = "net/ipv4/conf/lo/route_localnet"
SYSCTLS = (ACCEPT_LOCAL, ROUTE_LOCALNET)


class Content(NamedTuple):
    """A table as bytes, sorted by key."""

    name: str
    rows: tuple[tuple[bytes, bytes], ...]


class Attachment(NamedTuple):
    """A hook in use: on an interface by its index, or on a cgroup by its number (its inode)."""

    hook: str
    place: int


class Constants(NamedTuple):
    """The program's constants, apart from the generation (`struct config` of templates/types.c.j2)."""

    netns: int = 0
    loopback: int = 0
    nodeport_first: int = 1
    nodeport_last: int = 0
    masquerade_first: int = 1
    masquerade_last: int = 0

    def pack(self, generation: int) -> bytes:
        """As the program reads them."""
        low, high = self.netns & 0xFFFFFFFF, self.netns >> 32
        return CONFIG.pack((low, high, generation, *self[1:]))

    @staticmethod
    def unpack(data: bytes) -> tuple[Constants, int]:
        """The constants and the generation."""
        low, high, generation, *rest = CONFIG.unpack(data[: CONFIG.size])
        return Constants(high << 32 | low, *rest), generation


@dataclass(frozen=True, slots=True)
class State:
    """One generation. `source` "" is nothing at all; `profiles` names the enforcements of the policy profiles.

    `comments` say for people which object a row is for: (table, key) -> text.

    `behind` says of attachments of `JUDGING` hooks who runs before them. What is observed has it, what is
    desired never; nor has what a journal kept: to put back what was there does not mean to let somebody pass policy.
    """

    source: str = ""
    constants: Constants = field(default_factory=Constants)
    profiles: tuple[str, ...] = ()
    tables: tuple[Content, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    comments: Mapping[tuple[str, bytes], str] = field(default_factory=dict, compare=False, repr=False)
    behind: Mapping[Attachment, str] = field(default_factory=dict, compare=False)

    def rows(self) -> int:
        """How many elements all tables have."""
        return sum(len(t.rows) for t in self.tables)


def about(state: State) -> bytes:
    """What an installed generation says of itself."""
    text = json.dumps({"format": FORMAT, "source": state.source, "profiles": state.profiles})
    return zlib.compress(text.encode(), 1)


def read_about(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The source and the profiles that `about` wrote. Raises ValueError for what another version wrote."""
    told = json.loads(zlib.decompress(data))
    if told.get("format") != FORMAT:
        raise ValueError(f"format {told.get('format')} is not {FORMAT}")
    return str(told["source"]), tuple(str(p) for p in told["profiles"])


def dump(state: State) -> bytes:
    """The state as bytes."""
    told: dict[str, object] = {
        "format": FORMAT,
        "source": state.source,
        "constants": state.constants,
        "profiles": state.profiles,
        "tables": [
            [t.name, _join(k for k, _ in t.rows), _join(v for _, v in t.rows), len(t.rows)]
            for t in state.tables
        ],
        "attachments": state.attachments,
        "sysctls": state.sysctls,
    }
    if (
        state.profiles and state.behind
    ):  # or policy that holds and policy that doesn't would have one fingerprint
        told["behind"] = sorted(state.behind)
    return zlib.compress(json.dumps(told).encode(), 1)


def load(data: bytes) -> State:
    """The state that `dump` wrote. Raises ValueError."""
    try:
        told = json.loads(zlib.decompress(data))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']} is not {FORMAT}")
        return State(
            source=told["source"],
            constants=Constants(*told["constants"]),
            profiles=tuple(told["profiles"]),
            tables=tuple(
                Content(n, tuple(zip(_split(k, c), _split(v, c), strict=True)))
                for n, k, v, c in told["tables"]
            ),
            attachments=tuple(Attachment(h, p) for h, p in told["attachments"]),
            sysctls=tuple((k, v) for k, v in told["sysctls"]),
        )
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"not a state of the eBPF back end: {error}") from error


def _join(parts: Iterable[bytes]) -> str:
    return b85encode(b"".join(parts)).decode()


def _split(text: str, count: int) -> list[bytes]:
    data = b85decode(text)
    if not count:
        return []
    size = len(data) // count
    return [data[i * size : (i + 1) * size] for i in range(count)]


def state_of(
    model: Model,
    program: Program,
    facts: Facts,
    sites: Sites,
) -> State:
    """What the node should look like."""
    uplinks, pods, cgroup = sites.uplinks, sites.pods, sites.cgroup
    tables = [*model.tables, *_node_tables(model, program, facts, sites)]
    contents: list[Content] = []
    comments: dict[tuple[str, bytes], str] = {}
    for table in sorted(tables, key=lambda t: t.name):
        packed = [(table.key.pack(r.key), table.value.pack(r.value)) for r in table.rows]
        comments.update(
            ((table.name, p[0]), r.comment) for p, r in zip(packed, table.rows, strict=True) if r.comment
        )
        contents.append(Content(table.name, tuple(sorted(packed))))
    first, last = masquerade_ports(facts.ephemeral, model.nodeports)
    places = {
        "from_pod": pods,
        "to_pod": pods,
        "from_outside": uplinks,
        "to_outside": (*uplinks, facts.loopback),
    }
    attachments = [
        Attachment(hook, device.index)
        for hook, _ in emit.hook_list(model)
        if hook in TC_HOOKS
        for device in places[hook]
    ]
    if cgroup is not None:
        attachments += [Attachment(hook, cgroup) for hook, _ in emit.hook_list(model) if hook not in TC_HOOKS]
    sysctls: list[tuple[str, str]] = []
    if model.features.ipv4.frontends:
        sysctls.append((ACCEPT_LOCAL, "1"))
        if model.features.localhost:
            sysctls.append((ROUTE_LOCALNET, "1"))
    return State(
        source=emit.program(model),
        constants=Constants(facts.cookie, facts.loopback.index, *model.nodeports, first, last),
        profiles=model.profiles,
        tables=tuple(contents),
        attachments=tuple(sorted(attachments)),
        sysctls=tuple(sysctls),
        comments=comments,
    )


def _node_tables(model: Model, program: Program, facts: Facts, sites: Sites) -> list[Table]:
    """The tables that say what this node is."""
    node = program.node
    devices = (*sites.uplinks, *sites.pods, facts.loopback)
    tables: list[Table] = []
    for family in model.features.families:
        own = sorted({int(a) for a in (*node.addresses, *facts.addresses) if a.version == family})
        networks = [prefix_of(n) for n in node.nodeport_networks if n.version == family]
        serving = Members(family, networks)
        rows = tuple(Row((a,), (int(not node.nodeport_networks or a in serving),)) for a in own)
        tables.append(
            Table(f"node_addresses{family.value}", Kind.HASH, layouts.address(family), layouts.U32, rows)
        )

    def primary(device: Device, version: int) -> int:
        known = [a for a in node.addresses if a.version == version]
        sources = [device.primary(version), *(u.primary(version) for u in sites.uplinks), *known]
        return next((int(a) for a in sources if a is not None), 0)

    detector = node.detector
    rows = tuple(
        Row(
            (d.index,),
            (
                primary(d, Family.IPV4),
                primary(d, Family.IPV6),
                *d.mac,
                int(
                    isinstance(detector, FromInterface)
                    and (d.name.startswith(detector.name) if detector.prefix else d.name == detector.name)
                ),
            ),
        )
        for d in sorted({d.index: d for d in devices}.values(), key=lambda d: d.index)
    )
    tables.append(Table("devices", Kind.HASH, layouts.INDEX, layouts.DEVICE, rows))
    return tables


FEW_PORTS = 4096


def masquerade_ports(ephemeral: tuple[int, int], nodeports: tuple[int, int]) -> tuple[int, int]:
    """The largest range of ports that neither the node's own sockets nor NodePorts take.

    Where sockets leave next to none, those that are no NodePorts.
    """
    first, last = _largest_gap([ephemeral, nodeports])
    return (first, last) if last - first + 1 >= FEW_PORTS else _largest_gap([nodeports])


def _largest_gap(taken: list[tuple[int, int]]) -> tuple[int, int]:
    best, free = (1, 0), 1024
    for first, last in [*sorted(r for r in taken if r[0] <= r[1]), (65536, 65536)]:
        if first - 1 - free > best[1] - best[0]:
            best = free, first - 1
        free = max(free, last + 1)
    return best
