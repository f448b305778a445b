"""The text form of a program: what `--emit-ir` prints and what pass tests are written in.

Knows: how each value is written. `k8snetc.ir.parse` reads it back; printing what was parsed gives the
same text. Must not know: the compiler. Names are JSON strings, so that nothing in a name is syntax.
Origins stand behind `@`: `@ "shop.yaml":12 Service shop/web`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from k8snetc.ir.addresses import prefix_text
from k8snetc.ir.types import (
    Address,
    AddressSet,
    Balance,
    Balancer,
    Endpoint,
    Enforcement,
    FromInterface,
    Frontend,
    Node,
    Origin,
    Program,
    Refusal,
    Route,
    Rule,
    SourceIn,
)


def text_of(program: Program) -> str:
    """The program as text, one fact a line, with a final newline."""
    return "\n".join(_program(program)) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _joined(items: Iterable[object]) -> str:
    return " ".join(str(i) for i in items)


def _at(origin: Origin | None) -> str:
    if origin is None:
        return ""
    name = f"{origin.namespace}/{origin.name}"
    path = f" {_quoted(origin.path)}" if origin.path else ""
    return f"  @ {_quoted(origin.file)}:{origin.line} {origin.kind} {name}{path}"


def _program(program: Program) -> Iterator[str]:
    if program.assumed:
        yield "assumed"
    yield from _node(program.node)
    for balancer in program.balancers:
        yield from _balancer(balancer)
    for frontend in program.frontends:
        yield from _frontend(frontend)
    for one in program.sets:
        yield from _set(one)
    yield from (f"reject {_quoted(name)}" for name in program.rejects)
    yield from (f"drop {_quoted(name)}" for name in program.drops)
    yield from (f"admit {a.protocol.value} {a.port}{_at(a.origin)}" for a in program.admissions)
    for enforcement in program.enforcements:
        yield from _enforcement(enforcement)


def _node(node: Node) -> Iterator[str]:
    name = f" {_quoted(node.name)}" if node.name is not None else ""
    yield f"node{name} {{"
    yield f"  families {_joined(f'ipv{f.value}' for f in node.families)}"
    for word, items in (
        ("addresses", node.addresses),
        ("pod-networks", node.pod_networks),
        ("nodeport-networks", node.nodeport_networks),
    ):
        if items:
            yield f"  {word} {_joined(items)}"
    match node.detector:
        case SourceIn(networks):
            yield f"  cluster-is source {_joined(networks)}"
        case FromInterface(interface, prefix):
            yield f"  cluster-is {'interface-prefix' if prefix else 'interface'} {_quoted(interface)}"
        case None:
            pass
    if node.localhost_nodeports:
        yield "  localhost-nodeports"
    if not node.drop_invalid:
        yield "  keep-invalid"
    yield "}"


def _balancer(balancer: Balancer) -> Iterator[str]:
    words = [f"balancer {_quoted(balancer.name)} ipv{balancer.family.value} {balancer.protocol.value}"]
    if balancer.affinity is not None:
        words.append(f"affinity {_quoted(balancer.affinity.key)} {balancer.affinity.timeout}")
    if balancer.scheduler:
        words.append(f"scheduler {_quoted(balancer.scheduler)}")
    if balancer.forwarding:
        words.append(f"forwarding {_quoted(balancer.forwarding)}")
    yield f"{' '.join(words)} {{{_at(balancer.origin)}"
    yield from (f"  {_endpoint(e)}" for e in balancer.endpoints)
    yield "}"


def _endpoint(endpoint: Endpoint) -> str:
    local = " local" if endpoint.local else ""
    weight = f" weight {endpoint.weight}" if endpoint.weight != 1 else ""
    return f"{_socket(endpoint.address, endpoint.port)}{local}{weight}{_at(endpoint.origin)}"


def _socket(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _frontend(frontend: Frontend) -> Iterator[str]:
    if frontend.address is None:
        where = f"ipv{frontend.family.value} node:{frontend.port}"
    else:
        where = f"ipv{frontend.family.value} {_socket(frontend.address, frontend.port)}"
    words = [f"frontend {frontend.exposure.value} {where}/{frontend.protocol.value}"]
    if frontend.sources is not None:
        words.append(f"sources {_quoted(frontend.sources)}")
    if frontend.service:
        words.append(f"for {_quoted(frontend.service)}")
    yield f"{' '.join(words)} {{{_at(frontend.origin)}"
    yield from (f"  {_route(r)}" for r in frontend.routes)
    yield "}"


def _route(route: Route) -> str:
    match route.action:
        case Refusal() as refusal:
            return f"{route.who.value} -> {refusal.value}"
        case Balance(balancer, masquerade):
            return f"{route.who.value} -> {_quoted(balancer)}{' masquerade' if masquerade else ''}"


def _set(one: AddressSet) -> Iterator[str]:
    yield f"set {_quoted(one.name)} ipv{one.family.value} {{{_at(one.origin)}"
    yield from (f"  {prefix_text(one.family, p)}" for p in one.prefixes)
    yield "}"


def _enforcement(enforcement: Enforcement) -> Iterator[str]:
    yield f"enforce {_quoted(enforcement.name)} ipv{enforcement.family.value} {enforcement.direction.value} {{"
    yield f"  pods {_joined(enforcement.pods)}"
    yield from (f" {_at(o)}" for o in enforcement.origins)
    for word, rules in (("admin", enforcement.admin), ("baseline", enforcement.baseline)):
        if rules:
            yield f"  {word} {{"
            yield from (f"    {_rule(r)}" for r in rules)
            yield "  }"
    if enforcement.isolated:
        yield "  isolated {"
        yield from (f"    {_rule(r)}" for r in enforcement.rules)
        yield "  }"
    yield "}"


def _rule(rule: Rule) -> str:
    words = [rule.verdict.value]
    if rule.protocol is not None:
        words.append(rule.protocol.value)
    if rule.ports:
        words.append(
            ",".join(str(r.first) if r.first == r.last else f"{r.first}-{r.last}" for r in rule.ports)
        )
    if rule.peers is not None:
        words.append(f"peers {_quoted(rule.peers)}")
    return f"{' '.join(words)}{_at(rule.origin)}"
