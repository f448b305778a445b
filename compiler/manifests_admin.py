"""The cluster-wide policies of policy.networking.k8s.io, as their CRDs would admit them.

Knows: ClusterNetworkPolicy (v1alpha2), AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1), their defaults
and their checks. Unknown fields are errors: the API says that a consumer that meets a peer it doesn't know must fail
closed. Must not know: pods, or what a policy does to packets.

Source: sigs.k8s.io/network-policy-api, apis/v1alpha1 and apis/v1alpha2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from k8snetc.compiler.fields import (
    ContainerPortName,
    Exact,
    ExactObject,
    Int,
    LabelSelector,
    NetworkField,
    Port,
    Problems,
    ProtocolName,
    Text,
    refuse,
)


def _priority(value: int) -> int:
    if not 0 <= value <= 1000:
        raise refuse(f"priority {value} is out of range", "use 0 (decides first) to 1000")
    return value


T = TypeVar("T")


def _at_most(limit: int, what: str) -> Callable[[tuple[T, ...]], tuple[T, ...]]:
    """A check of the number of entries; the CRDs have such limits (maxItems)."""

    def check(value: tuple[T, ...]) -> tuple[T, ...]:
        if len(value) > limit:
            raise refuse(
                f"{len(value)} {what}, and the API allows {limit}",
                "divide them among several rules or policies",
            )
        return value

    return check


def _rule_name(value: str) -> str:
    if len(value) > 100:
        raise refuse(f"a rule name of {len(value)} characters", "use at most 100")
    return value


Priority = Annotated[Int, AfterValidator(_priority)]
Action = Literal["Accept", "Deny", "Pass"]
OldAction = Literal["Allow", "Deny", "Pass"]
RuleName = Annotated[Text, AfterValidator(_rule_name)]
Networks = Annotated[tuple[NetworkField, ...], AfterValidator(_at_most(25, "networks"))]


# --- who: subjects and peers ---------------------------------------------------------------------------------


class NamespacedPod(Exact):
    """Pods by the labels of their namespace and their own. Empty selects all."""

    namespace_selector: LabelSelector
    pod_selector: LabelSelector


class Subject(Exact):
    """The pods that a policy is for: exactly one of `namespaces` (all their pods) and `pods`."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.namespaces is None) == (self.pods is None):
            raise refuse(
                "a subject that is not one kind of selection", "give exactly one of namespaces and pods"
            )
        return self


