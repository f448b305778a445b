"""The back ends by name, imported only when asked for: start-up stays quick, `compile` needs no kernel library."""

from __future__ import annotations

from importlib import import_module

from k8snetc.backends.base import Backend

NAMES: tuple[str, ...] = ("iptables", "nftables", "ipvs", "ebpf")


def load(name: str) -> Backend:
    """The back end of that name. Raises `KeyError` for a name not in `NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    backend: Backend = import_module(f"k8snetc.backends.{name}").BACKEND
    return backend
