"""The IPVS back end as the registry knows it.

Knows: lower, then emit. Must not know: how either works.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8snetc.backends.base import Artifact, EmitOptions
from k8snetc.backends.ipvs.emit import emit
from k8snetc.backends.ipvs.lower import lower
from k8snetc.ir.types import Program


@dataclass(frozen=True, slots=True)
class Ipvs:
    """Compiles to text of ipvsadm, ip, sysctl, ipset and iptables. See `backends.base.Backend`."""

    @property
    def name(self) -> str:
        return "ipvs"

    def compile(self, program: Program, options: EmitOptions) -> tuple[Artifact, ...]:
        """Lower and emit. Raises `UnsupportedError` with all gaps at once."""
        model = lower(
            program,
            comments=options.comments,
            scheduler=options.ipvs_scheduler,
            strict_arp=options.ipvs_strict_arp,
        )
        return emit(model, comments=options.comments)
