"""Beside firewalld-like tables, Docker's rules and iptables-nft: ours work, theirs stay, what comes first is named."""

from __future__ import annotations

import re

import pytest

from k8snetc.lab.cluster import Cluster
from k8snetc.lab.probe import Outcome
from tests.faults import node

pytestmark = pytest.mark.kernel

FIREWALLD = """
table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_rpfilter; }
  chain mangle_rpfilter { meta nfproto ipv6 fib saddr . mark oif missing drop; }
  chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; jump nat_PRE_public; }
  chain nat_PRE_public { tcp dport 80 redirect to :7; udp dport 53 redirect to :7; }
  chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; jump nat_POST_public; }
  chain nat_POST_public { oifname "docker0" masquerade; }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 22 accept
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip saddr 10.244.0.0/16 accept
    ip daddr 10.244.0.0/16 accept
    ip6 saddr fd44::/16 accept
    ip6 daddr fd44::/16 accept
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; oifname "lo" accept; }
}
table bridge filter { chain forward { type filter hook forward priority filter; policy accept; ether type arp accept; }
}
table inet theirs {
  map ports { type inet_service : verdict; elements = { 7 : drop }; }
  chain early { type filter hook prerouting priority raw; policy accept; tcp dport vmap @ports; }
}
"""
DOCKER = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*raw
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""


def others(cluster: Cluster) -> str:
    """All tables but ours, as they are listed."""
    kept: list[str] = []
    ours = False
    for line in cluster.run(node.W1, ["nft", "list", "ruleset"]).stdout.splitlines():
        if line.startswith("table "):
            ours = line in ("table ip k8snetc {", "table ip6 k8snetc {")
        if not ours:
            kept.append(re.sub(r"packets \d+ bytes \d+", "", line))
    return "\n".join(kept)


def load_foreign(cluster: Cluster) -> None:
    cluster.run(node.W1, ["nft", "-f", "-"], input=FIREWALLD)
    cluster.run(node.W1, ["iptables-nft-restore", "--noflush"], input=DOCKER)


def check_packets(cluster: Cluster, moment: str) -> None:
    probes = [*node.allowed(), *node.denied()]
    for at, (probe, result) in enumerate(zip(probes, cluster.probe_all(probes), strict=True)):
        passed = result.outcome is Outcome.ANSWERED
        assert passed == (at < len(node.allowed())), f"{moment}: {probe}: {result}"


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_services_and_policy_beside_others(shared_cluster: Cluster, first: str) -> None:
    """Their hooks are registered before ours, or after: at equal priority the kernel goes by that."""
    cluster = shared_cluster
    if first == "theirs":
        load_foreign(cluster)
        before = others(cluster)
        cluster.call(node.W1, node.install, "nftables", node.OLD)
    else:
        cluster.call(node.W1, node.install, "nftables", node.OLD)
        load_foreign(cluster)
        before = others(cluster)
    check_packets(cluster, f"{first} first")
    cluster.call(node.W1, node.install, "nftables", node.NEW)
    check_packets(cluster, "changed")
    # firewalld reloads: its table goes and comes back, ours is none of its business.
    cluster.run(node.W1, ["nft", "delete", "table", "inet", "firewalld"])
    cluster.run(node.W1, ["nft", "-f", "-"], input=FIREWALLD.partition("table bridge")[0])
    check_packets(cluster, "firewalld reloaded")
    cluster.call(node.W1, node.uninstall, "nftables")
    assert sorted(others(cluster).splitlines()) == sorted(before.splitlines())
    assert "k8snetc" not in cluster.run(node.W1, ["nft", "list", "tables"]).stdout


def test_what_comes_first_is_named_and_all_else_is_not(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    load_foreign(cluster)
    cluster.call(node.W1, node.install, "nftables", node.OLD)
    warnings = cluster.call(node.W1, lambda: node.target("nftables").warnings())
    # A reverse path filter and Docker's guard drop before our rules; what they drop a person has to judge.
    assert [w.split(" decides")[0] for w in warnings] == [
        "table inet firewalld chain mangle_PREROUTING",
        "table inet theirs chain early",
        "table ip raw chain PREROUTING",
    ], warnings
    cluster.run(node.W1, ["iptables-legacy", "-t", "nat", "-N", "KUBE-SERVICES"])
    cluster.run(node.W1, ["iptables-nft", "-P", "FORWARD", "DROP"])
    more = set(cluster.call(node.W1, lambda: node.target("nftables").warnings())) - set(warnings)
    assert len(more) == 2
    assert any("kube-proxy has rules in iptables-legacy for IPv4" in w for w in more)
    assert any("table ip filter chain FORWARD drops what it doesn't accept" in w for w in more)


def test_the_iptables_back_end_names_them_too(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    load_foreign(cluster)
    hook = "type nat hook prerouting priority -150;"
    early = f"table ip early {{\n chain pre {{ {hook} tcp dport 81 redirect to :82; }}\n}}\n"
    cluster.run(node.W1, ["nft", "-f", "-"], input=early)
    cluster.call(node.W1, node.install, "nft", node.OLD)
    warnings = cluster.call(node.W1, lambda: node.target("nft").warnings())
    assert any(w.startswith("table ip early chain pre translates at priority -150") for w in warnings)
    assert any(w.startswith("table inet theirs chain early decides") for w in warnings)
