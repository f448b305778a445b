"""What nft and the kernel of this node must be able to do, as data, and which of it they can't.

Knows: a smallest table for each feature, checked and never installed. Must not know: programs.

Everything here is in nft 1.0.6 and Linux 5.13; a kernel may still be built without a part of it, and other
versions of nft read some of it differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.backends.base import Gap
from k8snetc.backends.nftables import library
from k8snetc.backends.nftables.model import FAMILY_WORDS, Ruleset, Table
from k8snetc.backends.target import InstallError
from k8snetc.ir.types import Family

_PROBE = "k8snetc-probe"


@dataclass(frozen=True, slots=True)
class Feature:
    """`sign` is what rules or declarations that need it contain. `body` is the table that tries it, for IPv4.

    `option` is the kernel option that brings it.
    """

    name: str
    sign: str
    body: str
    option: str


FEATURES: tuple[Feature, ...] = (
    Feature(
        "verdict maps over concatenations",
        ": verdict",
        "map m { typeof ip daddr . meta l4proto . th dport : verdict; }\n"
        "chain c { ip daddr . meta l4proto . th dport vmap @m\n }",
        "CONFIG_NF_TABLES",
    ),
    Feature(
        "a random slot in the key of a map",
        "numgen random",
        "map m { typeof ip daddr . tcp dport . numgen random mod 2 : ip daddr . tcp dport; }\n"
        "chain c { dnat ip to ip daddr . tcp dport . numgen random mod 3 offset 65536 map @m\n }",
        "CONFIG_NFT_NUMGEN and CONFIG_NFT_NAT",
    ),
    Feature(
        "nat hooks",
        "type nat hook",
        "chain c { type nat hook prerouting priority dstnat; policy accept;\n }",
        "CONFIG_NF_NAT and CONFIG_NFT_NAT",
    ),
    Feature(
        "rejection before routing",
        "reject",
        "chain c { type nat hook prerouting priority dstnat; policy accept; reject\n }",
        "CONFIG_NFT_REJECT, since Linux 5.9",
    ),
    Feature(
        "masquerading",
        "masquerade",
        "chain c { type nat hook postrouting priority srcnat; policy accept; masquerade\n }",
        "CONFIG_NFT_MASQ",
    ),
    Feature(
        "bytes of a header in a key",
        "@nh,",
        "set s { typeof @nh,96,8 . @nh,128,8; }\nchain c { @nh,96,8 . @nh,128,8 @s\n }",
        "CONFIG_NF_TABLES",
    ),
    Feature(
        "address types",
        "fib ",
        "chain c { type nat hook prerouting priority dstnat; policy accept; fib daddr type local drop\n }",
        "CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6",
    ),
    Feature(
        "connection states",
        "ct state",
        "chain c { type filter hook forward priority filter; policy accept; ct state invalid drop\n }",
        "CONFIG_NFT_CT",
    ),
    Feature(
        "intervals in concatenations",
        ". ip saddr",
        "set s { typeof ip daddr . tcp dport . ip saddr; flags interval; elements = { 1.2.3.4 . 5 . 6.0.0.0/8 } }",
        "CONFIG_NF_TABLES, since Linux 5.6",
    ),
    Feature(
        "sets that rules fill",
        "flags dynamic",
        "set s { type ipv4_addr; size 65536; flags dynamic,timeout; }\n"
        "chain c { update @s { ip saddr timeout 3h }\n }",
        "CONFIG_NF_TABLES",
    ),
)
"""In the order in which they are named."""

FULLY_RANDOM = Feature(
    "random source ports",
    "fully-random",
    "chain c { type nat hook postrouting priority srcnat; policy accept; masquerade fully-random\n }",
    "CONFIG_NFT_MASQ",
)
"""Used where it is there, and done without where it isn't."""


Needs = frozenset[tuple[Feature, Family]]


def missing(needs: Needs) -> Needs:
    """What this node can't do of that; nothing also where nothing can be tried (no privilege): installing will tell.

    All at once first: the kernel takes its time to forget each transaction that was only checked.
    """
    if not needs or _taken(needs):
        return frozenset()
    if not _taken(frozenset()):
        return frozenset()
    return frozenset(n for n in needs if not _taken(frozenset({n})))


def can(feature: Feature, family: Family = Family.IPV4) -> bool:
    """Whether this node can do it."""
    return not missing(frozenset({(feature, family)}))


def needs(model: Ruleset) -> Needs:
    """Every feature that the model uses."""
    return frozenset((f, t.family) for t in model.tables for f in _needed(t))


def gaps(lacking: Needs) -> list[Gap]:
    """What to say of features that are missing."""
    return [
        Gap(
            f"{feature.name} ({FAMILY_WORDS[family]}) can't be done by nft and the kernel of this node",
            f"needs nft 1.0.6 and a kernel with {feature.option}; or use the iptables back end",
        )
        for feature, family in _in_order(lacking)
    ]


def _in_order(found: Needs) -> list[tuple[Feature, Family]]:
    return sorted(found, key=lambda n: (n[1], (*FEATURES, FULLY_RANDOM).index(n[0])))


def _taken(wanted: Needs) -> bool:
    """Whether nft and the kernel take a table that uses all of it, or an empty one."""
    tables = []
    for at, (feature, family) in enumerate(_in_order(wanted)):
        body = feature.body if family is Family.IPV4 else _in_ipv6(feature.body)
        tables.append(f"table {FAMILY_WORDS[family]} {_PROBE}-{at} {{\n{body}\n}}\n")
    try:
        library.check("".join(tables) or f"table ip {_PROBE}")
    except InstallError:
        return False
    return True


def _needed(table: Table) -> list[Feature]:
    text = [line for s in table.sets for line in s.spec]
    text += [line for c in table.chains for line in (c.hook, *(r.text for r in c.rules))]
    whole = "\n".join(text).replace("ip6 ", "ip ")
    return [f for f in (*FEATURES, FULLY_RANDOM) if f.sign in whole]


def _in_ipv6(body: str) -> str:
    for old, new in (
        ("ip daddr", "ip6 daddr"),
        ("ip saddr", "ip6 saddr"),
        ("dnat ip ", "dnat ip6 "),
        ("ipv4_addr", "ipv6_addr"),
        ("1.2.3.4 . 5 . 6.0.0.0/8", "fd00::1 . 5 . fd00::/8"),
    ):
        body = body.replace(old, new)
    return body
