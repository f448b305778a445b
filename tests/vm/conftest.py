"""Fixtures for tests of the guest itself."""

import subprocess
import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def sctp_sockets() -> Iterator[None]:
    """The kernel's own SCTP. It must not stay: it would answer for the lab's speakers on raw sockets."""
    subprocess.run(["modprobe", "sctp"], check=True, timeout=60)
    yield
    until = time.monotonic() + 60
    while subprocess.run(["modprobe", "-r", "sctp"], capture_output=True, timeout=60).returncode != 0:
        assert time.monotonic() < until, "the module sctp is still in use"
        time.sleep(0.5)  # sockets of a namespace that is being removed
