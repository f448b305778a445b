"""Other software's rules that have a say in our traffic: nf_tables of others, and proxies in the legacy tables.

Knows: which tables are ours. Must not change anything.
"""

from __future__ import annotations

from k8snetc.backends.common import foreign_nft
from k8snetc.backends.common.xtables.foreign import legacy_proxies
from k8snetc.backends.nftables.model import TABLE


def warnings(listing: str) -> tuple[str, ...]:
    """What stands in the way, in the listing's order."""
    ours = (f"ip {TABLE}", f"ip6 {TABLE}")
    found = foreign_nft.warnings(listing, lambda t: t in ours, admits="@admitted accept" in listing)
    return (*found, *legacy_proxies())
