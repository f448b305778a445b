"""Source translation: whoever is marked, and endpoints that reached themselves, leave with the node's address.

Knows: the mark, and the chains behind POSTROUTING. Must not know: who marks, and why.
"""

from __future__ import annotations

from k8snetc.backends.common.xtables import text
from k8snetc.backends.common.xtables.chains import Chains, Draft
from k8snetc.backends.common.xtables.model import Jump
from k8snetc.ir.types import Family

POSTROUTING = "K8SNETC-POSTROUTING"
MASQUERADE = "K8SNETC-MASQUERADE"
JUMP = Jump("POSTROUTING", f"-A POSTROUTING -j {POSTROUTING}")

MARK = "0x4000/0x4000"
"""The bit of the packet mark that says "masquerade": kube-proxy's, which network plugins know and leave alone."""
SET_MARK = f" -j MARK --set-xmark {MARK}"
CLEAR_MARK = " -j MARK --set-xmark 0x0/0x4000"


def lower_masquerade(family: Family, chains: Chains, *, random_fully: bool) -> None:
    """Add the chains behind `JUMP` to the nat table. `random_fully`: source ports are chosen at random."""
    fully = " --random-fully" if random_fully else ""
    postrouting = Draft()
    postrouting.add(f" -m mark --mark {MARK} -j {MASQUERADE}")
    # An endpoint that reached itself through its service would answer itself directly: one rule for all of them.
    postrouting.add(f" -m conntrack --ctstate DNAT{text.SAME_ADDRESS[family]} -j MASQUERADE{fully}")
    chains.put(POSTROUTING, postrouting)
    masquerade = Draft()
    masquerade.add(CLEAR_MARK)  # a tunnel's outer packet keeps the mark, and must not be masqueraded again
    masquerade.add(f" -j MASQUERADE{fully}")
    chains.put(MASQUERADE, masquerade)
