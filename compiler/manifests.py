"""Documents become manifests: the objects that matter here, as the API server would store them.

Knows: which kinds there are, what must hold between objects, and how a field's error becomes a diagnostic with its
line. Must not know: selectors' meaning, nodes, packets. pydantic stays behind this border (`fields`,
`manifests_*`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from pydantic import ValidationError

from k8snetc.compiler.clashes import clashes
from k8snetc.compiler.diagnostics import Diagnostic, InputError, Severity
from k8snetc.compiler.document import Document, FieldPath, JsonValue
from k8snetc.compiler.doubts import doubts
from k8snetc.compiler.fields import LabelSelector, Object, Requirement, is_label, is_subdomain
from k8snetc.compiler.kinds import Kind, Misfit, kind_of
from k8snetc.compiler.load import Documents, load
from k8snetc.compiler.manifests_admin import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from k8snetc.compiler.manifests_endpoints import Endpoints, EndpointSlice
from k8snetc.compiler.manifests_policy import NetworkPolicy
from k8snetc.compiler.manifests_service import Service
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


Unfit = Callable[[Sequence[Service]], Iterable[Diagnostic]]


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


def read(paths: Sequence[str], stdin: BinaryIO | None = None, *, namespace: str = "default") -> Manifests:
    """Load and validate. Raises `InputError` with everything that is wrong in any of the files."""
    return validate(load(paths, stdin), namespace=namespace)


def validate(documents: Documents, *, namespace: str = "default", unfit: Unfit | None = None) -> Manifests:
    """The objects of the documents. `namespace` is that of objects that name none.

    `unfit` says what else is wrong with Services, for the purpose at hand. Raises `InputError` with everything that is
    wrong, what could not be read included.
    """
    state = _State(namespace)
    # What is read lives until the end, so the collector would look through all of it again and again in vain.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for document in documents:
            state.add(document)
        state.finish(unfit)
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
    warnings: list[Diagnostic] = field(default_factory=list)
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
        kind = kind_of(version, name)
        if kind is None:
            self.skipped[version, name] = self.skipped.get((version, name), 0) + 1
            return
        if isinstance(kind, Misfit):
            self.error(document, (kind.field,), kind.what, kind.fix)
            return
        metadata = value.get("metadata")
        if not isinstance(metadata, dict):
            self.error(document, ("metadata",), f"a {name} without metadata", "give metadata with a name")
            return
        meta = dict(metadata)
        named = self.identify(document, meta, kind)
        origin = Origin(document.file, document.line, name, str(meta["namespace"]), str(meta["name"]))
        key = (kind.group, name, origin.namespace, origin.name)
        raw: dict[str, object] = {**value, **(document.made or {}), "metadata": meta, "origin": origin}
        try:
            try:
                model = kind.model.model_validate(raw)
            except ValidationError:
                if document.made is not None:
                    self.add(document.whole())
                    return
                # null is the same as absent in Go; the fast path leaves this to the rare case.
                model = kind.model.model_validate({**_without_nulls(raw), "origin": origin})
        except ValidationError as error:
            rest = self.explain(document, error, kind, raw)
            if named and rest is not None and self.seen.setdefault(key, rest) is rest:
                self.found.setdefault(kind.slot, []).append(rest)
            return
        if not named:
            return
        before = self.seen.setdefault(key, model)
        if before is model:
            self.found.setdefault(kind.slot, []).append(model)
            self.warn(document, model)
        elif before.model_copy(update={"origin": origin}) != model:
            self.error(
                document,
                (),
                f"{name} {_owner(origin)} was given before with other content, in "
                f"{before.origin.file}:{before.origin.line}",
                "keep one of the two",
            )

    def identify(self, document: Document, meta: dict[str, JsonValue], kind: Kind) -> bool:
        """Settle name and namespace. False, with an error, where they can't be used; then they are stand-ins."""
        good = True
        name = meta.get("name")
        if name is None and isinstance(meta.get("generateName"), str):
            name = str(meta["generateName"]).rstrip("-")
        if not isinstance(name, str) or not name:
            what = "an object without a name" if name is None or name == "" else f"{name!r} is not text"
            self.error(document, ("metadata", "name"), what, "give metadata.name, as text")
            good = False
        elif not (is_subdomain(name) if kind.dotted else is_label(name)):
            dots = ", - and ." if kind.dotted else " and -"
            fix = f"use at most {253 if kind.dotted else 63} of a-z, 0-9{dots}, with a letter or digit at both ends"
            self.error(
                document, ("metadata", "name"), f"{name!r} is no name of a {document.value['kind']}", fix
            )
            good = False
        meta["name"] = name if good else "default"
        namespace = meta.get("namespace")
        if not kind.namespaced:
            meta["namespace"] = ""
        elif namespace is None or namespace == "":
            meta["namespace"] = self.namespace
        elif not isinstance(namespace, str) or not is_label(namespace):
            fix = "use at most 63 of a-z, 0-9 and -, with a letter or digit at both ends"
            self.error(document, ("metadata", "namespace"), f"{namespace!r} is no name of a namespace", fix)
            meta["namespace"] = self.namespace
            good = False
        return good

    def error(self, document: Document, path: FieldPath, what: str, fix: str) -> None:
        """Note an error at a field of a document."""
        line = document.locate(path) if path else document.line
        if "{{" in what:
            fix = "this looks like a template: render it first, as with `helm template`"
        self.diagnostics.append(Diagnostic(document.file, line, what, fix))

    def explain(
        self, document: Document, error: ValidationError, kind: Kind, raw: dict[str, object]
    ) -> Object | None:
        """Turn what pydantic found into diagnostics; the rest of the object, if it is good without what is bad.

        pydantic looks at what must hold between fields only where each is good, and `clashes` knows only objects that
        were read. So what is left without the bad items is looked at too; with an error noted it is never compiled.
        """
        from k8snetc.compiler.explain import findings
        from k8snetc.compiler.salvage import without

        found = list(findings(error))
        for path, what, fix in found:
            self.error(document, path, what, fix)
        rest = without(_without_nulls({k: v for k, v in raw.items() if k != "origin"}), (f[0] for f in found))
        if rest is None:
            return None
        try:
            return kind.model.model_validate({**rest.value, "origin": raw["origin"]})
        except ValidationError as more:
            for path, what, fix in findings(more, rest.original):
                self.error(document, path, what, fix)
            return None

    def warn(self, document: Document, model: Object) -> None:
        """Note what is allowed but hardly meant."""
        for path, what, fix in doubts(model, document.value):
            line = document.locate(path)
            self.warnings.append(Diagnostic(document.file, line, what, fix, Severity.WARNING))

    def finish(self, unfit: Unfit | None) -> None:
        """Look for what can only be seen when all objects are there."""
        services = [s for s in self.found.get("services", ()) if isinstance(s, Service)]
        pods = [p for p in self.found.get("pods", ()) if isinstance(p, Pod)]
        for clash in clashes(services, pods):
            (self.diagnostics if clash.severity is Severity.ERROR else self.warnings).append(clash)
        if unfit is not None:
            self.diagnostics.extend(unfit(services))

    def manifests(self) -> Manifests:
        """What was found."""
        slots: dict[str, tuple[object, ...]] = {name: tuple(objects) for name, objects in self.found.items()}
        skipped = tuple(Skipped(v, k, n) for (v, k), n in sorted(self.skipped.items()))
        warnings = tuple(sorted(set(self.warnings)))
        return Manifests(**slots, skipped=skipped, warnings=warnings)  # type: ignore[arg-type]  # _KINDS says what is in each slot


def _owner(origin: Origin) -> str:
    return f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name


def _is_flat(value: dict[str, object]) -> bool:
    """Whether a selector is that of a Service (text to text), not a LabelSelector."""
    return not any(isinstance(inner, dict | list) for inner in value.values())


_TEXT_MAPS = frozenset({"labels", "annotations", "matchLabels"})


def _without_nulls(value: dict[str, object]) -> dict[str, object]:
    """As Go reads it: a null field is an absent one, and a null in a map of text is empty text."""

    def strip(item: object) -> object:
        if isinstance(item, dict):
            out: dict[str, object] = {}
            for key, inner in item.items():
                if isinstance(inner, dict) and (key in _TEXT_MAPS or (key == "selector" and _is_flat(inner))):
                    out[key] = {k: "" if v is None else v for k, v in inner.items()}
                elif inner is not None:
                    out[key] = strip(inner)
            return out
        if isinstance(item, list):
            return [strip(inner) for inner in item]
        return item

    return {key: strip(inner) for key, inner in value.items() if inner is not None}
