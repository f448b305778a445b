"""Documents become manifests: the objects that matter here, as the API server would store them.

Knows: which kinds there are, what must hold between objects, and how a field's error becomes a diagnostic with its
line. Must not know: selectors' meaning, nodes, packets. pydantic stays behind this border (`fields`,
`manifests_*`).
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from pydantic import ValidationError

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.document import Document, FieldPath, JsonValue
from k8snetc.compiler.fields import LabelSelector, Object, Requirement, is_label, is_subdomain
from k8snetc.compiler.load import Documents, load
from k8snetc.compiler.manifests_admin import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from k8snetc.compiler.manifests_policy import NetworkPolicy
from k8snetc.compiler.manifests_service import Endpoints, EndpointSlice, Service
from k8snetc.compiler.manifests_workload import CronJob, Namespace, Node, Pod, Workload
from k8snetc.ir.types import Origin

__all__ = [
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "CronJob",
    "EndpointSlice",
    "Endpoints",
    "LabelSelector",
    "Manifests",
    "Namespace",
    "NetworkPolicy",
    "Node",
    "Object",
    "Pod",
    "Requirement",
    "Service",
    "Skipped",
    "Workload",
    "read",
    "validate",
]


class Skipped(NamedTuple):
    """How many objects of a kind mean nothing here."""

    api_version: str
    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class Manifests:
    """All objects that matter, each sort in the order in which it was read.

    `warnings` are for `lint`. `assumed`: addresses were made up (`assume`), so the result must not be installed.
    """

    services: tuple[Service, ...] = ()
    endpoints: tuple[Endpoints, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    network_policies: tuple[NetworkPolicy, ...] = ()
    cluster_network_policies: tuple[ClusterNetworkPolicy, ...] = ()
    admin_network_policies: tuple[AdminNetworkPolicy, ...] = ()
    baseline_admin_network_policies: tuple[BaselineAdminNetworkPolicy, ...] = ()
    pods: tuple[Pod, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    nodes: tuple[Node, ...] = ()
    workloads: tuple[Workload | CronJob, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    assumed: bool = False


class _Kind(NamedTuple):
    model: type[Object]
    versions: frozenset[str]
    group: str  # "" is the core group
    namespaced: bool
    slot: str  # the field of Manifests
    dotted: bool = True  # names are subdomains (with dots), not labels


_ADMIN = "policy.networking.k8s.io"
_KINDS: dict[str, _Kind] = {
    "Service": _Kind(Service, frozenset({"v1"}), "", True, "services", dotted=False),
    "Endpoints": _Kind(Endpoints, frozenset({"v1"}), "", True, "endpoints"),
    "EndpointSlice": _Kind(EndpointSlice, frozenset({"v1"}), "discovery.k8s.io", True, "endpoint_slices"),
    "NetworkPolicy": _Kind(NetworkPolicy, frozenset({"v1"}), "networking.k8s.io", True, "network_policies"),
    "ClusterNetworkPolicy": _Kind(
        ClusterNetworkPolicy, frozenset({"v1alpha2"}), _ADMIN, False, "cluster_network_policies"
    ),
    "AdminNetworkPolicy": _Kind(
        AdminNetworkPolicy, frozenset({"v1alpha1"}), _ADMIN, False, "admin_network_policies"
    ),
    "BaselineAdminNetworkPolicy": _Kind(
        BaselineAdminNetworkPolicy, frozenset({"v1alpha1"}), _ADMIN, False, "baseline_admin_network_policies"
    ),
    "Pod": _Kind(Pod, frozenset({"v1"}), "", True, "pods"),
    "Namespace": _Kind(Namespace, frozenset({"v1"}), "", False, "namespaces", dotted=False),
    "Node": _Kind(Node, frozenset({"v1"}), "", False, "nodes"),
    "Deployment": _Kind(Workload, frozenset({"v1"}), "apps", True, "workloads"),
    "StatefulSet": _Kind(Workload, frozenset({"v1"}), "apps", True, "workloads"),
    "DaemonSet": _Kind(Workload, frozenset({"v1"}), "apps", True, "workloads"),
    "ReplicaSet": _Kind(Workload, frozenset({"v1"}), "apps", True, "workloads"),
    "ReplicationController": _Kind(Workload, frozenset({"v1"}), "", True, "workloads"),
    "Job": _Kind(Workload, frozenset({"v1"}), "batch", True, "workloads"),
    "CronJob": _Kind(CronJob, frozenset({"v1"}), "batch", True, "workloads"),
}
# Groups that these kinds were in before; the API server no longer serves them.
_FORMER_GROUPS = {"extensions"}


def read(paths: Sequence[str], stdin: BinaryIO | None = None, *, namespace: str = "default") -> Manifests:
    """Load and validate. Raises `InputError` with everything that is wrong in any of the files."""
    return validate(load(paths, stdin), namespace=namespace)


def validate(documents: Documents, *, namespace: str = "default") -> Manifests:
    """The objects of the documents. `namespace` is that of objects that name none.

    Raises `InputError` with everything that is wrong, what could not be read included.
    """
    state = _State(namespace)
    # What is read lives until the end, so the collector would look through all of it again and again in vain.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for document in documents:
            state.add(document)
    finally:
        if collecting:
            gc.enable()
    diagnostics = [*documents.diagnostics, *state.diagnostics]
    if diagnostics:
        raise InputError(diagnostics)
    return state.manifests()


@dataclass(slots=True)
class _State:
    """What has been validated so far."""

    namespace: str
    diagnostics: list[Diagnostic] = field(default_factory=list)
    found: dict[str, list[Object]] = field(default_factory=dict)
    skipped: dict[tuple[str, str], int] = field(default_factory=dict)
    seen: dict[tuple[str, str, str, str], Object] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        value = document.value
        version, name = value.get("apiVersion"), value.get("kind")
        if not isinstance(version, str) or not isinstance(name, str) or not version or not name:
            missing = "kind" if isinstance(version, str) and version else "apiVersion"
            self.error(
                document, (missing,), f"an object without {missing}", "every manifest has apiVersion and kind"
            )
            return
        kind = self.kind(document, version, name)
        if kind is None:
            return
        metadata = value.get("metadata")
        meta = dict(metadata) if isinstance(metadata, dict) else {}
        if not isinstance(metadata, dict) or not self.identify(document, meta, kind):
            if not isinstance(metadata, dict):
                self.error(document, ("metadata",), f"a {name} without metadata", "give metadata with a name")
            return
        origin = Origin(document.file, document.line, name, str(meta["namespace"]), str(meta["name"]))
        raw: dict[str, object] = {**value, "metadata": meta, "origin": origin}
        try:
            try:
                model = kind.model.model_validate(raw)
            except ValidationError:
                # null is the same as absent in Go; the fast path leaves this to the rare case.
                model = kind.model.model_validate({**_without_nulls(raw), "origin": origin})
        except ValidationError as error:
            self.explain(document, error)
            return
        key = (kind.group, name, origin.namespace, origin.name)
        before = self.seen.setdefault(key, model)
        if before is model:
            self.found.setdefault(kind.slot, []).append(model)
        elif before.model_copy(update={"origin": origin}) != model:
            self.error(
                document,
                (),
                f"{name} {_owner(origin)} was given before with other content, in "
                f"{before.origin.file}:{before.origin.line}",
                "keep one of the two",
            )

    def kind(self, document: Document, version: str, name: str) -> _Kind | None:
        """The kind if it matters; None (and counted, or an error) otherwise."""
        group, _, number = version.rpartition("/")
        kind = _KINDS.get(name)
        if kind is not None and (group == kind.group or group in _FORMER_GROUPS):
            if group == kind.group and number in kind.versions:
                return kind
            wanted = f"{kind.group}/{max(kind.versions)}".lstrip("/")
            self.error(
                document,
                ("apiVersion",),
                f"{name} of {version}, which is not served"
                if group in _FORMER_GROUPS or kind.group != _ADMIN
                else f"{name} of {version}, which is not supported",
                f"use apiVersion: {wanted}",
            )
            return None
        self.skipped[version, name] = self.skipped.get((version, name), 0) + 1
        return None

    def identify(self, document: Document, meta: dict[str, JsonValue], kind: _Kind) -> bool:
        """Settle name and namespace; False, with an error, where they can't be used."""
        name = meta.get("name")
        if name is None and isinstance(meta.get("generateName"), str):
            name = meta["name"] = str(meta["generateName"]).rstrip("-")
        good = True
        if not isinstance(name, str) or not name:
            self.error(
                document, ("metadata", "name"), "an object without a name", "give metadata.name, as text"
            )
            good = False
        elif not (is_subdomain(name) if kind.dotted else is_label(name)):
            dots = ", - and ." if kind.dotted else " and -"
            size = 253 if kind.dotted else 63
            self.error(
                document,
                ("metadata", "name"),
                f"{name!r} is no name of a {document.value['kind']}",
                f"use at most {size} of a-z, 0-9{dots}, with a letter or digit at both ends",
            )
            good = False
        if not kind.namespaced:
            meta["namespace"] = ""
            return good
        namespace = meta.get("namespace")
        if namespace is None or namespace == "":
            meta["namespace"] = self.namespace
        elif not isinstance(namespace, str) or not is_label(namespace):
            self.error(
                document,
                ("metadata", "namespace"),
                f"{namespace!r} is no name of a namespace",
                "use at most 63 of a-z, 0-9 and -, with a letter or digit at both ends",
            )
            good = False
        return good

    def error(self, document: Document, path: FieldPath, what: str, fix: str) -> None:
        """Note an error at a field of a document."""
        line = document.locate(path) if path else document.line
        self.diagnostics.append(Diagnostic(document.file, line, what, fix))

    def explain(self, document: Document, error: ValidationError) -> None:
        """Turn what pydantic found into diagnostics."""
        from k8snetc.compiler.explain import findings

        for path, what, fix in findings(error, document.value):
            self.error(document, path, what, fix)

    def manifests(self) -> Manifests:
        """What was found."""
        slots: dict[str, tuple[object, ...]] = {name: tuple(objects) for name, objects in self.found.items()}
        skipped = tuple(Skipped(v, k, n) for (v, k), n in sorted(self.skipped.items()))
        return Manifests(**slots, skipped=skipped)  # type: ignore[arg-type]  # _KINDS says what is in each slot


def _owner(origin: Origin) -> str:
    return f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name


_TEXT_MAPS = frozenset({"labels", "annotations", "matchLabels"})


def _without_nulls(value: dict[str, object]) -> dict[str, object]:
    """As Go reads it: a null field is an absent one, and a null in a map of text is empty text."""

    def strip(item: object) -> object:
        if isinstance(item, dict):
            out: dict[str, object] = {}
            for key, inner in item.items():
                if key in _TEXT_MAPS and isinstance(inner, dict):
                    out[key] = {k: "" if v is None else v for k, v in inner.items()}
                elif inner is not None:
                    out[key] = strip(inner)
            return out
        if isinstance(item, list):
            return [strip(inner) for inner in item]
        return item

    return {key: strip(inner) for key, inner in value.items() if inner is not None}
