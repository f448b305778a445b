"""The options of an install, read back from JSON: a saved plan's, a receipt's. Must not know either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from k8snetc.backends.target import InstallOptions


def options_of(data: Mapping[str, object]) -> InstallOptions:
    """The options as kept: each of the type that it has in `InstallOptions`. Raises ValueError, KeyError, TypeError."""
    made = InstallOptions(
        comments=data["comments"] is True,
        iptables=str(data["iptables"]),
        wait=int(str(data["wait"])),
        ipvs_scheduler=str(data["ipvs_scheduler"]),
        ipvs_strict_arp=data["ipvs_strict_arp"] is True,
        uplinks=_words(data["uplinks"]),
        pod_interfaces=_words(data["pod_interfaces"]),
        cgroup=None if data["cgroup"] is None else str(data["cgroup"]),
        no_cgroup=data["no_cgroup"] is True,
        ebpf_counters=data["ebpf_counters"] is True,
    )
    if {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(made).items()} != data:
        raise ValueError("its options are those of another version")
    return made


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
