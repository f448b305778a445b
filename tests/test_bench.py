"""The benchmarks run, and draw what they say. No test asserts a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench._bars import Bar, read, show, table
from bench._plot import chart, ticks

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_has_a_line_and_a_name_for_each_series() -> None:
    text = chart("a & b", "services", "seconds", {"<one>": [(1000, 0.5), (10, 0.1)], "two": [(1000, 3)]})
    root = ET.fromstring(text)  # noqa: S314 - our own text
    lines = [e.get("points", "").split() for e in root.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [2, 1]
    across = [float(place.split(",")[0]) for place in lines[0]]
    assert across == sorted(across), "points are joined from left to right, in whatever order they come"
    words = {e.text for e in root.iter(f"{SVG}text")}
    assert {"a & b", "services", "seconds", "<one>", "two"} <= words
    assert text == chart(
        "a & b", "services", "seconds", {"<one>": [(10, 0.1), (1000, 0.5)], "two": [(1000, 3)]}
    )
    with pytest.raises(ValueError, match="nothing"):
        chart("", "", "", {"none": []})


@pytest.mark.parametrize("most", [0.003, 0.9, 1, 1.5, 7, 10, 99, 10000, 121967])
def test_ticks_hold_everything_in_few_steps(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-2] < most <= found[-1] * 1.000001
    assert 3 <= len(found) <= 11


def test_scaling_runs_and_draws(tmp_path: Path) -> None:
    words = ["--services", "3", "6", "--endpoints", "2", "--skip-kernel", "--plot", str(tmp_path)]
    said = subprocess.run(
        [sys.executable, "-m", "bench", "nonesuch"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (said.returncode, "no benchmark nonesuch" in said.stderr) == (2, True)
    said = subprocess.run(
        [sys.executable, "-m", "bench.scaling", *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "6 dual-stack, NodePorts" in said.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["compile.svg", "lines.svg"]
    assert (tmp_path / "lines.svg").read_text().count("<polyline ") == 4


def test_what_is_asked_stands_beside_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = [Bar("a", 3.9, "s", 4), Bar("b, long", 130_001, "lines", 130_000), Bar("c", 443.4, "MB")]
    lines = table(bars).splitlines()
    assert [line.split()[-1] for line in lines] == ["met", "yes", "NO", "MB"]
    assert "130,000 lines  130,001 lines" in lines[2]
    monkeypatch.setenv("K8SNETC_BENCH_BARS", str(tmp_path / "bars"))
    show(bars[:1])
    show(bars[1:])
    assert read(tmp_path / "bars") == bars


def test_services_runs_and_shows_its_bars() -> None:
    words = ["--services", "5", "--endpoints", "2", "--skip-kernel"]
    said = subprocess.run(
        [sys.executable, "-m", "bench.services", *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for row in (
        "compile 5 x 2 from JSON",
        "compile 5 x 2 from YAML",
        "dual-stack, 5 NodePorts",
        "small folder",
    ):
        assert row in said.stdout
