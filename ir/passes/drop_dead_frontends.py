"""Drop NodePort frontends that no address of the node can serve.

Before: every NodePort. After: none of a family in which `nodeport_networks` (`--nodeport-addresses`) admits
no address, so that no chain, map or program exists for them. Everything else is untouched.

A frontend is dead only if that is certain: without restrictions the node may have addresses that the
program does not know.
"""

from __future__ import annotations

from dataclasses import replace

from k8snetc.ir.types import Family, Frontend, Program


def run(program: Program) -> Program:
    """The program without dead frontends."""
    frontends = tuple(f for f in program.frontends if not _dead(program, f))
    return program if len(frontends) == len(program.frontends) else replace(program, frontends=frontends)


def _dead(program: Program, frontend: Frontend) -> bool:
    if frontend.address is not None or not program.node.nodeport_networks:
        return False
    if program.node.localhost_nodeports and frontend.family is Family.IPV4:
        return False
    return all(n.version != frontend.family for n in program.node.nodeport_networks)
