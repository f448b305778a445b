"""Golden files of what is said about bad input: one `.txt` beside each file of `diagnostics/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.manifests import read

FOLDER = Path(__file__).parent / "diagnostics"
INPUTS = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".txt")


@pytest.mark.parametrize("name", INPUTS)
def test_golden_diagnostics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as caught:
        read([name])
    said = f"{caught.value}\n"
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("K8SNETC_UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()


def test_one_report_for_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as caught:
        read(["service.yaml", "comma.json", "nowhere.yaml"])
    assert {d.file for d in caught.value.diagnostics} == {"service.yaml", "comma.json", "nowhere.yaml"}
