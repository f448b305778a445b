"""The model of the iptables back end: that of `backends.common.xtables`, under this back end's name."""

from k8snetc.backends.common.xtables.model import (
    PREFIX,
    Chain,
    IpSet,
    Jump,
    Ruleset,
    Sysctl,
    Table,
    Xtables,
)

__all__ = ["PREFIX", "Chain", "IpSet", "Jump", "Ruleset", "Sysctl", "Table", "Xtables"]
