"""Policies of the manifests to facts about the pods of one node: the door to `compiler.policy`."""

from __future__ import annotations

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.compiler.facts import NodeContext, PodPolicyFact
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.policy.read import cluster_of, policies_of
from k8snetc.compiler.policy.resolve import resolve_policies
from k8snetc.ir.types import Family


def resolve_policy(manifests: Manifests, node: NodeContext) -> tuple[PodPolicyFact, ...]:
    """What policies say of exactly the pods of the node (of all pods, if the node has no name).

    Raises `InputError` where two running pods claim one address, and where a protected pod has an address of a family
    that the program leaves out: its policies would not hold there.
    """
    policies, cluster = policies_of(manifests), cluster_of(manifests, node.name)
    left_out = tuple(f for f in Family if f not in node.families)
    open_ones = resolve_policies(policies, cluster, left_out) if left_out else ()
    if open_ones:
        raise InputError([_left_open(fact) for fact in open_ones])
    return resolve_policies(policies, cluster, node.families)


def _left_open(fact: PodPolicyFact) -> Diagnostic:
    origin, family = fact.origins[0], fact.family.value
    name = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    return Diagnostic(
        origin.file,
        origin.line,
        f"{origin.kind} {name} protects {fact.pods[0]}, and IPv{family} is left out: the policy would not hold there",
        f"add ipv{family} to --ip-families",
    )
