"""Which kinds of object matter, and which look like one that does but would be skipped.

Knows: API groups, versions and kinds. Must not know: what is in an object. A misspelt `Networkpolicy` must not be
skipped as some unknown resource: it would leave a hole.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final, NamedTuple

from k8snetc.compiler.fields import Object
from k8snetc.compiler.manifests_admin import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from k8snetc.compiler.manifests_endpoints import Endpoints, EndpointSlice
from k8snetc.compiler.manifests_policy import NetworkPolicy
from k8snetc.compiler.manifests_service import Service
from k8snetc.compiler.manifests_workload import CronJob, Namespace, Node, Pod, Workload


class Kind(NamedTuple):
    """A kind that matters. `slot` is the field of `Manifests` that its objects go to."""

    model: type[Object]
    group: str  # "" is the core group
    version: str
    slot: str
    namespaced: bool = True
    dotted: bool = True  # names are subdomains (with dots), not labels

    @property
    def api_version(self) -> str:
        """As it stands in a manifest."""
        return f"{self.group}/{self.version}".lstrip("/")


class Misfit(NamedTuple):
    """Why an object that looks like one of a kind that matters can't be taken."""

    field: str
    what: str
    fix: str


_ADMIN = "policy.networking.k8s.io"
KINDS: Final[dict[str, Kind]] = {
    "Service": Kind(Service, "", "v1", "services", dotted=False),
    "Endpoints": Kind(Endpoints, "", "v1", "endpoints"),
    "EndpointSlice": Kind(EndpointSlice, "discovery.k8s.io", "v1", "endpoint_slices"),
    "NetworkPolicy": Kind(NetworkPolicy, "networking.k8s.io", "v1", "network_policies"),
    "ClusterNetworkPolicy": Kind(
        ClusterNetworkPolicy, _ADMIN, "v1alpha2", "cluster_network_policies", namespaced=False
    ),
    "AdminNetworkPolicy": Kind(
        AdminNetworkPolicy, _ADMIN, "v1alpha1", "admin_network_policies", namespaced=False
    ),
    "BaselineAdminNetworkPolicy": Kind(
        BaselineAdminNetworkPolicy, _ADMIN, "v1alpha1", "baseline_admin_network_policies", namespaced=False
    ),
    "Pod": Kind(Pod, "", "v1", "pods"),
    "Namespace": Kind(Namespace, "", "v1", "namespaces", namespaced=False, dotted=False),
    "Node": Kind(Node, "", "v1", "nodes", namespaced=False),
    "Deployment": Kind(Workload, "apps", "v1", "workloads"),
    "StatefulSet": Kind(Workload, "apps", "v1", "workloads"),
    "DaemonSet": Kind(Workload, "apps", "v1", "workloads"),
    "ReplicaSet": Kind(Workload, "apps", "v1", "workloads"),
    "ReplicationController": Kind(Workload, "", "v1", "workloads"),
    "Job": Kind(Workload, "batch", "v1", "workloads"),
    "CronJob": Kind(CronJob, "batch", "v1", "workloads"),
}
# Groups of Kubernetes itself: a kind that matters is in one of them only. `extensions` is gone since 1.22.
_GROUPS: Final = frozenset({kind.group for kind in KINDS.values()} | {"extensions"})
# What these groups hold besides, and what must not be taken for a misspelling.
_OTHERS: Final = frozenset(
    [
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "ControllerRevision",
        "Event",
        "Ingress",
        "IngressClass",
        "IPAddress",
        "LimitRange",
        "List",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ResourceQuota",
        "Secret",
        "ServiceAccount",
        "ServiceCIDR",
    ]
)


def kind_of(api_version: str, name: str) -> Kind | Misfit | None:
    """The kind of an object; why it is none although it looks like one; None where it does not matter."""
    group, _, version = api_version.rpartition("/")
    if group not in _GROUPS:
        return None
    kind = KINDS.get(name)
    if kind is None:
        if name in _OTHERS:
            return None
        by_case = {known.casefold(): known for known in KINDS}
        close = get_close_matches(name.casefold(), by_case, n=1, cutoff=0.85)
        if not close:
            return None
        return Misfit(
            "kind", f"there is no kind {name!r} in {api_version}", f"did you mean {by_case[close[0]]}?"
        )
    if (group, version) == (kind.group, kind.version):
        return kind
    if group == kind.group == _ADMIN:
        return Misfit("apiVersion", f"{name} of {api_version} is not supported", f"use {kind.api_version}")
    return Misfit("apiVersion", f"there is no {name} in {api_version}", f"use apiVersion: {kind.api_version}")
