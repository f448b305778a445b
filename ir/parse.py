"""Reads the text form of a program (`k8snetc.ir.text` prints it). Imports lark, so import this lazily.

Knows: the grammar in `ir.lark` and which value each part becomes. Must not know: the compiler.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from ipaddress import ip_address, ip_network

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, VisitError

from k8snetc.ir.addresses import prefix_of
from k8snetc.ir.types import (
    Address,
    AddressSet,
    Admission,
    Affinity,
    Balance,
    Balancer,
    Detector,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    FromInterface,
    Frontend,
    Network,
    Node,
    Origin,
    PortRange,
    Program,
    Protocol,
    Refusal,
    Route,
    Rule,
    SourceIn,
    Verdict,
    Who,
)

Part = Token | Tree[Token]


class TextError(ValueError):
    """The text is no program. The message gives the line and what was expected there."""


@cache
def _grammar() -> Lark:
    text = files("k8snetc.ir").joinpath("ir.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="contextual")


def parse(text: str) -> Program:
    """The program that the text says. Raises `TextError`."""
    try:
        return _program(_grammar().parse(text))
    except UnexpectedInput as e:
        raise TextError(f"line {e.line}, column {e.column}: {e.get_context(text).rstrip()}") from e
    except (VisitError, ValueError) as e:
        raise TextError(str(e)) from e


# --- the tree's parts ---


def _trees(tree: Tree[Token], name: str) -> list[Tree[Token]]:
    return [c for c in tree.children if isinstance(c, Tree) and c.data == name]


def _tree(tree: Tree[Token], name: str) -> Tree[Token] | None:
    return next(iter(_trees(tree, name)), None)


def _tokens(tree: Tree[Token], kind: str) -> list[str]:
    return [str(c) for c in tree.children if isinstance(c, Token) and c.type == kind]


def _token(tree: Tree[Token], kind: str) -> str:
    return _tokens(tree, kind)[0]


def _string(tree: Tree[Token] | None) -> str:
    """The first quoted string of a part, "" where the part is absent."""
    if tree is None:
        return ""
    value = json.loads(_token(tree, "STRING"))
    assert isinstance(value, str)
    return value


def _family(tree: Tree[Token]) -> Family:
    return Family(int(_token(tree, "FAMILY")[3:]))


def _addresses(tree: Tree[Token] | None) -> tuple[Address, ...]:
    return tuple(ip_address(t) for t in _tokens(tree, "ADDRESS")) if tree else ()


def _networks(tree: Tree[Token] | None) -> tuple[Network, ...]:
    return tuple(ip_network(t) for t in _tokens(tree, "ADDRESS")) if tree else ()


def _socket(text: str) -> tuple[Address | None, int]:
    host, _, port = text.rpartition(":")
    return None if host == "node" else ip_address(host.strip("[]")), int(port)


def _at(tree: Tree[Token] | None) -> Origin | None:
    if tree is None:
        return None
    strings = [json.loads(s) for s in _tokens(tree, "STRING")]
    namespace, _, name = _token(tree, "OWNER").partition("/")
    return Origin(
        strings[0],
        int(_token(tree, "INT")),
        _token(tree, "KIND"),
        namespace,
        name,
        strings[1] if len(strings) > 1 else "",
    )


def _origin(tree: Tree[Token]) -> Origin | None:
    return _at(_tree(tree, "at"))


# --- values ---


def _program(tree: Tree[Token]) -> Program:
    node = _tree(tree, "node")
    assert node is not None
    return Program(
        node=_node(node),
        balancers=tuple(_balancer(t) for t in _trees(tree, "balancer")),
        frontends=tuple(_frontend(t) for t in _trees(tree, "frontend")),
        sets=tuple(_set(t) for t in _trees(tree, "set")),
        rejects=tuple(_string(t) for t in _trees(tree, "reject")),
        drops=tuple(_string(t) for t in _trees(tree, "drop")),
        admissions=tuple(
            Admission(Protocol(_token(t, "PROTOCOL")), int(_token(t, "INT")), _origin(t))
            for t in _trees(tree, "admit")
        ),
        enforcements=tuple(_enforcement(t) for t in _trees(tree, "enforce")),
        assumed=_tree(tree, "assumed") is not None,
    )


def _node(tree: Tree[Token]) -> Node:
    families = _tree(tree, "families")
    assert families is not None
    return Node(
        name=_string(tree) if _tokens(tree, "STRING") else None,
        families=tuple(Family(int(t[3:])) for t in _tokens(families, "FAMILY")),
        addresses=_addresses(_tree(tree, "addresses")),
        pod_networks=_networks(_tree(tree, "pod_networks")),
        detector=_detector(tree),
        nodeport_networks=_networks(_tree(tree, "nodeport_networks")),
        localhost_nodeports=_tree(tree, "localhost") is not None,
        drop_invalid=_tree(tree, "keep") is None,
    )


def _detector(tree: Tree[Token]) -> Detector:
    if source := _tree(tree, "cluster_source"):
        return SourceIn(_networks(source))
    if interface := _tree(tree, "cluster_interface"):
        return FromInterface(_string(interface), prefix=False)
    if prefix := _tree(tree, "cluster_prefix"):
        return FromInterface(_string(prefix), prefix=True)
    return None


def _balancer(tree: Tree[Token]) -> Balancer:
    affinity = _tree(tree, "affinity")
    return Balancer(
        name=_string(tree),
        family=_family(tree),
        protocol=Protocol(_token(tree, "PROTOCOL")),
        endpoints=tuple(_endpoint(t) for t in _trees(tree, "endpoint")),
        affinity=Affinity(_string(affinity), int(_token(affinity, "INT"))) if affinity else None,
        scheduler=_string(_tree(tree, "scheduler")),
        forwarding=_string(_tree(tree, "forwarding")),
        origin=_origin(tree),
    )


def _endpoint(tree: Tree[Token]) -> Endpoint:
    address, port = _socket(_token(tree, "SOCKET"))
    if address is None:
        raise ValueError("an endpoint has an address of its own")
    weight = _tree(tree, "weight")
    return Endpoint(
        address,
        port,
        local=_tree(tree, "local") is not None,
        weight=int(_token(weight, "INT")) if weight else 1,
        origin=_origin(tree),
    )


def _frontend(tree: Tree[Token]) -> Frontend:
    address, port = _socket(_token(tree, "SOCKET"))
    sources = _tree(tree, "sources")
    return Frontend(
        exposure=Exposure(_token(tree, "EXPOSURE")),
        family=_family(tree),
        address=address,
        protocol=Protocol(_token(tree, "PROTOCOL")),
        port=port,
        routes=tuple(_route(t) for t in _trees(tree, "route")),
        sources=_string(sources) if sources else None,
        service=_string(_tree(tree, "service")),
        origin=_origin(tree),
    )


def _route(tree: Tree[Token]) -> Route:
    balance = _tree(tree, "balance")
    who = Who(_token(tree, "WHO"))
    if balance is None:
        return Route(who, Refusal(_token(tree, "REFUSAL")))
    return Route(who, Balance(_string(balance), _tree(balance, "masquerade") is not None))


def _set(tree: Tree[Token]) -> AddressSet:
    prefixes = tuple(prefix_of(ip_network(t)) for t in _tokens(tree, "ADDRESS"))
    return AddressSet(_string(tree), _family(tree), prefixes, _origin(tree))


def _enforcement(tree: Tree[Token]) -> Enforcement:
    tiers = {_token(t, "TIER"): tuple(_rule(r) for r in _trees(t, "rule")) for t in _trees(tree, "tier")}
    return Enforcement(
        name=_string(tree),
        family=_family(tree),
        direction=Direction(_token(tree, "DIRECTION")),
        pods=_addresses(_tree(tree, "pods")),
        isolated="isolated" in tiers,
        rules=tiers.get("isolated", ()),
        admin=tiers.get("admin", ()),
        baseline=tiers.get("baseline", ()),
        origins=tuple(o for o in map(_at, _trees(tree, "at")) if o is not None),
    )


def _rule(tree: Tree[Token]) -> Rule:
    protocol = _tokens(tree, "PROTOCOL")
    peers = _tree(tree, "peers")
    ports = _tokens(tree, "PORTS")
    return Rule(
        verdict=Verdict(_token(tree, "VERDICT")),
        peers=_string(peers) if peers else None,
        protocol=Protocol(protocol[0]) if protocol else None,
        ports=tuple(_port_range(p) for p in ports[0].split(",")) if ports else (),
        origin=_origin(tree),
    )


def _port_range(text: str) -> PortRange:
    first, _, last = text.partition("-")
    return PortRange(int(first), int(last or first))
