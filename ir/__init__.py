"""The intermediate representation: what one node's packet path has to do.

Knows frontends, balancers, source translation and enforcement, their verifier, their text form and their meaning
(`interpret`). Must not know Kubernetes manifests (`k8snetc.compiler`) or any dataplane (`k8snetc.backends`).
"""
