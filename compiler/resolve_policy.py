"""Policies of the manifests to facts about the pods of one node: the door to `compiler.policy`."""

from __future__ import annotations

from k8snetc.compiler.facts import NodeContext, PodPolicyFact
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.policy.read import cluster_of, policies_of
from k8snetc.compiler.policy.resolve import resolve_policies


def resolve_policy(manifests: Manifests, node: NodeContext) -> tuple[PodPolicyFact, ...]:
    """What policies say of exactly the pods of the node (of all pods, if the node has no name).

    Raises `InputError` where two running pods claim one address.
    """
    return resolve_policies(policies_of(manifests), cluster_of(manifests, node.name), node.families)
