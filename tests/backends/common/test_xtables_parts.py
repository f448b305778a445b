"""The parts of xtables text: names, spelling, trees, sets."""

from __future__ import annotations

import string
from bisect import bisect_right
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8snetc.backends.common.xtables import names, text, trie
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.model import Jump
from k8snetc.backends.common.xtables.sets import Sets, membership
from k8snetc.ir.types import Family, Origin, PortRange, Prefix, Protocol

# --- names ---


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.sampled_from(["B", "OD", "S"]))
def test_names_are_short_and_of_harmless_characters(identity: list[str], kind: str) -> None:
    name = names.hashed(kind, *identity)
    assert len(name) <= names.LIMIT
    assert set(name) <= set(string.ascii_letters + string.digits + "-._")
    assert name == names.hashed(kind, *identity)


def test_names_that_nearly_agree_differ() -> None:
    long = "a" * 253
    identities = [
        ("shop/web", "http"),
        ("shop/we", "bhttp"),
        ("shop/web:http",),
        ("shop-web", "http"),
        ("shop.web", "http"),
        (long,),
        (long[:-1] + "b",),
        ("", "x"),
        ("x", ""),
        ("1:x",),
    ]
    assert len({names.hashed("B", *i) for i in identities}) == len(identities)


def test_a_hundred_thousand_names_do_not_collide() -> None:
    assert len({names.hashed("B", f"ns/svc-{i}:http") for i in range(100_000)}) == 100_000


# --- spelling ---


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("shop_web-1", " -m comment --comment shop_web-1"),
        ("shop/web:http shop.yaml:12", ' -m comment --comment "shop/web:http shop.yaml:12"'),
        ('it\'s "odd" \\', ' -m comment --comment "it\\\'s \\"odd\\" \\\\"'),
        ("two\nlines\t\x00é", ' -m comment --comment "two?lines???"'),
        ("", ' -m comment --comment ""'),
        ("-j ACCEPT", ' -m comment --comment "-j ACCEPT"'),
        ("`id` $(id) %s", ' -m comment --comment "`id` $(id) %s"'),
    ],
)
def test_comments_are_printed_as_iptables_save_prints_them(given: str, printed: str) -> None:
    assert text.comment(given) == printed


def test_long_comments_keep_both_ends() -> None:
    out = text.comment("shop/web " + "x" * 300 + " file.yaml:12")
    body = out.removeprefix(' -m comment --comment "').removesuffix('"')
    assert len(body) <= text.COMMENT_LIMIT
    assert body.startswith("shop/web ")
    assert body.endswith(" file.yaml:12")


def test_an_origin_without_a_label_names_its_object() -> None:
    assert "shop/web a.yaml:3" in text.origin_comment("", Origin("a.yaml", 3, "Service", "shop", "web"))
    assert "node a.yaml:3" in text.origin_comment("", Origin("a.yaml", 3, "Node", "", "node"))
    assert text.origin_comment("", None) == ""


def test_addresses_are_printed_as_the_c_library_does() -> None:
    assert text.address(ip_address("::ffff:1.2.3.4")) == "::ffff:1.2.3.4"
    assert text.network(ip_network("fd00::/8")) == "fd00::/8"
    assert text.cidr(Family.IPV4, Prefix(int(ip_address("10.0.0.1")), 32)) == "10.0.0.1/32"
    assert text.destination(ip_address("fd00::1"), 80) == "[fd00::1]:80"


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_probabilities_survive_the_kernel(weight: int, more: int) -> None:
    """The kernel keeps 31 bits; what iptables-save prints of them must be what we wrote."""
    total = weight + more
    written = text.probability(weight, total).split()[-1]
    kept = round(float(written) * (1 << 31))
    assert f"{kept / (1 << 31):.11f}" == written
    assert abs(kept / (1 << 31) - weight / total) < 1e-9
    assert text.probability(weight, weight) == ""


port_lists = st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 30)), min_size=1, max_size=60)


@given(port_lists)
def test_port_lists_fit_into_multiports_and_lose_nothing(raw: list[tuple[int, int]]) -> None:
    ports: list[PortRange] = []
    for first, more in sorted(raw):
        if not ports or first > ports[-1].last + 1:
            ports.append(PortRange(first, min(first + more, 65535)))
    seen: set[int] = set()
    for fragment in text.dports(Protocol.UDP, tuple(ports)):
        words = fragment.split()
        assert words[:2] == ["-p", "udp"]
        listed = words[-1].split(",")
        assert sum(2 if ":" in p else 1 for p in listed) <= text.MULTIPORT_LIMIT
        for p in listed:
            low, _, high = p.partition(":")
            seen.update(range(int(low), int(high or low) + 1))
    assert seen == {n for r in ports for n in range(r.first, r.last + 1)}


def test_every_port_is_the_protocol_alone() -> None:
    assert text.dports(Protocol.TCP, ()) == [" -p tcp"]
    assert text.dports(Protocol.SCTP, (PortRange(0, 65535),)) == [" -p sctp"]


# --- trees ---


