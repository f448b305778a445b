"""Clusters made of network namespaces, for tests and for users.

Knows namespaces, veth pairs, routes and probes. Must not know how packets ought to be treated: it reports what the
kernel did.
"""
