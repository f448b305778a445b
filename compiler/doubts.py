"""What the API server takes but nobody can mean: warnings, with the place in the object.

Knows: fields of one object. Must not know: other objects, files. Whether a selector selects anything is for `lint`,
which sees the whole cluster, as are the rules of policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from k8snetc.compiler.document import FieldPath, JsonValue
from k8snetc.compiler.fields import Object
from k8snetc.compiler.manifests_service import Service

Doubt = tuple[FieldPath, str, str]  # where, what, what to do

_SERVICE_FIELDS: Final = frozenset(
    [
        "allocateLoadBalancerNodePorts",
        "clusterIP",
        "clusterIPs",
        "externalIPs",
        "externalName",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "ports",
        "publishNotReadyAddresses",
        "selector",
        "sessionAffinity",
        "sessionAffinityConfig",
        "topologyKeys",
        "trafficDistribution",
        "type",
    ]
)
_PORT_FIELDS: Final = frozenset(["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"])


def doubts(model: Object, value: dict[str, JsonValue]) -> Iterator[Doubt]:
    """The doubts about an object; `value` is what it was made from."""
    if isinstance(model, Service):
        yield from _service(value)


def _service(value: dict[str, JsonValue]) -> Iterator[Doubt]:
    """Misspelt fields: kubectl refuses them, so here they would silently mean nothing."""
    spec = value.get("spec")
    if not isinstance(spec, dict):
        return
    yield from _unknown(spec, _SERVICE_FIELDS, ("spec",))
    ports = spec.get("ports")
    if isinstance(ports, list):
        for i, port in enumerate(ports):
            if isinstance(port, dict):
                yield from _unknown(port, _PORT_FIELDS, ("spec", "ports", i))


def _unknown(mapping: dict[str, JsonValue], known: frozenset[str], path: FieldPath) -> Iterator[Doubt]:
    if mapping.keys() <= known:
        return
    for key in mapping.keys() - known:
        by_case = {name.casefold(): name for name in known}
        close = get_close_matches(key.casefold(), by_case, n=1, cutoff=0.7)
        fix = f"did you mean {by_case[close[0]]}?" if close else "it is ignored"
        yield (*path, key), f"a Service has no field {key!r} there", fix
