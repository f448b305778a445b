"""The back ends by name, imported only when asked for: start-up stays quick, `compile` needs no kernel library."""

from __future__ import annotations

from importlib import import_module

from k8snetc.backends.base import Backend, Gap, UnsupportedError

NAMES: tuple[str, ...] = ("iptables", "nftables", "ipvs", "ebpf")


def load(name: str) -> Backend:
    """The back end of that name. Raises `KeyError` for a name not in `NAMES`, `UnsupportedError` for one not built."""
    if name not in NAMES:
        raise KeyError(name)
    module = import_module(f"k8snetc.backends.{name}")
    backend: Backend | None = getattr(module, "BACKEND", None)
    if backend is None:
        raise UnsupportedError(
            name, [Gap("anything: this back end is not built yet", "use another --backend")]
        )
    return backend
