"""Endpoints out of the YAML of an EndpointSlice, as kubectl prints it: by far the most lines of a large cluster.

Knows: one way to write an endpoint, with no scalar in it that YAML might take for something else, and nothing that
could be there twice. Must not know: the rest of a slice, and other ways to write it, which are read as any YAML.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from pydantic_core import PydanticCustomError

from k8snetc.compiler.document import Cut
from k8snetc.compiler.fields import parse_endpoint_addresses
from k8snetc.compiler.manifests_endpoints import Conditions, Endpoint, Hints
from k8snetc.compiler.read_yaml_fast import WORDS

_WORD = rf"(?!(?:{WORDS})\n)[A-Za-z](?>[A-Za-z0-9.-]*)"
_ADDRESS = r"(?>[0-9]+(?:\.[0-9]+){3}|[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}(?<!:))"
_UID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ENDPOINT: Final = re.compile(
    rf"(  - addresses:\n    - ({_ADDRESS})\n"
    r"(    conditions:\n      ready: (?:true|false)\n(?:      serving: (?:true|false)\n)?"
    r"(?:      terminating: (?:true|false)\n)?)?"
    rf"(    hints:\n      forZones:\n(?:      - name: {_WORD}\n)+)?"
    rf"(?:    hostname: ({_WORD})\n)?"
    rf"(?:    nodeName: ({_WORD})\n)?"
    rf"(?:    targetRef:\n      kind: Pod\n      name: {_WORD}\n      namespace: {_WORD}\n(?:      uid: {_UID}\n)?)?"
    rf"(?:    zone: ({_WORD})\n)?)"
)
_KEY: Final = "\n  endpoints:\n"
_END: Final = re.compile(r"\n  (?=[^- ])")


def from_yaml(text: str) -> Cut | None:
    """A List's slice without its endpoints, and those; None where it has none, or one is written in another way."""
    begin = text.find(_KEY)
    if begin < 0:
        return None
    begin += len(_KEY)
    last = _END.search(text, begin - 1)
    end = last.start() + 1 if last else len(text)
    try:
        found = _ENDPOINT.findall(text, begin, end)
        addresses = parse_endpoint_addresses([one[1] for one in found])
        endpoints = [
            Endpoint(
                (address,), _conditions(conditions), hostname, node, zone, _hints(hints) if hints else None
            )
            for address, (_, _, conditions, hints, hostname, node, zone) in zip(addresses, found, strict=True)
        ]
    except PydanticCustomError:
        return None
    if begin + sum([len(one[0]) for one in found]) != end or not endpoints:  # something was passed over
        return None
    return Cut(f"{text[: text.find(_KEY)]}\n  endpoints: []\n{text[end:]}", {"endpoints": tuple(endpoints)})


@lru_cache(maxsize=64)
def _conditions(lines: str) -> Conditions:
    fields = (line.strip().split(": ") for line in lines.splitlines()[1:])
    return Conditions.model_validate({name: value == "true" for name, value in fields})


@lru_cache(maxsize=1 << 10)
def _hints(lines: str) -> Hints:
    names = [line.removeprefix("      - name: ") for line in lines.splitlines()[2:]]
    return Hints.model_validate({"forZones": [{"name": name} for name in names]})
