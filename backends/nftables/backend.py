"""The nftables back end as the registry knows it.

Knows: lower, then emit. Must not know: how either works.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k8snetc.backends.base import Artifact, EmitOptions
from k8snetc.backends.nftables.emit import emit
from k8snetc.backends.nftables.lower import Capabilities, lower
from k8snetc.ir.types import Program


@dataclass(frozen=True, slots=True)
class Nftables:
    """Compiles to one file that `nft -f` reads. See `backends.base.Backend`."""

    capabilities: Capabilities = field(default_factory=Capabilities)

    @property
    def name(self) -> str:
        return "nftables"

    def compile(self, program: Program, options: EmitOptions) -> tuple[Artifact, ...]:
        """Lower and emit. Raises `UnsupportedError` with all gaps at once."""
        model = lower(program, comments=options.comments, capabilities=self.capabilities)
        return emit(model, program.node.families)
