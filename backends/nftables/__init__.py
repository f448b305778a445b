"""The nftables back end: one file that `nft -f` reads, installed in one transaction.

Knows nf_tables (nft 1.0.6, Linux 5.13 and later). Must not know the other back ends.
"""

from k8snetc.backends.base import Backend
from k8snetc.backends.nftables.backend import Nftables

BACKEND: Backend = Nftables()