@given(st.sets(st.integers(0, 2**16 - 1), min_size=1, max_size=150), st.integers(1, 20), st.integers(1, 4))
def test_a_tree_finds_every_entry_and_tests_few_blocks(values: set[int], leaf: int, levels: int) -> None:
    entries = [trie.Entry(v, 16, v) for v in sorted(values)]
    tree = trie.build(entries, 16, leaf=leaf, levels=levels)
    assert [e.value for e in trie.entries_of(tree)] == sorted(values)
    for value in values:
        node, depth = tree, 0
        while isinstance(node, trie.Branch):
            assert 2 <= len(node.children) <= 2**levels
            inside = [c for c in node.children if value >> (16 - c.length) == c.value >> (16 - c.length)]
            assert len(inside) == 1
            node, depth = inside[0], depth + 1
        assert value in [e.value for e in node.entries]
        assert len(node.entries) <= leaf
        assert depth <= 16 // levels + 1


@given(st.sets(st.integers(0, 2**16 - 1), min_size=20, max_size=120), st.integers(0, 2**16 - 1))
def test_one_entry_more_changes_one_leaf(values: set[int], extra: int) -> None:
    def leaves(of: set[int]) -> set[tuple[int, ...]]:
        found: set[tuple[int, ...]] = set()
        stack = [trie.build([trie.Entry(v, 16, v) for v in sorted(of)], 16)]
        while stack:
            match stack.pop():
                case trie.Branch(children=children):
                    stack.extend(children)
                case trie.Leaf(entries=entries):
                    found.add(tuple(e.value for e in entries))
        return found

    assert len(leaves(values | {extra}) - leaves(values)) <= 2


@given(
    st.sets(
        st.tuples(st.integers(0, 255), st.integers(4, 8)).map(lambda t: (t[0] >> (8 - t[1]), t[1])),
        min_size=1,
    )
)
def test_blocks_of_different_lengths_stay_whole(blocks: set[tuple[int, int]]) -> None:
    taken: list[trie.Entry[int]] = []
    for value, length in sorted((v << (8 - n), n) for v, n in blocks):
        last = taken[-1].value + (1 << (8 - taken[-1].length)) if taken else 0
        if value >= last:
            taken.append(trie.Entry(value, length, 0))
    starts = [e.value for e in taken]
    tree = trie.build(taken, 8, leaf=2, levels=1)
    for number in range(0, 256, 3):
        node = tree
        while isinstance(node, trie.Branch):
            inside = [c for c in node.children if number >> (8 - c.length) == c.value >> (8 - c.length)]
            if not inside:
                break
            node = inside[0]
        else:
            hits = [e for e in node.entries if number >> (8 - e.length) == e.value >> (8 - e.length)]
            at = bisect_right(starts, number) - 1
            covered = at >= 0 and number < taken[at].value + (1 << (8 - taken[at].length))
            assert bool(hits) == covered


# --- sets and chains ---


def test_sets_are_named_by_content_and_written_once() -> None:
    sets = Sets()
    one = sets.add(Family.IPV4, (Prefix(1, 32), Prefix(0x0A000000, 8)))
    assert sets.add(Family.IPV4, (Prefix(0x0A000000, 8), Prefix(1, 32))) == one
    assert sets.add(Family.IPV4, (Prefix(1, 32),)) != one
    assert sets.add(Family.IPV6, (Prefix(1, 128),)) != sets.add(Family.IPV4, (Prefix(1, 32),))
    assert {s.name for s in sets.all} >= {one}
    assert next(s for s in sets.all if s.name == one).elements == ("0.0.0.1", "10.0.0.0/8")


def test_the_whole_world_fits_into_a_set() -> None:
    sets = Sets()
    sets.add(Family.IPV6, (Prefix(0, 0),))
    assert sets.all[0].elements == ("::/1", "8000::/1")


def test_sets_have_room_for_all_elements() -> None:
    sets = Sets()
    sets.add(Family.IPV4, tuple(Prefix(2 * i, 32) for i in range(70_000)))
    assert sets.all[0].options == "maxelem 131072"


def test_membership_avoids_a_set_where_it_can() -> None:
    sets = Sets()
    assert membership(sets, Family.IPV4, (), "src") is None
    assert membership(sets, Family.IPV4, (Prefix(0, 0),), "src") == ("", "")
    assert membership(sets, Family.IPV4, (Prefix(0x0A000000, 8),), "dst") == (" -d 10.0.0.0/8", "")
    assert [s.name for s in sets.all] == []
    member = membership(sets, Family.IPV4, (Prefix(1, 32), Prefix(3, 32)), "src")
    (made,) = sets.all
    assert member == ("", f" -m set --match-set {made.name} src")


def test_a_jump_is_inserted_first_and_deleted_by_its_own_words() -> None:
    jump = Jump("OUTPUT", "-A OUTPUT -m conntrack --ctstate NEW -j K8SNETC-OUTPUT")
    assert jump.insert == "-I OUTPUT 1 -m conntrack --ctstate NEW -j K8SNETC-OUTPUT"
    assert jump.delete == "-D OUTPUT -m conntrack --ctstate NEW -j K8SNETC-OUTPUT"


def test_two_chains_of_one_name_are_a_defect() -> None:
    chains = Chains()
    one, other = Draft(), Draft()
    one.add(" -j DROP")
    other.add(" -j ACCEPT")
    chains.put("K8SNETC-X", one)
    chains.put("K8SNETC-X", one)
    with pytest.raises(ValueError, match="K8SNETC-X"):
        chains.put("K8SNETC-X", other)
