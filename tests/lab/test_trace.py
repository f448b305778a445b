"""`k8snetc trace` on an example: arrivals, refusals, denials, and whose manifest did it. No kernel."""

import json

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
    assert answer["arrivals"] == [
        {"place": "pod/shop/db-0", "address": "10.244.2.12", "port": 5432, "source": "10.244.1.11"}
    ]
    assert answer["refusals"] == []


def test_a_wrong_name_is_a_usage_error_with_a_hint() -> None:
    done = trace("pod/shop/cart-9", "svc/shop/db:5432/tcp")
    assert "did you mean pod/shop/cart-0?" in str(done.exception)
