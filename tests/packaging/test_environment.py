"""The environment that the tests run in is the one the lock file describes."""

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PINS = re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("name", "version"), PINS)
def test_a_locked_package_is_not_shadowed(name: str, version: str) -> None:
    """A Debian package of the same name must not be what is imported."""
    found = distribution(name)
    assert found.version == version, "run: make setup"
    assert Path(str(found.locate_file(""))).is_relative_to(sys.prefix), f"{name} comes from outside .venv"
