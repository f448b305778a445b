"""The iptables back end as the registry knows it.

Knows: lower, then emit. Must not know: how either works.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k8snetc.backends.base import Artifact, EmitOptions
from k8snetc.backends.common.xtables.emit import emit
from k8snetc.backends.iptables.lower import Capabilities, lower
from k8snetc.ir.types import Program


@dataclass(frozen=True, slots=True)
class Iptables:
    """Compiles to iptables-restore, ip6tables-restore and ipset restore text. See `backends.base.Backend`."""

    capabilities: Capabilities = field(default_factory=Capabilities)

    @property
    def name(self) -> str:
        return "iptables"

    def compile(self, program: Program, options: EmitOptions) -> tuple[Artifact, ...]:
        """Lower and emit. Raises `UnsupportedError` with all gaps at once."""
        return emit(lower(program, comments=options.comments, capabilities=self.capabilities))
