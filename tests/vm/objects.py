"""BPF objects that are compiled once: for the guest on the host, as clang takes seconds under emulation, and for labs.

They lie in the checkout's cache by what they are made from, so they are made once for each version of the C.
"""

import os
from functools import cache
from hashlib import sha256
from importlib.resources import files

from k8snetc.backends.ebpf import build
from tests.vm.kernel import REPOSITORY

_FOLDER = REPOSITORY / ".cache" / "objects"


@cache
def compiled(source: str) -> bytes:
    """The object of this C: the kept one, or a new one, which is kept."""
    place = _FOLDER / f"{sha256(repr((build.FLAGS, source)).encode()).hexdigest()}.o"
    if place.exists():
        return place.read_bytes()
    made = build.build(source)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    # Another process may make the same one; both are equal, and neither is ever seen half written.
    new = place.with_suffix(f".{os.getpid()}")
    new.write_bytes(made)
    new.replace(place)
    return made


def entry() -> bytes:
    """The object of the programs that stay attached."""
    return compiled(files("k8snetc.backends.ebpf").joinpath("templates/entry.bpf.c").read_text("utf-8"))
