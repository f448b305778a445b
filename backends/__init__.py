"""Back ends: from an `ir.Program` to what a dataplane runs, and back from the node.

Knows the protocol that each back end fills and which back ends there are. Must not know manifests
(`k8snetc.compiler`) or how changes are planned and made safe (`k8snetc.apply`).
"""
