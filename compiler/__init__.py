"""From manifests to an `ir.Program`, and the command line.

Knows Kubernetes objects, their defaults and their meaning (load, validate, resolve, lower). Must not know how any
dataplane is programmed: that begins in `k8snetc.backends`, which only the command line and the pipeline reach.
"""
