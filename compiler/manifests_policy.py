"""NetworkPolicy and the cluster-wide policies, as the API server would store them.

Knows: networking.k8s.io/v1 NetworkPolicy, policy.networking.k8s.io v1alpha2 ClusterNetworkPolicy and v1alpha1
AdminNetworkPolicy and BaselineAdminNetworkPolicy, their defaults and their checks. Unknown fields are errors here: a
misspelt one would open or shut a hole. Must not know: pods, or what a policy does to packets.

nil differs from `{}`: an absent selector is None, an empty one selects everything.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from k8snetc.compiler.fields import (
    Exact,
    ExactObject,
    LabelSelector,
    NetworkField,
    Port,
    PortOrName,
    Problems,
    ProtocolName,
    refuse,
)

# --- networking.k8s.io/v1 ------------------------------------------------------------------------------------


class IPBlock(Exact):
    """Addresses in `cidr` that are in none of `except_`. Host bits are masked off."""

    cidr: NetworkField
    except_: tuple[NetworkField, ...] = Field(default=(), alias="except")

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        for i, hole in enumerate(self.except_):
            if hole.version != self.cidr.version:
                problems.add(
                    ("except", i),
                    f"{hole} is not of the family of {self.cidr}",
                    "except only what the cidr holds",
                )
        problems.check()
        return self


class Peer(Exact):
    """Who a rule is about: `ip_block` alone, or one or both selectors."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        selectors = self.pod_selector is not None or self.namespace_selector is not None
        if self.ip_block is not None and selectors:
            raise refuse(
                "a peer with both ipBlock and a selector",
                "make two peers of it, one with ipBlock, one with the selectors",
            )
        if self.ip_block is None and not selectors:
            raise refuse(
                "an empty peer",
                "give podSelector, namespaceSelector or ipBlock; for everyone leave from or to out",
            )
        return self


class PolicyPort(Exact):
    """Destination ports of a rule. `port` None: every port of the protocol."""

    protocol: ProtocolName = "TCP"
    port: PortOrName | None = None
    end_port: Port | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.port in {0, ""}:
            raise refuse(
                "port 0 is out of range", "use a port from 1 to 65535, or leave port out for all of them"
            )
        if self.end_port is not None:
            if self.port is None:
                raise refuse("endPort without port", "give the first port of the range as port")
            if isinstance(self.port, str):
                raise refuse(
                    f"endPort beside the named port {self.port!r}", "a range needs numbers at both ends"
                )
            if self.end_port < self.port:
                raise refuse(
                    f"endPort {self.end_port} is less than port {self.port}",
                    "give the range from its lower end up",
                )
        return self


class IngressRule(Exact):
    """Empty `from_` is everyone, empty `ports` every port and protocol."""

    from_: tuple[Peer, ...] = Field(default=(), alias="from")
    ports: tuple[PolicyPort, ...] = ()


class EgressRule(Exact):
    """Empty `to` is everyone, empty `ports` every port and protocol."""

    to: tuple[Peer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


class NetworkPolicySpec(Exact):
    """NetworkPolicySpec. `policy_types` has its default: Ingress always, Egress only where there are egress rules."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: tuple[IngressRule, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    policy_types: tuple[Literal["Ingress", "Egress"], ...] = ()

    @model_validator(mode="after")
    def _default(self) -> Self:
        if len(self.policy_types) > 2:
            raise refuse("more than two policyTypes", "list Ingress, Egress or both, each once")
        if not self.policy_types:
            self.__dict__["policy_types"] = ("Ingress", "Egress") if self.egress else ("Ingress",)
        return self


class NetworkPolicy(ExactObject):
    """networking.k8s.io/v1 NetworkPolicy."""

    spec: NetworkPolicySpec = NetworkPolicySpec()
