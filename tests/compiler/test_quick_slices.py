"""Large inputs are read in a quicker way: it gives the same objects, and the same report of what is wrong."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
import yaml

from k8snetc.compiler import load, quick_slices, read_yaml_fast
from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.document import Cut, Shortcut
from k8snetc.compiler.manifests import Manifests, read, validate

DIAGNOSTICS = sorted(p for p in (Path(__file__).parent / "diagnostics").iterdir() if p.suffix != ".txt")


def endpoint(number: int, **more: object) -> dict[str, object]:
    """An endpoint as the controller writes it."""
    return {
        "addresses": [f"10.244.0.{number}"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"worker-{number % 3}",
        "targetRef": {
            "kind": "Pod",
            "name": f"web-{number}",
            "namespace": "shop",
            "uid": f"{number:08d}-b3e1-415e-8ed5-8baeb3e15ed5",
        },
        "zone": "zone-a",
        **more,
    }


def slice_(name: str, *endpoints: dict[str, object], **more: object) -> dict[str, object]:
    """A slice as kubectl prints it."""
    return {
        "addressType": "IPv4",
        "apiVersion": "discovery.k8s.io/v1",
        "endpoints": list(endpoints),
        "kind": "EndpointSlice",
        "metadata": {
            "annotations": {"a.b/c": "d:e"},
            "labels": {"kubernetes.io/service-name": "web"},
            "name": name,
            "namespace": "shop",
            "ownerReferences": [{"apiVersion": "v1", "controller": True, "kind": "Service", "name": "web"}],
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        **more,
    }


HINTS = {"forZones": [{"name": "zone-a"}, {"name": "zone-b"}]}
GOOD: list[dict[str, object]] = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]},
    },
    slice_("web-1", endpoint(1), endpoint(2, hints=HINTS), endpoint(3, hostname="h")),
    slice_(
        "web-2", endpoint(4, conditions={"ready": None}), endpoint(5, conditions={}), endpoint(6, zone="")
    ),
    slice_("web-6", endpoint(7, addresses=["fd00::7", "fd00::8"]), addressType="IPv6"),
    slice_("web-n", endpoint(8, hints={"forNodes": [{"name": "worker-1"}]}), ports=[]),
    slice_("names", endpoint(9, addresses=["a.example"]), addressType="FQDN"),
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x"},
        "data": {"a": 'b: "c"\n', "é": "1e9"},
    },
]
FIELDS = (
    "addresses", "conditions", "ready", "nodeName", "zone", "hints", "forZones", "name", "port", "protocol",
    "addressType", "kind", "apiVersion", "endpoints", "ports", "metadata", "labels", "namespace", "extra",
)  # fmt: skip
ODD: tuple[object, ...] = (
    None, "", 0, 80.0, 1e20, 2**70, True, "true", [], {}, [None], ["10.0.0.1"], ["10.0.0.01"], ["127.0.0.1"],
    ["::ffff:1.2.3.4"], ["fe80::1%eth0"], {"ready": "yes"}, {"forZones": None}, {"forZones": [{"name": 1}]}, "é\\",
    "\x00", "IPv6", [{"port": 80}, {"port": 81}], [{"name": "http", "port": 80.0}], "EndpointSlice", "Endpointslice",
)  # fmt: skip
SCRAPS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\xff", b"\n", b"null", b"1e999", b'"items": [],', b'"a": 1,',
    b'"zone": "z",', b'"\\u003a": 1, "zone": "z",', b'"kind": "EndpointSlice",', b" ", b"\x00",
)  # fmt: skip
ODD_SCALARS = (
    "",
    "y",
    "on",
    "~",
    "1:20",
    "0777",
    "1e3",
    "'q'",
    '"d"',
    "a: b",
    "# c",
    "|",
    "&a b",
    "10.0.0.9",
    "fd00::",
)
LAYOUTS: tuple[dict[str, object], ...] = (
    {"indent": 4}, {"indent": 1}, {"separators": (",", ":")}, {}, {"indent": "\t", "sort_keys": True},
)  # fmt: skip


def outcome(name: str, text: bytes) -> Manifests | list[str]:
    """The objects of a text, or what is wrong with it."""
    try:
        return validate(load.documents([(name, text)]))
    except InputError as error:
        return [str(d) for d in error.diagnostics]


def check(
    monkeypatch: pytest.MonkeyPatch, name: str, text: bytes, *, rapid: bool = False
) -> Manifests | list[str]:
    """Both ways agree. `rapid`: also the other one reads YAML with rapidyaml, which tells other flaws."""
    ways = []
    for worth in (0, len(text) + 1):
        monkeypatch.setattr(load, "WORTH", worth)
        monkeypatch.setattr(read_yaml_fast, "WORTH", 0 if rapid else worth)
        ways.append(outcome(name, text))
    quick, slow = ways
    assert quick == slow
    assert repr(quick) == repr(slow)  # 1 is True, and 80.0 is 80
    return quick


def bent(rng: random.Random, value: object) -> None:
    """Change the value somewhere in it."""
    for _ in range(20):
        if isinstance(value, dict) and value and rng.random() < 0.8:
            key = rng.choice(list(value))
            if rng.random() < 0.7 and isinstance(value[key], dict | list):
                value = value[key]
                continue
            if rng.random() < 0.2:
                del value[key]
            else:
                value[rng.choice((key, rng.choice(FIELDS)))] = copy.deepcopy(rng.choice(ODD))
            return
        if isinstance(value, list) and value:
            value = rng.choice(value)
            continue
        return


@pytest.mark.parametrize("seed", range(25))
def test_both_ways_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        items = copy.deepcopy(rng.sample(GOOD, rng.randint(1, len(GOOD))))
        for _ in range(rng.choice((0, 1, 1, 2))):
            bent(rng, rng.choice(items))
        whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
        text = json.dumps(whole, ensure_ascii=rng.random() < 0.5, **rng.choice(LAYOUTS)).encode()  # type: ignore[arg-type]  # its options
        check(monkeypatch, "a.json", text)
        lines = yaml.dump(whole, Dumper=yaml.CSafeDumper, allow_unicode=True).splitlines()
        check(monkeypatch, "a.yaml", "\n".join([*lines, ""]).encode())
        for _ in range(rng.randint(1, 2)):
            at, other = rng.randrange(len(lines)), rng.choice(lines)
            key = other.partition(":")[0]
            new = rng.choice(
                ("", other, f" {other}", other.removeprefix(" "), f"{key}: {rng.choice(ODD_SCALARS)}")
            )
            lines[at : at + rng.choice((0, 0, 1, 2))] = [new] if new else []
        check(monkeypatch, "a.yaml", "\n".join([*lines, ""]).encode(), rapid=True)
        broken = bytearray(text)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(broken))
            broken[at : at + rng.choice((0, 0, 1, 3))] = rng.choice(SCRAPS)
        check(monkeypatch, "a.json", bytes(broken))
        check(monkeypatch, "a.yaml", bytes(broken))


@pytest.mark.parametrize("path", DIAGNOSTICS, ids=lambda p: p.name)
def test_all_that_is_told_about_bad_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, path.name, path.read_bytes())


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_the_quick_way_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would compare the slow way with itself."""
    taken: list[tuple[str, int]] = []
    at_once = quick_slices.AT_ONCE

    def note(how: str, found: Shortcut | Cut | None) -> None:
        endpoints = found.made["endpoints"] if found else ()
        assert isinstance(endpoints, tuple)
        if endpoints:
            taken.append((how, len(endpoints)))

    def from_json(text: bytes) -> Shortcut | None:
        found = at_once.json(text)
        note("json", found)
        return found

    def from_yaml(text: str) -> Cut | None:
        found = at_once.yaml(text)
        note("yaml", found)
        return found

    monkeypatch.setattr(quick_slices, "AT_ONCE", at_once._replace(json=from_json, yaml=from_yaml))
    whole = {"apiVersion": "v1", "items": GOOD, "kind": "List", "metadata": {}}
    text = json.dumps(whole, indent=4) if name == "a.json" else yaml.safe_dump(whole)
    found = check(monkeypatch, name, text.encode())
    assert isinstance(found, Manifests)
    assert len(found.endpoint_slices) == 5
    if name == "a.json":
        assert taken == [("json", 3), ("json", 3), ("json", 1)]
    else:  # first whatever is written in the common way; then the rest of the slices, by way of JSON
        assert taken == [("yaml", 3), ("json", 3), ("json", 1)]


