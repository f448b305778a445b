"""Programs of the world's nodes from a case's manifests: the whole way, through files.

Knows: how a case becomes programs. Must not know: the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from k8snetc.compiler.options import context_options
from k8snetc.compiler.pipeline import compile_program
from k8snetc.ir.types import Program
from tests.semantics.world import NODES, Manifest, write


def programs(
    folder: Path, manifests: Sequence[Manifest], options: Mapping[str, object] | None = None
) -> dict[str, Program]:
    """Each node's program. `options` as in the configuration file."""
    path = write(folder, manifests)
    config = folder / "config.yaml"
    config.write_text(json.dumps(dict(options or {})))
    return {
        node: compile_program([str(path)], context_options({"node": node}, str(config))).program
        for node in NODES
    }
