"""A plan as JSON: the documented form for programs, and the file that `--out` writes and `--plan` reads.

Knows: the form, which is described by `plan.schema.json` beside this module. Must not know: where a plan comes from.
`format_version` counts up when something is renamed or removed; what is added leaves it.
"""

from __future__ import annotations

import os
import tempfile
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path

import orjson

from k8snetc.apply.connectivity import Names
from k8snetc.apply.errors import ApplyError
from k8snetc.apply.kept_options import options_of
from k8snetc.apply.plan import Plan
from k8snetc.backends.target import Change, InstallOptions
from k8snetc.ir.data import DataError, from_json, to_json
from k8snetc.ir.types import Program

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What `apply --plan` needs: the program, how to install it, and the state that the plan was made for."""

    backend: str
    base: str
    program: Program
    options: InstallOptions
    paths: tuple[str, ...]
    manifests: str
    summary: str
    pods: Names


def schema() -> bytes:
    """The JSON schema of plans."""
    return files("k8snetc.apply").joinpath("plan.schema.json").read_bytes()


def document(plan: Plan) -> dict[str, object]:
    """The plan as plain values."""
    return {
        "format_version": FORMAT_VERSION,
        "old": plan.old,
        "new": plan.new,
        "backend": plan.backend,
        "node": plan.node,
        "base": plan.base,
        "differs": plan.differs,
        "assumed": plan.assumed,
        "summary": plan.summary,
        "connectivity": None if plan.effects is None else [asdict(e) for e in plan.effects],
        "rules": [_change(c) for c in plan.changes],
        "drift": [_change(c) for c in plan.drift],
        "golden": list(plan.texts),
        "steps": list(plan.steps),
        "size": plan.size,
        "warnings": list(plan.warnings),
    }


def _change(change: Change) -> dict[str, object]:
    return {"symbol": change.symbol, **asdict(change)}


def as_json(plan: Plan) -> str:
    """The plan as indented JSON, one line end at the end."""
    return orjson.dumps(document(plan), option=orjson.OPT_INDENT_2).decode() + "\n"


def save(path: Path, plan: Plan, saved: SavedPlan) -> None:
    """Write a plan that `load` reads; the file is for its owner alone, and there whole or not at all."""
    data = {
        **document(plan),
        "install": asdict(saved.options),
        "paths": list(saved.paths),
        "manifests": saved.manifests,
        "pods": {str(address): name for address, name in saved.pods.items()},
        "program": b64encode(to_json(saved.program)).decode(),
    }
    handle, temporary = tempfile.mkstemp(prefix=".k8snetc-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(data))
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def load(path: Path) -> SavedPlan:
    """Read a saved plan. Raises `ApplyError` if it is none, or of another version."""
    try:
        data = orjson.loads(path.read_bytes())
        if data["format_version"] != FORMAT_VERSION:
            raise ApplyError(f"{path} was saved by another version of k8snetc; make the plan again")
        return SavedPlan(
            str(data["backend"]),
            str(data["base"]),
            from_json(b64decode(data["program"])),
            options_of(data["install"]),
            tuple(map(str, data["paths"])),
            str(data["manifests"]),
            str(data["summary"]),
            {ip_address(address): str(name) for address, name in data["pods"].items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError, DataError) as e:
        raise ApplyError(f"{path} is no saved plan ({e}); make one with `k8snetc diff --out FILE`") from e
