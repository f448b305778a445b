"""Whose a chain is, by its name. Knows: names. Must not know: rules."""

from __future__ import annotations

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


def owner(chain: str) -> str:
    """Whose chain it is by its name, "" if unknown."""
    return next((who for start, who in KNOWN.items() if chain.startswith(start)), "")
