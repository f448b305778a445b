"""Changes of rules say which manifest objects they are for, as far as the rules' comments tell."""

from k8snetc.backends.common.xtables.changes import changes
from k8snetc.backends.common.xtables.state import State, Table
from k8snetc.ir.types import Family

KEY = (Family.IPV4, "nat")
WEB = '-p tcp -m comment --comment "shop/web:http shop.yaml:1" -j ACCEPT'
DNS = '-p udp -m comment --comment "shop/dns shop.yaml:9" -j ACCEPT'
PLAIN = "-p udp -j ACCEPT"


def state(*rules: str) -> State:
    return State(tables={KEY: Table(chains={"K8SNETC-A": rules})})


def origins(live: State, goal: State) -> list[str]:
    return [c.origin for c in changes(live, goal)]


def test_what_comes_names_the_objects_else_what_goes() -> None:
    assert origins(state(), state(WEB)) == ["shop/web:http shop.yaml:1"]
    assert origins(state(WEB), state()) == ["shop/web:http shop.yaml:1"]
    assert origins(state(DNS), state(WEB, PLAIN)) == ["shop/web:http shop.yaml:1"]
    assert origins(state(PLAIN), state()) == [""]


def test_many_are_counted() -> None:
    rules = tuple(WEB.replace("web", f"web{i}") for i in range(5))
    (origin,) = origins(state(), state(*rules))
    assert origin.startswith("shop/web0:http shop.yaml:1; shop/web1:http")
    assert origin.endswith(" and 2 more")
