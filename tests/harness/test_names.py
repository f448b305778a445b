"""Names for kernel objects: unique, short, and cleaned up without touching anybody else's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import names


def test_names_are_unique_and_fit_an_interface() -> None:
    namer = names.Namer()
    given = [namer(hint) for hint in ("", "web", "db", "")]
    assert len(set(given)) == len(given)
    assert all(len(name) <= names.INTERFACE_NAME_MAX and f"{os.getpid():x}" in name for name in given)


def exists(name: str) -> bool:
    return (names.NETNS_FOLDER / name).exists()


@pytest.mark.kernel
def test_clean_removes_the_namespaces_that_were_made() -> None:
    namer = names.Namer()
    made, other = namer("a"), namer("b")
    subprocess.run(["ip", "netns", "add", made], check=True, timeout=60)
    assert exists(made)
    namer.clean()
    assert not exists(made)
    assert not exists(other)


@pytest.mark.kernel
def test_only_namespaces_of_dead_processes_are_stale() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    namer = names.Namer()
    mine = namer("m")
    stale, foreign = f"kt{dead.pid:x}-0x", f"kx{dead.pid:x}-0x"
    try:
        for name in (mine, stale, foreign):
            subprocess.run(["ip", "netns", "add", name], check=True, timeout=60)
        names.remove_stale()
        assert (exists(mine), exists(stale), exists(foreign)) == (True, False, True)
    finally:
        namer.clean()
        for name in (stale, foreign):
            if Path(names.NETNS_FOLDER, name).exists():
                subprocess.run(["ip", "netns", "delete", name], check=True, timeout=60)
