"""The iptables back end: `iptables-restore`, `ip6tables-restore` and `ipset restore` text.

Knows xtables in its legacy and nft variants. Must not know the other back ends.
"""

from k8snetc.backends.base import Backend
from k8snetc.backends.iptables.backend import Iptables

BACKEND: Backend = Iptables()
