"""Programs and the exact text that they become; `make golden` rewrites the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8snetc.backends.base import EmitOptions
from k8snetc.backends.ipvs import BACKEND
from k8snetc.ir.parse import parse
from k8snetc.ir.verify import verify
from tests.support import golden

HERE = Path(__file__).parent / "golden"
CASES = sorted(p.name for p in HERE.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    source = (HERE / case / "program.ir").read_text()
    artifacts = BACKEND.compile(verify(parse(source)), EmitOptions())
    golden.check_folder(HERE / case, {a.name: a.text for a in artifacts} | {"program.ir": source})
