"""Model to text: the C, the tables, and where the programs attach.

Pure and deterministic. Must not know: clang, or the kernel.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from k8snetc.backends.base import Artifact, EmitOptions
from k8snetc.backends.ebpf.model import Model, Table
from k8snetc.ir.types import Family

if TYPE_CHECKING:
    from jinja2 import Environment

PROGRAM = "k8snetc.bpf.c"
TABLES = "k8snetc.tables"
HOOKS = "k8snetc.hooks"

CONNECTIONS = 262144  # entries; a service's connection takes three, masqueraded four
COUNTED_OBJECTS = 131072  # services' and policies' counters that fit; what comes after is not counted
DENIALS_BYTES = 262144  # of the ring: some 4,000 records
DATAGRAM_TIMEOUT = 180  # seconds: nf_conntrack_udp_timeout_stream was 180 until Linux 5.1

_CRC_POLYNOMIAL = 0x82F63B78  # CRC32c, bits reflected


def emit(model: Model, options: EmitOptions) -> tuple[Artifact, ...]:
    """The artifacts, in the order in which they are used."""
    return (
        Artifact(PROGRAM, program(model)),
        Artifact(TABLES, tables(model, options)),
        Artifact(HOOKS, hooks(model)),
    )


def program(model: Model) -> str:
    """The C of the program."""
    features = model.features
    return (
        _environment()
        .get_template("program.c.j2")
        .render(
            features=features,
            families=[f.value for f in features.families],
            served_families=[f.value for f in features.served],
            socket_families=[f.value for f in features.socket_families],
            tables={f.value: features.of(f) for f in Family},
            connections=CONNECTIONS,
            datagram_timeout=DATAGRAM_TIMEOUT,
            counted_objects=COUNTED_OBJECTS,
            denials_bytes=DENIALS_BYTES,
            counted=_counted if features.counters else _uncounted,
            crc_powers=", ".join(f"{p:#010x}" for p in _crc_powers()),
        )
    )


def tables(model: Model, options: EmitOptions) -> str:
    """The content of the tables: one line a row, `key -> value`, in canonical order."""
    first, last = model.nodeports
    head = [f"config nodeport_first={first} nodeport_last={last}"]
    return "\n".join([*head, *(line for t in model.tables for line in _table(t, options.comments))]) + "\n"


def _table(table: Table, comments: bool) -> list[str]:
    lines = ["", f"table {table.name} {table.kind.value} {len(table.rows)}"]
    for row in table.rows:
        comment = f"  # {row.comment}" if comments and row.comment else ""
        lines.append(f"{table.key.text(row.key)} -> {table.value.text(row.value)}{comment}")
    return lines


def hooks(model: Model) -> str:
    """Where each program attaches."""
    lines = ["# program        hook"]
    for name, where in hook_list(model):
        lines.append(f"{name:<16} {where}")
    return "\n".join(lines) + "\n"


def hook_list(model: Model) -> list[tuple[str, str]]:
    """(program, hook) of everything that attaches, in order."""
    features = model.features
    out: list[tuple[str, str]] = []
    if not features.families:
        return out
    out += [("from_pod", "tc ingress of pod interfaces"), ("to_pod", "tc egress of pod interfaces")]
    if features.frontends or features.refuses:
        out += [
            ("from_outside", "tc ingress of uplinks"),
            ("to_outside", "tc egress of uplinks and loopback"),
        ]
    if features.frontends:
        for hook in ("connect", "sendmsg", "recvmsg", "getpeername"):
            out += [(f"{hook}{f.value}", f"cgroup {hook}{f.value}") for f in features.socket_families]
    return out


def _counted(verdict: str, why: str) -> str:
    """The verdict as an expression that also counts it."""
    return f"counted({verdict}, COUNT_{why})"


def _uncounted(verdict: str, _why: str) -> str:
    return verdict


def _crc_powers() -> list[int]:
    """x^(8 * 2^i) modulo the polynomial, i = 0 to 15, bits reflected (bit 31 is x^0)."""

    def multiply(a: int, b: int) -> int:
        product = 0
        for i in range(31, -1, -1):
            if a >> i & 1:
                product ^= b
            b = (b >> 1) ^ (_CRC_POLYNOMIAL if b & 1 else 0)
        return product

    powers = [1 << (31 - 8)]
    while len(powers) < 16:
        powers.append(multiply(powers[-1], powers[-1]))
    return powers


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = files("k8snetc.backends.ebpf") / "templates"
    sources = {f.name: f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".j2")}
    # The text is C, not HTML: nothing from a manifest goes into it.
    return Environment(  # noqa: S701 - see above
        loader=DictLoader(sources),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
