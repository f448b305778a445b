"""`k8snetc trace` on an example: arrivals, refusals, denials, and whose manifest did it. No kernel."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k8snetc.lab.cli_trace import trace_command
from tests.support.repository import ROOT

SHOP = str(ROOT / "examples/web-shop/manifests")


def trace(client: str, target: str, *more: str) -> Result:
    return CliRunner().invoke(
        trace_command, [SHOP, "--from", client, "--to", target, *more], standalone_mode=False
    )


def test_a_service_reaches_its_endpoints_and_says_why() -> None:
    done = trace("pod/shop/cart-0", "svc/shop/web:http")
    assert done.return_value == 0
    assert "pod/shop/web-0 at 10.244.1.10:8080 seeing 10.244.1.11" in done.output
    assert "pod/shop/web-1 at 10.244.2.10:8080 seeing 10.244.1.11" in done.output
    assert "services.yaml:1" in done.output


@pytest.mark.parametrize(
    ("client", "target", "said"),
    [
        ("pod/shop/web-0", "svc/shop/db:5432/tcp", "policies.yaml:2"),
        ("pod/shop/cart-0", "svc/shop/search:80", "= refused"),
        ("client/outside", "pod/shop/db-0:5432/tcp", "= timeout"),
        ("pod/shop/cart-0", "10.96.7.7:81/tcp", "= refused"),
    ],
)
def test_what_does_not_arrive_is_exit_code_1(client: str, target: str, said: str) -> None:
    done = trace(client, target)
    assert done.return_value == 1
    assert said in done.output


def test_a_policy_lets_its_friend_through() -> None:
    assert trace("pod/shop/cart-0", "svc/shop/db:5432/tcp").return_value == 0


def test_json() -> None:
    (answer,) = json.loads(trace("pod/shop/cart-0", "svc/shop/db:5432/tcp", "--format", "json").output)
    assert answer["format_version"] == 1
    assert answer["assumed"] is False
    assert answer["arrivals"] == [
        {
            "place": "pod/shop/db-0",
            "listens": True,
            "address": "10.244.2.12",
            "port": 5432,
            "source": "10.244.1.11",
        }
    ]
    assert answer["refusals"] == []


def test_answers_about_assumed_addresses_say_so() -> None:
    boutique = str(ROOT / "examples/online-boutique/manifests")
    words = [
        boutique,
        "--assume-addresses",
        "--from",
        "client/outside",
        "--to",
        "svc/default/frontend-external:80/tcp",
    ]
    text = CliRunner().invoke(trace_command, words, standalone_mode=False).stdout
    assert text.splitlines()[-1].startswith("Addresses are assumed (--assume-addresses)")
    answers = json.loads(
        CliRunner().invoke(trace_command, [*words, "--format", "json"], standalone_mode=False).stdout
    )
    assert [a["assumed"] for a in answers] == [True] * len(answers)


def test_a_wrong_name_is_a_usage_error_with_a_hint() -> None:
    done = trace("pod/shop/cart-9", "svc/shop/db:5432/tcp")
    assert "did you mean pod/shop/cart-0?" in str(done.exception)


@pytest.mark.parametrize(
    ("client", "target", "said"),
    [
        (
            "pod/shop/cart-0",
            "192.0.2.99:443/tcp",
            "= sent on, elsewhere at 192.0.2.99:443 seeing 10.244.1.11",
        ),
        ("pod/shop/cart-0", "192.0.2.99/icmp", "= sent on, elsewhere"),
        ("pod/shop/cart-0", "pod/shop/web-0:9999/tcp", "= arrives, pod/shop/web-0 at 10.244.1.10:9999"),
        ("node/worker-1", "127.0.0.1:22/tcp", "= arrives, node/worker-1 at 127.0.0.1:22"),
        ("client/outside", "node/worker-2:10250/tcp", "= arrives, node/worker-2 at 192.0.2.12:10250"),
    ],
)
def test_what_no_manifest_tells_is_not_made_up(client: str, target: str, said: str) -> None:
    """Nobody knows whether something listens there; that the packets get there is known."""
    done = trace(client, target)
    assert said in done.output
    assert "no manifest says" in done.output
    assert done.return_value == 0


def test_json_says_what_is_known_to_listen() -> None:
    answers = [
        json.loads(trace("pod/shop/cart-0", target, "--format", "json").output)[0]["arrivals"][0]
        for target in ("svc/shop/cart:7070/tcp", "pod/shop/web-0:9999/tcp", "192.0.2.99:443/tcp")
    ]
    assert [(a["place"], a["listens"]) for a in answers] == [
        ("pod/shop/cart-0", True),
        ("pod/shop/web-0", False),
        ("elsewhere", False),
    ]


def test_endpoints_that_are_no_pods_are_reached(tmp_path: Path) -> None:
    """A service without selector, whose endpoint is a machine outside."""
    for file in Path(SHOP).iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "more.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: old-db, namespace: shop}\n"
        "spec: {clusterIP: 10.96.7.40, ports: [{port: 5432}]}\n---\n"
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: old-db, namespace: shop}\n"
        "subsets: [{addresses: [{ip: 198.51.100.7}], ports: [{port: 5432}]}]\n"
    )
    words = [str(tmp_path), "--from", "pod/shop/cart-0", "--to", "svc/shop/old-db:5432"]
    done = CliRunner().invoke(trace_command, words, standalone_mode=False)
    assert done.return_value == 0, done.output
    assert "at 198.51.100.7:5432 seeing 10.244.1.11" in done.output
