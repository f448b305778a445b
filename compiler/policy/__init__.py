"""NetworkPolicy and its cluster-wide kin: from manifests to facts about each pod of the node.

`read` turns manifests into `model`; `cluster` indexes pods, namespaces and nodes; `resolve` answers selectors, names
of ports and address blocks. Must not know: address sets, enforcements, or any back end (`lower_policy` goes there).
"""
