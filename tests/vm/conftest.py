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
    # Namespaces that are gone hold the module for a while, sometimes for good. Its staying fails no test here; a lab
    # test in the same machine that meets it would say so itself.
    until = time.monotonic() + 5
    while subprocess.run(["modprobe", "-r", "sctp"], capture_output=True, timeout=60).returncode != 0:
        if time.monotonic() > until:
            return
        time.sleep(0.2)
