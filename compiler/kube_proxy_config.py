"""kube-proxy's own configuration: the options of `options` that a KubeProxyConfiguration sets.

Knows: kubeproxy.config.k8s.io/v1alpha1 (https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/),
as kubeadm keeps it in the ConfigMap kube-system/kube-proxy. Must not know: how an option's text is read.

What that file leaves open (null, "" and [], as kubeadm writes it) stays unset: flags and Node objects decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final, NamedTuple

from k8snetc.compiler.document import FieldPath, JsonValue

GROUP: Final = "kubeproxy.config.k8s.io"
KIND: Final = "KubeProxyConfiguration"

# Path of a field there: the option that it sets.
_SETS: Final[dict[tuple[str, ...], str]] = {
    ("hostnameOverride",): "node",
    ("clusterCIDR",): "cluster_cidr",
    ("nodePortAddresses",): "nodeport_addresses",
    ("detectLocalMode",): "detect_local_mode",
    ("detectLocal", "bridgeInterface"): "pod_bridge_interface",
    ("detectLocal", "interfaceNamePrefix"): "pod_interface_name_prefix",
    ("iptables", "localhostNodePorts"): "localhost_nodeports",
    ("iptables", "masqueradeAll"): "masquerade_all",
    ("nftables", "masqueradeAll"): "masquerade_all",
    ("conntrack", "tcpBeLiberal"): "conntrack_tcp_be_liberal",
}

# What says nothing about the node's program: how kube-proxy runs, logs, keeps time and tunes the kernel. The scheduler
# of IPVS is a flag of that back end.
_ELSEWHERE: Final = frozenset(
    [
        "apiVersion",
        "kind",
        "featureGates",
        "clientConnection",
        "logging",
        "bindAddress",
        "healthzBindAddress",
        "metricsBindAddress",
        "bindAddressHardFail",
        "enableProfiling",
        "showHiddenMetricsForVersion",
        "mode",
        "winkernel",
        "oomScoreAdj",
        "configSyncPeriod",
        "portRange",
        "windowsRunAsService",
        "ipvs",
        "udpIdleTimeout",
    ]
)
_TUNING: Final[dict[str, frozenset[str]]] = {
    "iptables": frozenset({"masqueradeBit", "syncPeriod", "minSyncPeriod"}),
    "nftables": frozenset({"masqueradeBit", "syncPeriod", "minSyncPeriod"}),
    "detectLocal": frozenset(),
    "conntrack": frozenset(
        [
            "maxPerCore",
            "min",
            "tcpEstablishedTimeout",
            "tcpCloseWaitTimeout",
            "udpTimeout",
            "udpStreamTimeout",
        ]
    ),
}


class Setting(NamedTuple):
    """An option that the file sets: where, which one, to what."""

    path: FieldPath
    field: str
    value: JsonValue


class Strange(NamedTuple):
    """What is wrong with the file, and what to do."""

    path: FieldPath
    what: str
    fix: str


def is_kube_proxys(value: JsonValue) -> bool:
    """Whether this is a KubeProxyConfiguration rather than a mapping of options."""
    return isinstance(value, dict) and (
        value.get("kind") == KIND or str(value.get("apiVersion", "")).startswith(f"{GROUP}/")
    )


def settings(value: dict[str, JsonValue]) -> Iterator[Setting | Strange]:
    """What a KubeProxyConfiguration sets. Of `iptables` and `nftables` the section of its `mode` counts, as there."""
    if value.get("apiVersion") != f"{GROUP}/v1alpha1" or value.get("kind") != KIND:
        yield Strange(
            ("apiVersion",),
            f"{value.get('apiVersion')} {value.get('kind')} is not known",
            f"give a {KIND} of {GROUP}/v1alpha1, or a mapping of options",
        )
        return
    other = "iptables" if value.get("mode") == "nftables" else "nftables"
    for key, inner in value.items():
        if key in _ELSEWHERE:
            continue
        if (key,) in _SETS:
            yield from _setting((key,), inner)
        elif key not in _TUNING:
            yield _unknown((key,), [*_ELSEWHERE, *_TUNING, *(path[0] for path in _SETS)])
        elif isinstance(inner, dict):
            for name, item in inner.items():
                if (key, name) in _SETS:
                    if key != other:
                        yield from _setting((key, name), item)
                elif name not in _TUNING[key]:
                    names = [path[1] for path in _SETS if path[0] == key]
                    yield _unknown((key, name), [*_TUNING[key], *names])
        elif inner is not None:
            yield Strange((key,), f"{key}: {inner!r} is no mapping", "write it as key: value")


def _setting(path: tuple[str, ...], value: JsonValue) -> Iterator[Setting]:
    if value is not None and value not in ("", []):
        yield Setting(path, _SETS[path], value)


def _unknown(path: tuple[str, ...], known: list[str]) -> Strange:
    close = get_close_matches(path[-1], known, n=1, cutoff=0.6)
    fix = f"did you mean {close[0]}?" if close else "leave it out: kube-proxy has no such field"
    return Strange(path, f"{'.'.join(path)} is no field of {KIND}", fix)
