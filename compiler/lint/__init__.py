"""Warnings: manifests that are valid, and probably not what was meant.

Knows the order of the checks; each module of this package has those of one subject. Must not know the command line.
"""

from __future__ import annotations

from k8snetc.compiler.lint.blocks import check_blocks
from k8snetc.compiler.lint.finding import Finding, Place
from k8snetc.compiler.lint.population import Population
from k8snetc.compiler.lint.rules import check_rules
from k8snetc.compiler.lint.selections import check_selections
from k8snetc.compiler.lint.services import check_services
from k8snetc.compiler.lint.tiers import check_tiers
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.policy.read import policies_of

__all__ = ["RULES", "Finding", "Place", "lint"]

# Every rule and what it finds, for `k8snetc lint --help` and the guide.
RULES: dict[str, str] = {
    "doubtful": "what every command warns of: a misspelt field of a Service, two pods with one address",
    "selects-nothing": "a selector of a policy or Service that no pod, workload, namespace or node matches",
    "empty-namespace": "a policy in a namespace without pods",
    "host-network-only": "a policy that selects only host-network pods, which policy does not cover",
    "unknown-port-name": "a port name that none of the selected pods has",
    "unreachable-rule": "a rule that others cover, or of a direction that policyTypes leaves out",
    "except-outside": "an except outside of its cidr",
    "empty-block": "an ipBlock of which its excepts leave nothing",
    "equal-priority": "cluster-wide policies of one tier and priority for the same pods: their order is left open",
    "own-node": "a cluster-wide egress rule about nodes: traffic between a pod and its own node is not judged",
    "host-port": "a hostPort, which is not a Service's: k8snetc does not serve it",
    "ignored-field": "a Service field that means nothing for this type of Service",
    "localhost-node-port": "NodePorts on 127.0.0.1, which IPVS can't serve",
}


def lint(
    manifests: Manifests, *, backend: str | None = None, localhost_nodeports: bool = False
) -> list[Finding]:
    """Everything that is worth a warning, sorted by place.

    Where the manifests hold no pods and no workloads at all, what depends on pods is not checked.
    """
    population = Population(manifests)
    policies = policies_of(manifests)
    found = [
        *check_blocks(manifests),
        *check_selections(policies, population),
        *check_rules(policies, population),
        *check_tiers(policies, population),
        *check_services(manifests, population, backend=backend, localhost_nodeports=localhost_nodeports),
    ]
    return sorted(set(found))
