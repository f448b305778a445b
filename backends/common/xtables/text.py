"""Fragments of rules, spelled exactly as iptables-save prints them.

Knows: the canonical spelling of addresses, ports, probabilities, comments and of the few targets we use, in
iptables 1.8.9 (its legacy and nft variants agree on all of them). Must not know: why a rule is written.

The order within a line is iptables-save's: `-s -d -i -p`, then matches in the order they were given, then
the target. Fragments begin with a space, so that they can be put one behind the other.
"""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET6, inet_ntoa, inet_ntop

from k8snetc.ir.types import Address, Family, Network, Origin, PortRange, Prefix, Protocol

COMMENT_LIMIT = 255
"""Bytes that xt_comment holds (XT_MAX_COMMENT_LEN less the final NUL)."""
MULTIPORT_LIMIT = 15
"""Ports that one multiport match holds; a range counts twice (XT_MULTI_PORTS)."""

SAME_ADDRESS = {
    Family.IPV4: ' -m bpf --bytecode "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 1,6 0 0 0"',
    Family.IPV6: (
        ' -m bpf --bytecode "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,'
        '32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 1,6 0 0 0"'
    ),
}
"""Matches packets whose source is their destination: classic BPF that compares the two header fields."""

REJECT = {
    Family.IPV4: " -j REJECT --reject-with icmp-port-unreachable",
    Family.IPV6: " -j REJECT --reject-with icmp6-port-unreachable",
}

_PLAIN = frozenset("-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\", "'": "\\'"})


def address(one: Address) -> str:
    """An address as the C library prints it (Python prints `::ffff:1.2.3.4` otherwise)."""
    return inet_ntoa(one.packed) if one.version == 4 else inet_ntop(AF_INET6, one.packed)


def value_text(family: Family, value: int) -> str:
    """The address with that integer value, as the C library prints it."""
    if family is Family.IPV4:
        return inet_ntoa(value.to_bytes(4, "big"))
    return inet_ntop(AF_INET6, value.to_bytes(16, "big"))


def cidr(family: Family, prefix: Prefix) -> str:
    """`10.0.0.0/8`; always with a length, as `-s` and `-d` are printed."""
    return f"{value_text(family, prefix.value)}/{prefix.length}"


def to(family: Family, prefix: Prefix) -> str:
    """Matches destinations in the prefix; nothing where that is every address, as iptables-save prints it."""
    return f" -d {cidr(family, prefix)}" if prefix.length else ""


def network(one: Network) -> str:
    """A network as `-s` and `-d` are printed."""
    return f"{address(one.network_address)}/{one.prefixlen}"


def destination(one: Address, port: int) -> str:
    """What `--to-destination` takes: `10.0.0.1:80`, `[fd00::1]:80`."""
    return f"{address(one)}:{port}" if one.version == 4 else f"[{address(one)}]:{port}"


def dport(protocol: Protocol, ports: PortRange) -> str:
    """Matches protocol and destination ports; all ports is the protocol alone."""
    if ports == (0, 65535):
        return f" -p {protocol.value}"
    text = str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}"
    return f" -p {protocol.value} -m {protocol.value} --dport {text}"


def dports(protocol: Protocol, ports: tuple[PortRange, ...]) -> list[str]:
    """Fragments that together match the protocol and any of the ports; no ports is every port."""
    if not ports or (0, 65535) in ports:
        return [f" -p {protocol.value}"]
    if len(ports) == 1:
        return [dport(protocol, ports[0])]
    groups: list[list[str]] = [[]]
    room = MULTIPORT_LIMIT
    for first, last in ports:
        need = 1 if first == last else 2
        if need > room:
            groups.append([])
            room = MULTIPORT_LIMIT
        room -= need
        groups[-1].append(str(first) if need == 1 else f"{first}:{last}")
    return [f" -p {protocol.value} -m multiport --dports {','.join(g)}" for g in groups]


@lru_cache(maxsize=4096)
def probability(weight: int, total: int) -> str:
    """Matches `weight` of `total` packets at random; nothing where that is all of them.

    The kernel keeps 31 bits of the probability, and iptables-save prints these with 11 digits.
    """
    if weight >= total:
        return ""
    share = max(1, round((weight << 31) / total)) / (1 << 31)
    return f" -m statistic --mode random --probability {share:.11f}"


def comment(text: str) -> str:
    """A comment match; what is not printable ASCII becomes `?`, what is too long loses its middle."""
    clean = text
    if not (text.isascii() and text.isprintable()):
        clean = "".join(c if " " <= c <= "~" else "?" for c in text)
    if len(clean) > COMMENT_LIMIT:
        half = (COMMENT_LIMIT - 3) // 2
        clean = f"{clean[:half]}...{clean[-half:]}"
    if clean and _PLAIN.issuperset(clean):
        return f" -m comment --comment {clean}"
    return f' -m comment --comment "{clean.translate(_ESCAPED)}"'


def origin_comment(label: str, origin: Origin | None) -> str:
    """The comment that leads a person back to the manifest: `label file:line`."""
    if origin is None:
        return comment(label) if label else ""
    if not label:
        label = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    return comment(f"{label} {origin.file}:{origin.line}")
