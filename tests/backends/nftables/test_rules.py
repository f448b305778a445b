"""What the rules look like as a whole: size, stability, what is left out and refused."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from k8snetc.backends.base import EmitOptions, UnsupportedError
from k8snetc.backends.nftables import BACKEND
from k8snetc.backends.nftables.balancers import BLOCK
from k8snetc.backends.nftables.foreign import warnings
from k8snetc.backends.nftables.lower import Capabilities, lower
from k8snetc.backends.nftables.model import Ruleset, Table
from k8snetc.backends.nftables.read import read_tables
from k8snetc.backends.nftables.transaction import changes, transaction
from k8snetc.backends.nftables.words import COMMENT_LIMIT, comment, duration
from k8snetc.ir.addresses import address_of
from k8snetc.ir.types import (
    Address,
    Balance,
    Balancer,
    Endpoint,
    Exposure,
    Family,
    FromInterface,
    Frontend,
    Node,
    Origin,
    Program,
    Protocol,
    Route,
    SourceIn,
    Who,
)
from k8snetc.ir.verify import verify

V4 = Family.IPV4
CLUSTER = int(ip_address("10.96.0.0"))
PODS = int(ip_address("10.128.0.0"))
EVIL = Origin('evil" } drop\n\tä.yaml', 3, "Service", "shop", "web")


def cluster(services: int, endpoints: int, *, extra: int = 0) -> Program:
    """Services at consecutive addresses; the first has `extra` endpoints more."""
    balancers, frontends = [], []
    for i in range(services):
        count = endpoints + (extra if i == 0 else 0)
        places = tuple(Endpoint(address_of(V4, PODS + (j << 16) + i), 8080) for j in range(count))
        balancers.append(Balancer(f"ns/svc-{i}", V4, Protocol.TCP, places))
        routes = (
            Route(Who.CLUSTER, Balance(f"ns/svc-{i}")),
            Route(Who.ANY, Balance(f"ns/svc-{i}", masquerade=True)),
        )
        address = address_of(V4, CLUSTER + 1 + i)
        frontends.append(
            Frontend(Exposure.CLUSTER_IP, V4, address, Protocol.TCP, 80, routes, None, f"ns/svc-{i}", EVIL)
        )
    node = Node("n", (V4,), detector=SourceIn((ip_network("10.128.0.0/9"),)))
    return verify(Program(node, tuple(balancers), tuple(frontends)))


def in_ipv6(program: Program) -> Program:
    """The same services at IPv6 addresses."""
    network = int(ip_address("fd00::"))

    def moved(address: Address) -> Address:
        return address_of(Family.IPV6, network | int(address))

    return verify(
        replace(
            program,
            node=Node("n", (Family.IPV6,), detector=SourceIn((ip_network("fd00::/16"),))),
            balancers=tuple(
                replace(
                    b,
                    family=Family.IPV6,
                    endpoints=tuple(replace(e, address=moved(e.address)) for e in b.endpoints),
                )
                for b in program.balancers
            ),
            frontends=tuple(
                replace(f, family=Family.IPV6, address=moved(f.address))
                for f in program.frontends
                if f.address
            ),
        )
    )


def only_table(model: Ruleset) -> Table:
    (table,) = model.tables
    return table


def test_chains_do_not_grow_with_services() -> None:
    few, many = lower(cluster(3, 4)), lower(cluster(3000, 4))
    assert only_table(few).chains == only_table(many).chains
    assert len(only_table(many).chains) < 10
    assert [s.spec for s in only_table(few).sets] == [s.spec for s in only_table(many).sets]


def test_an_endpoint_is_a_change_of_elements() -> None:
    before, after = lower(cluster(500, 4)), lower(cluster(500, 4, extra=1))
    commands = transaction(before, after)
    assert commands is not None
    # The slot, the balancer of the next size (once for the node), the verdict.
    assert commands.size < 12
    assert "flush" not in commands.text
    again = transaction(lower(cluster(500, 5)), lower(cluster(500, 5, extra=1)))
    assert again is not None
    assert len(again.text) < 1500
    assert {c.symbol for c in changes(before, after)} == {"+", "~"}
    assert transaction(before, before) is None
    assert changes(before, before) == ()


@pytest.mark.parametrize("version", [4, 6])
def test_hairpins_are_told_by_every_byte_and_cost_no_element_for_an_endpoint(version: int) -> None:
    program = cluster(40, 5)
    if version == 6:
        program = in_ipv6(program)
    table = only_table(lower(program))
    size, source = (
        (32, 96) if version == 4 else (128, 64)
    )  # RFC 791, RFC 8200: bits before the source address
    (rule,) = (r.text for c in table.chains for r in c.rules if "@same-byte" in r.text)
    asked = re.findall(r"@nh,(\d+),8 \. @nh,(\d+),8 @same-byte", rule)
    assert {(int(a), int(b)) for a, b in asked} == {(at, at + size) for at in range(source, source + size, 8)}
    (same,) = (s for s in table.sets if s.name == "same-byte")
    pairs = [tuple(int(part, 16) for part in key.split(" . ")) for key in same.elements]
    assert pairs == [(byte, byte) for byte in range(256)]
    assert sum(len(s.elements) for s in table.sets) < 40 * 5 + 40 + 256 + 5


def test_comments_are_no_difference() -> None:
    program = cluster(3, 2)
    moved = replace(program, frontends=tuple(replace(f, origin=None) for f in program.frontends))
    assert transaction(lower(program), lower(moved)) is None
    assert transaction(lower(program), lower(program, comments=False)) is None


def test_comments_can_be_left_out_and_break_nothing() -> None:
    text = BACKEND.compile(cluster(2, 2), EmitOptions())[0].text
    bare = BACKEND.compile(cluster(2, 2), EmitOptions(comments=False))[0].text
    assert "comment" not in bare
    notes = re.findall(r'comment "([^"]*)"', text)
    assert notes
    assert all(n.isascii() and n.isprintable() and "evil" in n for n in notes)
    assert re.sub(r' comment "[^"]*"', "", text) == bare
    assert len(comment("x" * 500)) <= COMMENT_LIMIT


def test_what_is_written_reads_back() -> None:
    model = lower(cluster(20, 3))
    text = BACKEND.compile(cluster(20, 3), EmitOptions())[0].text
    assert tuple(read_tables(text)) == model.tables


def test_weights_are_slots() -> None:
    program = cluster(1, 2)
    a, b = program.balancers[0].endpoints
    weighted = replace(
        program,
        balancers=(replace(program.balancers[0], endpoints=(replace(a, weight=4), replace(b, weight=6))),),
    )
    (slots,) = [s for s in only_table(lower(weighted)).sets if s.name == "tcp-endpoints"]
    places = list(slots.elements.values())
    assert len(places) == 5
    assert places.count(f"{a.address} . 8080") == 2


def test_every_gap_is_named() -> None:
    program = cluster(3, 2)
    odd = (
        replace(program.balancers[0], scheduler="lc"),
        replace(program.balancers[1], forwarding="tunnel"),
        replace(
            program.balancers[2],
            endpoints=(
                replace(program.balancers[2].endpoints[0], weight=BLOCK),
                program.balancers[2].endpoints[1],
            ),
        ),
    )
    node = replace(program.node, detector=FromInterface('cali"*', prefix=True))
    with pytest.raises(UnsupportedError) as found:
        lower(replace(program, balancers=odd, node=node))
    said = " ".join(g.what for g in found.value.gaps)
    assert len(found.value.gaps) == 4
    assert all(word in said for word in ("lc", "tunnel", "slots", "cali"))


def test_without_random_source_ports() -> None:
    model = lower(cluster(1, 2), capabilities=Capabilities(random_fully=False))
    text = str(model)
    assert "masquerade" in text
    assert "fully-random" not in text


def test_nothing_to_do_removes_the_old() -> None:
    (artifact,) = BACKEND.compile(Program(Node("n")), EmitOptions())
    lines = [line for line in artifact.text.splitlines() if line and not line.startswith("#")]
    assert lines == [
        "table ip k8snetc",
        "delete table ip k8snetc",
        "table ip6 k8snetc",
        "delete table ip6 k8snetc",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(10800, "3h"), (86400, "1d"), (90, "1m30s"), (1, "1s"), (3661, "1h1m1s")]
)
def test_durations_are_as_nft_prints_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_a_listing_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(ValueError, match="not closed"):
        list(read_tables("table ip k8snetc {\n\tchain c {\n"))


def test_strangers_are_named() -> None:
    listing = """table ip kube-proxy {
\tchain services {
\t}
}
table inet firewalld {
\tchain nat_PREROUTING {
\t\ttype nat hook prerouting priority dstnat + 10; policy accept;
\t\tjump x
\t}
\tchain filter_FORWARD {
\t\ttype filter hook forward priority filter + 10; policy drop;
\t}
}
table ip early {
\tchain pre {
\t\ttype nat hook prerouting priority -150; policy accept;
\t\ttcp dport 80 redirect to :8080
\t}
}
table ip nat {
\tchain KUBE-SERVICES {
\t}
\tchain DOCKER {
\t}
}
table netdev guard {
\tchain in {
\t\ttype filter hook ingress device "eth0" priority 0; policy accept;
\t\tip saddr 192.0.2.1 drop comment "a robber"
\t}
}
table inet tracked {
\tchain raw {
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tiifname "lo" accept comment "drop nothing"
\t\ttcp dport vmap { 22 : jump quick, 80 : accept }
\t\tjump more
\t}
\tchain more {
\t\tgoto most
\t}
\tchain most {
\t\tudp dport 53 notrack
\t\tgoto more
\t}
\tchain late {
\t\ttype filter hook prerouting priority filter; policy drop;
\t}
}
table bridge k8snetc {
\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}
table ip k8snetc {
\tchain prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tjump services
\t}
}
"""
    found = warnings(listing)
    assert len(found) == 6, found
    assert '(`ip saddr 192.0.2.1 drop comment "a robber"`)' in found[4]
    assert "chain raw decides at priority -300" in found[5]
    assert [w.split("table ")[1].split(" chain")[0].split(";")[0].rstrip(")") for w in found] == [
        "ip kube-proxy",
        "inet firewalld",
        "ip early",
        "ip nat",
        "netdev guard",
        "inet tracked",
    ]


@pytest.mark.parametrize("words", ["flow add @fast", "flow offload @fast"])
def test_connections_that_others_offload_are_named(words: str) -> None:
    """The packets of such a connection come to no rule in forward any more, wherever the one stands that says so."""
    listing = f"""table inet router {{
\tflowtable fast {{
\t\thook ingress priority filter
\t\tdevices = {{ eth0 }}
\t}}
\tchain forward {{
\t\ttype filter hook forward priority filter + 10; policy accept;
\t\tjump quick
\t}}
\tchain quick {{
\t\tip protocol tcp {words}
\t}}
\tchain unused {{
\t\tip protocol udp {words}
\t}}
}}
"""
    (found,) = warnings(listing)
    assert found.startswith(
        f"table inet router chain forward offloads connections (`ip protocol tcp {words}`)"
    )
    assert "policy does not hold for them" in found
    assert not warnings(listing.replace(words, f'counter comment "{words}"'))


def test_health_checks_that_others_drop_are_named() -> None:
    """An accept of ours is none of theirs; where nothing is let in there is nothing to say."""
    others = """table inet firewalld {
\tchain filter_INPUT {
\t\ttype filter hook input priority filter + 10; policy accept;
\t\tct state invalid drop
\t\ttcp dport 22 accept
\t\treject with icmpx admin-prohibited
\t}
\tchain late {
\t\ttype filter hook input priority 50; policy drop;
\t}
\tchain open {
\t\ttype filter hook input priority 60; policy accept;
\t\tct state invalid drop
\t}
}
"""
    ours = """table ip k8snetc {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tmeta l4proto . th dport @admitted accept
\t}
}
"""
    assert not warnings(others)
    found = warnings(others + ours)
    assert [w.split(" may")[0] for w in found] == [
        "table inet firewalld chain filter_INPUT",
        "table inet firewalld chain late",
    ]
    assert all("healthCheckNodePort" in w for w in found)