class IngressPeer(Exact):
    """Exactly one of `namespaces` and `pods`."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.namespaces is None) == (self.pods is None):
            raise refuse(
                "a peer that is not one kind of selection", "give exactly one of namespaces and pods"
            )
        return self


class EgressPeer(Exact):
    """Exactly one of `namespaces`, `pods`, `nodes` (by the nodes' labels) and `networks`. `domainNames` is refused."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    nodes: LabelSelector | None = None
    networks: Networks | None = None
    domain_names: tuple[Text, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.domain_names is not None:
            raise refuse(
                "domainNames is not supported: the addresses of a name change while packets pass",
                "list the addresses under networks",
            )
        if sum(f is not None for f in (self.namespaces, self.pods, self.nodes, self.networks)) != 1:
            raise refuse(
                "a peer that is not one kind of selection",
                "give exactly one of namespaces, pods, nodes and networks",
            )
        if self.networks is not None and not self.networks:
            raise refuse("a peer of no networks", "list at least one CIDR block")
        return self


# --- which ports ---------------------------------------------------------------------------------------------


class PortSpan(Exact):
    """`start` to `end`, both included."""

    start: Port
    end: Port

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.end:
            raise refuse(
                f"range {self.start}-{self.end} has its ends swapped or equal", "start must be less than end"
            )
        return self


class DestinationPort(Exact):
    """Exactly one of `number` and `range`."""

    number: Port | None = None
    range: PortSpan | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.number is None) == (self.range is None):
            raise refuse(
                "a destinationPort that is not one kind of match", "give exactly one of number and range"
            )
        return self


class ProtocolMatch(Exact):
    """What to match in one transport protocol."""

    destination_port: DestinationPort


class ProtocolSelector(Exact):
    """One of a rule's `protocols`: exactly one of the fields. A named port is of whatever protocol the pod gives it."""

    tcp: ProtocolMatch | None = None
    udp: ProtocolMatch | None = None
    sctp: ProtocolMatch | None = None
    destination_named_port: ContainerPortName | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(f is not None for f in (self.tcp, self.udp, self.sctp, self.destination_named_port)) != 1:
            raise refuse(
                "a protocol that is not one kind of match",
                "give exactly one of tcp, udp, sctp and destinationNamedPort",
            )
        return self


class OldPortNumber(Exact):
    """v1alpha1 portNumber."""

    protocol: ProtocolName = "TCP"
    port: Port


class OldPortRange(Exact):
    """v1alpha1 portRange; both ends included."""

    protocol: ProtocolName = "TCP"
    start: Port
    end: Port

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.end:
            raise refuse(
                f"range {self.start}-{self.end} has its ends swapped or equal", "start must be less than end"
            )
        return self


class OldPort(Exact):
    """v1alpha1: exactly one of the fields."""

    port_number: OldPortNumber | None = None
    port_range: OldPortRange | None = None
    named_port: ContainerPortName | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(f is not None for f in (self.port_number, self.port_range, self.named_port)) != 1:
            raise refuse(
                "a port that is not one kind of match",
                "give exactly one of portNumber, portRange and namedPort",
            )
        return self


# --- ClusterNetworkPolicy, v1alpha2 --------------------------------------------------------------------------


def _protocols(value: tuple[ProtocolSelector, ...]) -> tuple[ProtocolSelector, ...]:
    if not value:
        raise refuse("an empty list of protocols", "leave protocols out for all of them")
    return _at_most(25, "protocols")(value)


Protocols = Annotated[tuple[ProtocolSelector, ...], AfterValidator(_protocols)]


class ClusterIngressRule(Exact):
    """Rules decide in the order in which they stand. `protocols` None: every protocol and port."""

    name: RuleName = ""
    action: Action
    from_: Annotated[tuple[IngressPeer, ...], AfterValidator(_at_most(25, "peers")), Field(alias="from")]
    protocols: Protocols | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.from_:
            raise refuse("a rule without peers", "list at least one under from")
        return self


class ClusterEgressRule(Exact):
    """Rules decide in the order in which they stand. `protocols` None: every protocol and port."""

    name: RuleName = ""
    action: Action
    to: Annotated[tuple[EgressPeer, ...], AfterValidator(_at_most(25, "peers"))]
    protocols: Protocols | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        if not self.to:
            problems.add(("to",), "a rule without peers", "list at least one under to")
        if any(p.networks is not None or p.nodes is not None for p in self.to):
            for i, p in enumerate(self.protocols or ()):
                if p.destination_named_port is not None:
                    _refuse_named(
                        problems, ("protocols", i, "destinationNamedPort"), p.destination_named_port
                    )
        problems.check()
        return self


def _refuse_named(problems: Problems, at: tuple[str | int, ...], name: str) -> None:
    problems.add(
        at,
        f"the named port {name!r} beside a peer of networks or nodes, which have no named ports",
        "give its number",
    )


class ClusterNetworkPolicySpec(Exact):
    """`tier` Admin decides before NetworkPolicies, Baseline after them; lower `priority` first within a tier."""

    tier: Literal["Admin", "Baseline"]
    priority: Priority
    subject: Subject
    ingress: Annotated[tuple[ClusterIngressRule, ...], AfterValidator(_at_most(25, "rules"))] = ()
    egress: Annotated[tuple[ClusterEgressRule, ...], AfterValidator(_at_most(25, "rules"))] = ()


class ClusterNetworkPolicy(ExactObject):
    """policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy."""

    spec: ClusterNetworkPolicySpec


# --- AdminNetworkPolicy and BaselineAdminNetworkPolicy, v1alpha1 -----------------------------------------------


class AdminIngressRule(Exact):
    """`ports` None or empty: every protocol and port."""

    name: RuleName = ""
    action: OldAction
    from_: Annotated[tuple[IngressPeer, ...], AfterValidator(_at_most(100, "peers")), Field(alias="from")]
    ports: Annotated[tuple[OldPort, ...], AfterValidator(_at_most(100, "ports"))] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.from_:
            raise refuse("a rule without peers", "list at least one under from")
        return self


class AdminEgressRule(Exact):
    """`ports` None or empty: every protocol and port."""

    name: RuleName = ""
    action: OldAction
    to: Annotated[tuple[EgressPeer, ...], AfterValidator(_at_most(100, "peers"))]
    ports: Annotated[tuple[OldPort, ...], AfterValidator(_at_most(100, "ports"))] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        if not self.to:
            problems.add(("to",), "a rule without peers", "list at least one under to")
        if any(p.networks is not None or p.nodes is not None for p in self.to):
            for i, p in enumerate(self.ports):
                if p.named_port is not None:
                    _refuse_named(problems, ("ports", i, "namedPort"), p.named_port)
        problems.check()
        return self


class AdminNetworkPolicySpec(Exact):
    """Decides before NetworkPolicies; lower `priority` first."""

    priority: Priority
    subject: Subject
    ingress: Annotated[tuple[AdminIngressRule, ...], AfterValidator(_at_most(100, "rules"))] = ()
    egress: Annotated[tuple[AdminEgressRule, ...], AfterValidator(_at_most(100, "rules"))] = ()


class AdminNetworkPolicy(ExactObject):
    """policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy."""

    spec: AdminNetworkPolicySpec


class BaselineAdminNetworkPolicySpec(Exact):
    """Decides after NetworkPolicies. There is no tier after it, so nothing to pass to."""

    subject: Subject
    ingress: Annotated[tuple[AdminIngressRule, ...], AfterValidator(_at_most(100, "rules"))] = ()
    egress: Annotated[tuple[AdminEgressRule, ...], AfterValidator(_at_most(100, "rules"))] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        passes = [("ingress", i) for i, rule in enumerate(self.ingress) if rule.action == "Pass"]
        passes += [("egress", i) for i, rule in enumerate(self.egress) if rule.action == "Pass"]
        for side, i in passes:
            problems.add((side, i, "action"), "action Pass in the last tier", "use Allow or Deny")
        problems.check()
        return self


class BaselineAdminNetworkPolicy(ExactObject):
    """policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy: there is one, named `default`."""

    spec: BaselineAdminNetworkPolicySpec

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.metadata.name != "default":
            problems = Problems()
            problems.add(
                ("metadata", "name"),
                f"a BaselineAdminNetworkPolicy named {self.metadata.name!r}",
                "name it default",
            )
            problems.check()
        return self
