"""Plans as text, Markdown and JSON."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import jsonschema
import pytest

from k8snetc.apply.connectivity import Effect
from k8snetc.apply.document import SavedPlan, as_json, load, save, schema
from k8snetc.apply.errors import ApplyError
from k8snetc.apply.plan import Plan
from k8snetc.apply.render import as_markdown, as_text
from k8snetc.backends.target import Change, InstallOptions
from k8snetc.ir.types import Node, Program

LOST = Effect("-", "shop/cart", "shop/db", "TCP", "5432", causes=("policy.yaml:3 NetworkPolicy shop/db",))
CHANGED = Effect(
    "~", "everyone (IPv4)", "shop/web (10.96.0.1:80)", "TCP", detail="endpoints + 10.0.0.1:80 (now 2)"
)
RULES = Change("nat IPv4 K8SNETC-B", ("-p tcp -j A",), ("-p tcp -j B",))
PLAN = Plan(
    "old", "new", "iptables", "w1", "0" * 64, (LOST, CHANGED), (RULES,), steps=("nat (IPv4): switch",), size=3
)

TEXT = """\
Connectivity:
  - shop/cart -> shop/db TCP 5432
      policy.yaml:3 NetworkPolicy shop/db
  ~ everyone (IPv4) -> shop/web (10.96.0.1:80) TCP: endpoints + 10.0.0.1:80 (now 2)

Rules (iptables):
  ~ nat IPv4 K8SNETC-B
      - -p tcp -j A
      + -p tcp -j B

Legend: - lost, ~ changed; rules: ~ changed
2 connectivity changes (1 lost, 1 changed); 1 change of rules and sets in 1 step.
"""


def test_text() -> None:
    assert as_text(PLAN, colour=False) == TEXT


def test_colour_only_repeats_the_symbols() -> None:
    coloured = as_text(PLAN, colour=True)
    assert "\x1b[31m  - shop/cart" in coloured
    assert (
        coloured.replace("\x1b[0m", "")
        .replace("\x1b[31m", "")
        .replace("\x1b[33m", "")
        .replace("\x1b[32m", "")
        == TEXT
    )


def test_nothing() -> None:
    assert as_text(Plan("old", "new"), colour=False) == "No changes.\n"
    assert not Plan("old", "new").differs


def test_words_from_manifests_cannot_act_on_a_terminal() -> None:
    evil = Plan("old", "new", effects=(Effect("+", "a\x1b[2J\nb", "c\u202ed"),))
    text = as_text(evil, colour=False)
    assert "a?[2J?b -> c?d" in text


def test_long_plans_are_cut_and_say_so() -> None:
    many = Plan("old", "new", "iptables", changes=tuple(Change(f"c{n}", (), ("x",) * 40) for n in range(100)))
    text = as_text(many, colour=False)
    assert "... and 70 more changes (--full shows them)" in text
    assert "... and 28 more lines (--full shows them)" in text
    assert len(as_text(many, colour=False, full=True).splitlines()) > 4000


def test_unknown_before() -> None:
    assert "Connectivity: not known" in as_text(
        Plan("old", "new", effects=None, changes=(RULES,)), colour=False
    )


def test_markdown_shows_words_as_they_are() -> None:
    evil = Effect("+", "a|b", "<script>@all`", "TCP", "80", causes=("x.yaml:1 Service a/b",))
    text = as_markdown(Plan("git:main:x", "y", effects=(evil,), changes=(Change("```", (), ("````",)),)))
    assert "| `+` | a\\|b | &lt;script&gt;@\u200ball\\` | TCP 80 | x.yaml:1 Service a/b |" in text
    assert "`````diff" in text


def test_json_follows_the_schema() -> None:
    described = json.loads(schema())
    jsonschema.Draft202012Validator.check_schema(described)
    for plan in (PLAN, Plan("old", "new"), Plan("old", "new", effects=None, texts=("x",), warnings=("w",))):
        jsonschema.validate(json.loads(as_json(plan)), described)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(as_json(PLAN)), "format_version": 2}, described)


def saved() -> SavedPlan:
    options = InstallOptions(iptables="nft", ipvs_scheduler="mh", uplinks=("eth0",), cgroup="/x")
    return SavedPlan(
        "iptables",
        "0" * 64,
        Program(node=Node("w1")),
        options,
        ("a",),
        "1234",
        PLAN.summary,
        {ip_address("10.0.0.1"): "shop/a"},
    )


def test_saved_plans_come_back_and_are_for_their_owner(tmp_path: Path) -> None:
    file = tmp_path / "plan"
    save(file, PLAN, saved())
    assert load(file) == saved()
    assert file.stat().st_mode & 0o777 == 0o600
    jsonschema.validate(json.loads(file.read_bytes()), json.loads(schema()))
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: {},
        lambda d: {**d, "format_version": 2},
        lambda d: {**d, "install": {}},
        lambda d: {**d, "install": {**d["install"], "comments": "no"}},
        lambda d: {**d, "program": "e30="},
        lambda d: {**d, "program": 3},
        lambda d: {**d, "pods": {"x": "y"}},
    ],
)
def test_what_is_no_saved_plan_is_refused(tmp_path: Path, damage: object) -> None:
    file = tmp_path / "plan"
    save(file, PLAN, saved())
    assert callable(damage)
    file.write_text(json.dumps(damage(json.loads(file.read_bytes()))))
    with pytest.raises(ApplyError, match="make"):
        load(file)
