"""Program to model: features, tables, and every gap at once.

Must not know: the C's text, or the kernel.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.ebpf import policy, services
from k8snetc.backends.ebpf.features import features_of
from k8snetc.backends.ebpf.model import Model, Table
from k8snetc.ir.types import Family, Program


def lower(program: Program, *, counters: bool = True) -> Model:
    """The model of the program. Raises `UnsupportedError` with all gaps."""
    gaps = list(services.gaps(program))
    if gaps:
        raise UnsupportedError("ebpf", gaps)
    features = features_of(program, counters=counters)
    port_sets = policy.PortSets()
    tables: list[Table] = []
    nodeports: list[int] = []
    for family in Family:
        one = services.Services(program, family)
        tables += one.tables()
        nodeports += one.nodeports()
        tables += policy.tables(program, family, port_sets)
    ports = port_sets.table()
    if ports is not None:
        tables.append(ports)
    features = replace(features, port_sets=ports is not None)
    return Model(
        features,
        tuple(tables),
        tuple(sorted(e.name for e in program.enforcements)),
        (min(nodeports), max(nodeports)) if nodeports else (1, 0),
    )
