"""Foreign rules that see our traffic before we do.

Knows: how other software names its chains, and where it puts its rules. Must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.backends.common.run import CommandError, run
from k8snetc.backends.common.xtables.kernel import Tools
from k8snetc.backends.common.xtables.model import PREFIX
from k8snetc.ir.types import Family

KNOWN = {
    "KUBE-ROUTER": "kube-router",
    "KUBE-NWPLCY": "kube-router",
    "KUBE-": "kube-proxy",
    "cali-": "Calico",
    "CILIUM_": "Cilium",
    "DOCKER": "Docker",
    "FLANNEL-": "Flannel",
    "WEAVE": "Weave",
    "ANTREA-": "Antrea",
    "CNI-": "a CNI plugin",
    "LIBVIRT_": "libvirt",
    "f2b-": "fail2ban",
    "ufw-": "ufw",
    "ts-": "Tailscale",
}
"""Whose chains these are, by their first letters; the first that fits counts."""

PROXIES = frozenset({"kube-proxy", "kube-router", "Cilium"})
"""Those that balance services themselves."""

_HARMLESS = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "CT", "ACCOUNT", ""})
_TABLES = frozenset({"raw", "mangle", "nat", "filter"})


def owner(chain: str) -> str:
    """Whose chain it is by its name, "" if unknown."""
    return next((who for start, who in KNOWN.items() if chain.startswith(start)), "")


def warnings(tools: Tools) -> tuple[str, ...]:
    """Each rule before ours that may decide about our traffic, and other proxies on this node. Stable order."""
    found: dict[str, None] = {}
    for family in Family:
        found |= dict.fromkeys(ahead(family, tools.save(family)))
        found |= dict.fromkeys(_other_variant(tools, family))
    found |= dict.fromkeys(_nft_proxies())
    return tuple(found)


def ahead(family: Family, text: str) -> Iterator[str]:
    """What stands before our hooks in the built-in chains, in the words of iptables-save."""
    table = ""
    before: dict[str, list[str]] = {}
    hooked: set[str] = set()
    for line in text.splitlines():
        if line.startswith("*"):
            table, before, hooked = line[1:], {}, set()
        elif line.startswith("-A ") and table in _TABLES:
            chain, _, rule = line[3:].partition(" ")
            target = _target(rule)
            if target.startswith(PREFIX) and not chain.startswith(PREFIX):
                for other in before.pop(chain, ()) if chain not in hooked else ():
                    name = _target(other)
                    who = f"{owner(name)}'s {name}" if owner(name) else f"`{other}`"
                    yield (
                        f"{table} IPv{family} {chain}: {who} comes before our rules and may decide first; "
                        "remove it, or apply again after our rules were removed, which puts ours first"
                    )
                hooked.add(chain)
            elif target not in _HARMLESS:
                before.setdefault(chain, []).append(rule)


def _target(rule: str) -> str:
    words = rule.split(" ")
    for at in range(len(words) - 2, -1, -1):
        if words[at] in ("-j", "-g"):
            return words[at + 1]
    return ""


def _other_variant(tools: Tools, family: Family) -> Iterator[str]:
    """Proxies in the tables of the variant that we don't use: the kernel runs both, in the order of their making."""
    name = "iptables" if family is Family.IPV4 else "ip6tables"
    for variant in ("legacy", "nft"):
        try:
            text = run([f"{name}-{variant}-save"])
        except CommandError:
            continue
        owners = {owner(line[1:].split(" ")[0]) for line in text.splitlines() if line.startswith(":")}
        if f":{PREFIX}" in text and tools.variant not in ("auto", variant):
            yield (
                f"iptables-{variant} holds rules of ours for IPv{family} too; "
                f"remove them with `k8snetc remove --backend iptables --iptables {variant}`"
            )
        for who in sorted(owners & PROXIES):
            yield (
                f"{who} has rules in iptables-{variant} for IPv{family}; two proxies on one node contend for the same "
                "services: stop it and remove its rules"
            )


def _nft_proxies() -> Iterator[str]:
    try:
        tables = run(["nft", "list", "tables"]).splitlines()
    except CommandError:
        return
    for line in sorted(tables):
        if line.split()[-1:] == ["kube-proxy"]:
            yield (
                f"kube-proxy's nftables rules are on this node (`{line}`); two proxies contend for the same services: "
                "stop it and remove its table"
            )