JSON_HEAD = '{"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [\n'


@pytest.mark.parametrize(
    "change",
    [
        ('"zone": "zone-a"', '"zone": "zone-a", "zone": "zone-b"'),
        ('"kind": "Pod"', '"kind": "Pod", "kind": "Pod"'),
        ('"name": "web-1"', '"name": "web-1", "name": "web-1"'),
        ('"zone": "zone-a"', '"zone": "\\u003a", "zone": ""'),
        ('"metadata": {}', '"metadata": {"items": []}'),
        ('"items": [', '"items": [], "items": ['),
        ('"metadata": {}', '"metadata": {"a": 1e999}'),
    ],
)
def test_doubles_and_decoys(change: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = JSON_HEAD + ",\n".join(json.dumps(item) for item in GOOD) + "\n]}\n"
    assert change[0] in text
    check(monkeypatch, "a.json", text.replace(*change).encode())


def test_a_list_that_is_there_twice_is_not_taken_for_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    items = ",\n".join(json.dumps(item) for item in GOOD[1:3])
    text = f'{{"apiVersion": "v1", "metadata": {{"items": [\n{items}]}},\n\n "items": [\n{items}], "kind": "List"}}'
    found = check(monkeypatch, "a.json", text.encode())
    assert isinstance(found, Manifests)
    assert [s.origin.line for s in found.endpoint_slices] == [6, 7]


def test_errors_in_a_slice_have_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WORTH", 0)
    text = json.dumps({"apiVersion": "v1", "items": GOOD, "kind": "List"}, indent=1)
    path = tmp_path / "a.json"
    path.write_text(text.replace('"fd00::7"', '"10.0.0.7"'))
    with pytest.raises(InputError) as caught:
        read([str(path)])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.line == 1 + text[: text.index('"fd00::7"')].count("\n")
