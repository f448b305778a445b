"""Address blocks: excepts that cut nothing, and those that leave nothing."""

from __future__ import annotations

from collections.abc import Iterator

from k8snetc.compiler.lint.finding import Finding, Place
from k8snetc.compiler.manifests import Manifests
from k8snetc.compiler.manifests_policy import IPBlock
from k8snetc.compiler.policy.read import block_peer
from k8snetc.ir.types import Origin


def check_blocks(manifests: Manifests) -> Iterator[Finding]:
    """The ipBlocks of all NetworkPolicies."""
    for policy in manifests.network_policies:
        for i, ingress in enumerate(policy.spec.ingress):
            for j, peer in enumerate(ingress.from_):
                if peer.ip_block is not None:
                    yield from _block(
                        policy.origin, ("spec", "ingress", i, "from", j, "ipBlock"), peer.ip_block
                    )
        for i, egress in enumerate(policy.spec.egress):
            for j, peer in enumerate(egress.to):
                if peer.ip_block is not None:
                    yield from _block(policy.origin, ("spec", "egress", i, "to", j, "ipBlock"), peer.ip_block)


def _block(origin: Origin, place: Place, block: IPBlock) -> Iterator[Finding]:
    for i, hole in enumerate(block.except_):
        if not hole.overlaps(block.cidr):
            yield Finding(
                origin,
                (*place, "except", i),
                "except-outside",
                f"except {hole} lies outside of {block.cidr}, so it excepts nothing",
                "correct one of the two, or delete the except",
            )
    if not block_peer(block).ranges:
        yield Finding(
            origin,
            place,
            "empty-block",
            f"nothing is left of {block.cidr} after its excepts, so the peer matches nobody",
            "correct the excepts, or delete the peer",
        )
