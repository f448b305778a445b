"""The eBPF back end: C generated for one program, and the tables it reads.

Knows BPF program types, maps, hooks and generations. Must not know the other back ends.
"""

from __future__ import annotations

from k8snetc.backends.base import Artifact, Backend, EmitOptions
from k8snetc.ir.types import Program


class EbpfBackend:
    """Specialised C, table content and hooks for one program."""

    name = "ebpf"

    def compile(self, program: Program, options: EmitOptions) -> tuple[Artifact, ...]:
        """Lower and emit. Raises `UnsupportedError` with all gaps."""
        from k8snetc.backends.ebpf.emit import emit
        from k8snetc.backends.ebpf.lower import lower

        return emit(lower(program, counters=options.ebpf_counters), options)


BACKEND: Backend = EbpfBackend()
