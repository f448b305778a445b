"""The rules of NetworkPolicy and its cluster-wide kin, one case a rule, in the cluster of `policy_cluster`.

A case states which flows pass, and which are dropped; `docs/semantics.md` says where each rule is from. Flows are lines
`SOURCE... -> DESTINATION... PORT... [v4|v6]`: places are pods (`x/a`), nodes (`w1`), the outside (`out`, `out2` from
its second address), and as destinations the service (`svc`) and a node's NodePort (`w1:np`); ports: `80/tcp`, `ping`.
"""

# ruff: noqa: UP031 - YAML is full of braces, which would all be doubled in the other ways to format
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """Policies in YAML, and what becomes of flows. `refused`: let through, and answered that nobody listens."""

    name: str
    policies: str
    passes: str
    drops: str = ""
    refused: str = ""


CASES: tuple[Case, ...] = ()


def case(name: str, policies: str, passes: str, drops: str = "", refused: str = "") -> None:
    """Add a case."""
    global CASES  # noqa: PLW0603 - the table is written top to bottom, once, at import
    CASES = (*CASES, Case(name, policies, passes, drops, refused))


def network_policy(spec: str, *, name: str = "policy", namespace: str = "y") -> str:
    """A NetworkPolicy of which only the spec matters."""
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    return f"{head}metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"


def cluster_policy(spec: str, *, name: str = "policy") -> str:
    """A ClusterNetworkPolicy of which only the spec matters."""
    head = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n---\n"


def admin_policy(spec: str, *, kind: str = "AdminNetworkPolicy", name: str = "policy") -> str:
    """An AdminNetworkPolicy, or the one BaselineAdminNetworkPolicy."""
    head = f"apiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n---\n"


TO_A = "podSelector: {matchLabels: {pod: a}}"

# --- who ------------------------------------------------------------------------------------------------------

case(
    "no-policy",
    "",
    "x/a y/b z/d w1 w2 out -> y/a y/d 80/tcp 81/udp 80/sctp ping",
)
case(
    "pod-selector-alone",
    network_policy("{%s, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}" % TO_A),
    "y/b -> y/a 80/tcp 81/udp 80/sctp",
    "y/c y/d x/b z/b out -> y/a 80/tcp",
)
case(
    "namespace-selector-alone",
    network_policy("{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}" % TO_A),
    "x/a x/b x/f -> y/a 80/tcp 80/udp",
    "y/b z/a out -> y/a 80/tcp",
)
case(
    "selectors-together-and",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels:"
        " {pod: b}}}]}]}" % TO_A
    ),
    "x/b -> y/a 80/tcp",
    "x/a x/d y/b z/b -> y/a 80/tcp",
)
case(
    "selectors-apart-or",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels:"
        " {pod: b}}}]}]}" % TO_A
    ),
    "x/a x/b x/d y/b -> y/a 80/tcp",
    "y/c z/b -> y/a 80/tcp",
)
case(
    "empty-pod-selector",
    network_policy("{%s, ingress: [{from: [{podSelector: {}}]}]}" % TO_A),
    "y/b y/c y/d y/f -> y/a 80/tcp",
    "x/a x/b z/d out -> y/a 80/tcp",
)
case(
    "empty-namespace-selector",
    network_policy("{%s, ingress: [{from: [{namespaceSelector: {}}]}]}" % TO_A),
    "x/a x/f y/b z/c z/d -> y/a 80/tcp",
    "out w2 -> y/a 80/tcp",
)
case(
    "null-pod-selector-is-absent",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: null}]}]}" % TO_A
    ),
    "x/a x/c x/e -> y/a 80/tcp",
    "y/b z/a -> y/a 80/tcp",
)
case(
    "subject-empty-selects-namespace",
    network_policy("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"),
    "y/b -> y/a y/d y/f 80/tcp\ny/b x/a -> x/c z/d 80/tcp",
    "y/c x/b -> y/a y/d y/f 80/tcp",
)
case(
    "expression-in",
    network_policy(
        "{%s, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, e]}]}}]}]}"
        % TO_A
    ),
    "y/b y/e -> y/a 80/tcp",
    "y/c y/d x/b -> y/a 80/tcp",
)
case(
    "expression-not-in-matches-absent-key",
    network_policy(
        "{%s, ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}}]}]}"
        % TO_A
    ),
    "y/b y/c y/e y/f -> y/a 80/tcp",
    "y/d x/b -> y/a 80/tcp",
)
case(
    "expression-exists-and-empty-value",
    network_policy(
        "{%s, ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}]}]}" % TO_A
    ),
    "y/b y/d y/e -> y/a 80/tcp",
    "y/c y/f -> y/a 80/tcp",
)
case(
    "expression-does-not-exist",
    network_policy(
        "{%s, ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}]}]}"
        % TO_A
    ),
    "y/c y/f -> y/a 80/tcp",
    "y/b y/d y/e -> y/a 80/tcp",
)
case(
    "empty-value-is-a-value",
    network_policy('{%s, ingress: [{from: [{podSelector: {matchLabels: {tier: ""}}}]}]}' % TO_A),
    "y/b y/e -> y/a 80/tcp",
    "y/c y/d y/f -> y/a 80/tcp",
)
case(
    "namespace-name-label",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}"
        % TO_A
    ),
    "y/b y/d -> y/a 80/tcp",
    "x/a z/a z/d -> y/a 80/tcp",
)
case(
    "namespace-that-nothing-declares",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}"
        % TO_A
    )
    + network_policy("{podSelector: {matchLabels: {pod: c}}}", namespace="z"),
    "z/a z/d -> y/a 80/tcp",
    "x/a y/b -> y/a 80/tcp\nx/a z/a -> z/c 80/tcp",
)
case(
    "namespace-expression-matches-absent-key",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]"
        "}}]}]}" % TO_A
    ),
    "x/a z/a z/f -> y/a 80/tcp",
    "y/b y/d -> y/a 80/tcp",
)

# --- directions and isolation ---------------------------------------------------------------------------------

case(
    "types-default-to-ingress",
    network_policy("{%s, egress: []}" % TO_A),
    "y/a -> x/a y/b out 80/tcp",
    "x/a -> y/a 80/tcp",
)
case(
    "types-default-with-egress-rules",
    network_policy("{%s, egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}" % TO_A),
    "y/a -> y/b 80/tcp",
    "y/a -> y/c x/b out 80/tcp\nx/a y/b -> y/a 80/tcp",
)
case(
    "types-silence-the-other-direction",
    network_policy("{%s, policyTypes: [Egress], ingress: [], egress: [{}]}" % TO_A)
    + network_policy(
        "{podSelector: {matchLabels: {pod: d}}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}",
        name="second",
    ),
    "x/a -> y/a 80/tcp\ny/a y/d -> x/a out 80/tcp",
    "x/a y/b -> y/d 80/tcp",
)
case(
    "deny-all-by-empty-list",
    network_policy("{%s, ingress: []}" % TO_A),
    "y/a -> x/a 80/tcp",
    "x/a y/b y/d out w2 -> y/a 80/tcp 81/udp 80/sctp",
)
case(
    "deny-all-by-null",
    network_policy("{%s, ingress: null}" % TO_A),
    "y/a -> x/a 80/tcp",
    "x/a y/b out -> y/a 80/tcp",
)
case(
    "deny-all-by-absence",
    network_policy("{%s, policyTypes: [Ingress, Egress]}" % TO_A),
    "x/a -> y/b 80/tcp",
    "x/a y/b out -> y/a 80/tcp\ny/a -> x/a y/b out 80/tcp",
)
case(
    "allow-all-by-empty-rule",
    network_policy("{%s, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}" % TO_A),
    "x/a y/b out w2 -> y/a 80/tcp 81/udp 80/sctp ping\ny/a -> x/a y/b out 80/tcp",
)
case(
    "everyone-by-null-empty-and-absence",
    network_policy("{%s, ingress: [{from: null, ports: [{port: 80}]}]}" % TO_A)
    + network_policy("{%s, ingress: [{from: [], ports: [{port: 81}]}]}" % TO_A, name="second")
    + network_policy("{%s, ingress: [{ports: [{port: 81, protocol: UDP}]}]}" % TO_A, name="third"),
    "x/a y/b out w2 -> y/a 80/tcp 81/tcp 81/udp",
    "x/a out -> y/a 80/udp 80/sctp",
)
case(
    "policies-add-up",
    network_policy("{%s, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}" % TO_A)
    + network_policy("{%s, ingress: []}" % TO_A, name="second")
    + network_policy("{podSelector: {}, ingress: [{ports: [{port: 81}]}]}", name="third"),
    "y/b -> y/a 80/tcp\nx/a -> y/a y/d 81/tcp",
    "x/a y/c -> y/a y/d 80/tcp",
)
case(
    "both-sides-must-allow",
    network_policy(
        "{%s, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 81}]}]}" % TO_A, namespace="x"
    )
    + network_policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}"),
    "x/a -> y/a y/d 80/tcp\nx/a -> z/a 81/tcp\nx/b -> y/a 80/tcp",
    "x/a -> y/a y/d 81/tcp\nx/a -> z/a 80/udp\nx/b -> y/a 81/tcp",
)
case(
    "isolation-covers-every-protocol",
    network_policy("{%s, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}]}" % TO_A),
    "x/a out -> y/a 80/tcp",
    "x/a out -> y/a 80/udp 80/sctp ping\ny/a -> x/a ping 80/sctp",
)
case(
    "icmp-is-a-protocol-that-no-port-names",
    network_policy("{%s, ingress: [{from: [{podSelector: {}}]}]}" % TO_A),
    "y/b y/d -> y/a ping",
    "x/a -> y/a ping",
)

# --- ports ----------------------------------------------------------------------------------------------------

case(
    "port-without-protocol-is-tcp",
    network_policy("{%s, ingress: [{ports: [{port: 80}]}]}" % TO_A),
    "x/a y/d -> y/a 80/tcp",
    "x/a y/d -> y/a 81/tcp 80/udp 80/sctp",
)
case(
    "empty-port-is-every-tcp-port",
    network_policy("{%s, ingress: [{ports: [{}]}]}" % TO_A),
    "x/a -> y/a 80/tcp 81/tcp",
    "x/a -> y/a 80/udp 80/sctp ping",
)
case(
    "protocol-alone-is-every-port-of-it",
    network_policy("{%s, ingress: [{ports: [{protocol: UDP}]}]}" % TO_A),
    "x/a -> y/a 80/udp 81/udp",
    "x/a -> y/a 80/tcp 80/sctp",
)
case(
    "sctp-is-its-own",
    network_policy("{%s, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}" % TO_A),
    "x/a z/d -> y/a 80/sctp",
    "x/a z/d -> y/a 80/tcp 80/udp",
)
case(
    "end-port",
    network_policy(
        "{%s, ingress: [{ports: [{port: 81, endPort: 90}, {protocol: UDP, port: 1, endPort: 80}]}]}" % TO_A
    ),
    "x/a -> y/a 81/tcp 80/udp",
    "x/a -> y/a 80/tcp 81/udp",
    refused="x/a -> y/a 90/tcp 1/udp",
)
case(
    "named-port-is-the-destination-pods",
    network_policy("{podSelector: {}, ingress: [{ports: [{port: web}]}]}"),
    "x/a -> y/a y/b 80/tcp\nx/a -> y/d y/e 81/tcp",
    "x/a -> y/a y/b 81/tcp\nx/a -> y/d y/e 80/tcp\nx/a -> y/a 80/udp",
)
case(
    "named-port-on-egress",
    network_policy(
        "{%s, policyTypes: [Egress], egress: [{ports: [{port: web}, {port: dns, protocol: UDP}]}]}" % TO_A
    ),
    "y/a -> x/a z/b 80/tcp 80/udp\ny/a -> x/d z/f 81/tcp 81/udp",
    "y/a -> x/a 81/tcp 81/udp\ny/a -> x/d 80/tcp 80/udp\ny/a -> out 80/tcp",
)
case(
    "named-port-on-egress-to-selected-pods",
    network_policy(
        "{%s, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: x}}}],"
        " ports: [{port: web}]}]}" % TO_A
    ),
    "y/a -> x/a 80/tcp\ny/a -> x/d 81/tcp",
    "y/a -> x/a 81/tcp\ny/a -> z/a 80/tcp\ny/a -> y/d 81/tcp",
)
case(
    "named-port-on-egress-to-a-block",
    network_policy(
        "{%s, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24, except: [10.244.2.30/31]}},"
        " {ipBlock: {cidr: 'fd44:2::/64'}}], ports: [{port: web}]}]}" % TO_A
    ),
    "y/a -> x/d y/e z/f 81/tcp\ny/a -> z/f 81/tcp v6",
    "y/a -> x/d 80/tcp\ny/a -> x/a 80/tcp\ny/a -> out 80/tcp",
)
case(
    "named-port-from-a-block",
    network_policy(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: web}]}]}"
    ),
    "out -> y/a 80/tcp v4\nout -> y/d 81/tcp v4",
    "out -> y/a 81/tcp v4\nout -> y/d 80/tcp v4\nout2 -> y/a 80/tcp v4\nx/a -> y/a 80/tcp",
)
case(
    "named-port-of-another-protocol",
    network_policy(
        "{podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}, {port: sig, protocol: SCTP}]}]}"
    ),
    "x/a -> y/a y/d 80/sctp",
    "x/a -> y/a 80/tcp 80/udp\nx/a -> y/d 81/tcp 81/udp",
)
case(
    "named-port-that-nobody-has",
    network_policy("{%s, ingress: [{ports: [{port: admin}]}]}" % TO_A)
    + network_policy(
        "{podSelector: {matchLabels: {pod: b}}, egress: [{ports: [{port: admin}]}]}", name="second"
    ),
    "y/c -> x/a 80/tcp",
    "x/a -> y/a 80/tcp 81/tcp\ny/b -> x/a out 80/tcp",
)

# --- blocks ---------------------------------------------------------------------------------------------------

case(
    "block-with-except",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.8/29, 10.244.2.0/24]}}]}]}"
        % TO_A
    ),
    "y/b z/a -> y/a 80/tcp v4",
    "x/a x/b y/d z/d out -> y/a 80/tcp v4",
)
case(
    "excepts-nested-overlapping-and-twice",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.1.0/24, except: [10.244.1.8/29, 10.244.1.8/30, 10.244.1.8/29,"
        " 10.244.1.20/31]}}]}]}" % TO_A
    ),
    "y/c z/a z/c -> y/a 80/tcp v4",
    "x/a x/b y/d -> y/a 80/tcp v4",
)
case(
    "block-emptied-by-its-excepts",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.1.0/24, except: [10.244.1.0/25, 10.244.1.128/25]}}]}]}"
        % TO_A
    ),
    "y/b -> y/c 80/tcp",
    "x/a y/b out -> y/a 80/tcp",
)
case(
    "block-with-host-bits",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.1.77/24, except: [10.244.1.33/29]}}]}]}" % TO_A
    ),
    "x/a y/b z/a -> y/a 80/tcp v4",
    "y/d out -> y/a 80/tcp v4",
    # 10.244.1.33/29 is .32 to .39: the pods z/c (.32) is excepted, too
)
case(
    "except-is-no-deny",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.0/24]}},"
        " {podSelector: {matchLabels: {pod: b}}}]}]}" % TO_A
    )
    + network_policy("{%s, ingress: [{from: [{ipBlock: {cidr: 10.244.1.10/32}}]}]}" % TO_A, name="second"),
    "y/b x/a x/d y/e -> y/a 80/tcp v4",
    "x/b y/c -> y/a 80/tcp v4",
)
case(
    "block-matches-pods-nodes-and-outside",
    network_policy(
        "{%s, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/24}}, {ipBlock: {cidr: 203.0.113.9/32}},"
        " {ipBlock: {cidr: 10.244.2.10/31}}]}]}" % TO_A
    ),
    "w2 x/host out -> y/a 80/tcp v4",
    "x/a x/d out2 -> y/a 80/tcp v4",
)
case(
    "selectors-match-pods-only",
    network_policy("{%s, ingress: [{from: [{namespaceSelector: {}}, {podSelector: {}}]}]}" % TO_A)
    + network_policy(
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}",
        name="second",
    ),
    "x/a z/d -> y/a 80/tcp\ny/b -> x/a z/d 80/tcp",
    "w2 x/host out -> y/a 80/tcp\ny/b -> out 80/tcp\ny/b -> w2 10250/tcp 7070/tcp",
)
case(
    "block-of-one-family-leaves-the-other-shut",
    network_policy("{%s, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}" % TO_A)
    + network_policy(
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]}",
        name="second",
    ),
    "x/a out w2 -> y/a 80/tcp v4\ny/b -> x/a out 80/tcp v6",
    "x/a out w2 -> y/a 80/tcp v6\ny/b -> x/a out 80/tcp v4",
)

# --- services -------------------------------------------------------------------------------------------------

case(
    "service-is-judged-after-translation",
    network_policy(
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels:"
        " {pod: a}}}], ports: [{port: 80}]}]}"
    )
    + network_policy(
        "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}},"
        " {ipBlock: {cidr: 'fd96::/16'}}]}, {ports: [{port: 8000}]}]}",
        name="second",
    ),
    "y/b -> svc 8000/tcp\nx/a -> svc 8000/tcp",
    "y/c -> svc 8000/tcp",
)
case(
    "service-needs-the-endpoints-ingress",
    network_policy("{%s, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}" % TO_A),
    "y/b y/d -> svc 8000/tcp",
    "x/a z/d -> svc 8000/tcp\ny/b -> y/a 81/tcp",
)
case(
    "outside-client-of-a-node-port",
    network_policy("{%s, ingress: [{from: [{ipBlock: {cidr: 203.0.113.9/32}}]}]}" % TO_A),
    "out -> w1:np 30080/tcp v4",
    # through w2 the endpoint's node sees w2's address, which no rule allows
    "out -> w2:np 30080/tcp v4\nout2 -> w1:np 30080/tcp v4\nout -> w1:np 30080/tcp v6",
)
case(
    "outside-client-of-a-local-node-port",
    network_policy("{%s, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}" % TO_A),
    "out -> w1:np 30080/tcp 30081/tcp v4",
    "out2 -> w1:np 30080/tcp 30081/tcp v4\nout -> w1:np 30081/tcp v6\nx/a -> w1:np 30081/tcp v4",
)
case(
    "pods-and-nodes-through-a-node-port",
    network_policy("{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}" % TO_A),
    "x/a x/d -> svc 8000/tcp\nx/a x/d -> w1:np 30080/tcp 30081/tcp\nw1 -> w1:np 30080/tcp 30081/tcp",
    "x/a x/d w2 -> w2:np 30080/tcp\nw2 z/a z/d -> w1:np 30080/tcp 30081/tcp",
)
case(
    "itself-through-its-service",
    network_policy("{%s, policyTypes: [Ingress, Egress]}" % TO_A),
    "y/a -> svc 8000/tcp\ny/a -> y/a 80/tcp",
    "y/b -> svc 8000/tcp",
)

# --- what is not judged ---------------------------------------------------------------------------------------

case(
    "node-and-its-own-pods",
    network_policy("{podSelector: {}, policyTypes: [Ingress, Egress]}"),
    "w1 -> y/a 80/tcp ping\nw2 x/host -> y/d 80/tcp 80/udp\ny/a -> w1 10250/tcp\ny/d -> w2 10250/tcp 7070/tcp",
    "w2 x/host -> y/a 80/tcp\nw1 -> y/d 80/tcp\ny/a -> w2 10250/tcp\ny/d -> w1 10250/tcp",
)
case(
    "replies-and-their-errors",
    network_policy("{%s, policyTypes: [Ingress, Egress], egress: [{}]}" % TO_A),
    "y/a -> x/a y/d out 80/tcp\ny/a -> x/a x/d 80/udp 80/sctp ping",
    "x/a -> y/a 80/tcp",
    refused="y/a -> x/a x/d 9/udp 9/tcp",
)
case(
    "host-network-pods-are-the-node",
    network_policy("{podSelector: {}, policyTypes: [Ingress, Egress]}", namespace="x")
    + network_policy("{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}" % TO_A),
    "x/host -> z/a 80/tcp\nz/a -> w2 7070/tcp",
    "x/a -> y/a 80/tcp\nx/host -> y/a 80/tcp\nx/host -> x/a 80/tcp",
)
case(
    "finished-pods-are-nobody",
    network_policy("{%s, ingress: [{from: [{podSelector: {matchLabels: {pod: done}}}]}]}" % TO_A)
    + network_policy(
        "{podSelector: {matchLabels: {pod: done}}, policyTypes: [Ingress, Egress]}", name="second"
    ),
    "x/b -> x/a 80/tcp\nx/a -> x/b 80/tcp",
    "x/b y/b -> y/a 80/tcp",
)
case(
    "pending-and-terminating-pods-count",
    network_policy(
        "{%s, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: pod, operator: In,"
        " values: [e, f]}]}}]}]}" % TO_A
    )
    + network_policy("{podSelector: {matchLabels: {pod: e}}}", namespace="z")
    + network_policy("{podSelector: {matchLabels: {pod: f}}}", namespace="z", name="second"),
    "z/e z/f -> y/a 80/tcp",
    "x/a -> z/e z/f 80/tcp\nz/d -> y/a 80/tcp",
)

# --- names ----------------------------------------------------------------------------------------------------

LONG = "a-policy.with-a.very-long.and-dotted.name-" * 5
case(
    "names-that-differ-in-the-last-character",
    network_policy("{%s, ingress: [{ports: [{port: 80}]}]}" % TO_A, name=LONG + "1")
    + network_policy(
        "{podSelector: {matchLabels: {pod: d}}, ingress: [{ports: [{port: 81}]}]}", name=LONG + "2"
    )
    + network_policy("{%s, ingress: [{ports: [{port: 81}]}]}" % TO_A, name=LONG + "1", namespace="x"),
    "z/a -> y/a 80/tcp\nz/a -> y/d 81/tcp\nz/a -> x/a 81/tcp",
    "z/a -> y/a 81/tcp\nz/a -> y/d 80/tcp\nz/a -> x/a 80/tcp",
)

# --- tiers ----------------------------------------------------------------------------------------------------

IN_Y = "subject: {namespaces: {matchLabels: {ns: y}}}"
FROM_X = "from: [{namespaces: {matchLabels: {ns: x}}}]"
case(
    "admin-comes-before-network-policy",
    cluster_policy(
        "{tier: Admin, priority: 5, %s, ingress: [{action: Accept, %s, protocols: [{tcp: {destinationPort: {number:"
        " 80}}}]}, {action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: d}}}}]}]}"
        % (IN_Y, FROM_X)
    )
    + network_policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
    "x/a x/d -> y/a 80/tcp\ny/b -> y/a 80/tcp",
    "x/a x/d -> y/a 81/tcp\ny/d z/a -> y/a 80/tcp",
)
case(
    "admin-by-priority-lowest-first",
    cluster_policy(
        "{tier: Admin, priority: 20, %s, ingress: [{action: Deny, %s}]}" % (IN_Y, FROM_X), name="a"
    )
    + cluster_policy(
        "{tier: Admin, priority: 10, %s, ingress: [{action: Accept, %s, protocols: [{tcp: {destinationPort: {range:"
        " {start: 80, end: 99}}}}]}]}" % (IN_Y, FROM_X),
        name="b",
    ),
    "x/a -> y/a y/d 80/tcp 81/tcp\nz/a -> y/a 80/udp",
    "x/a -> y/a y/d 80/udp 80/sctp ping",
)
case(
    "admin-rules-in-their-order",
    cluster_policy(
        "{tier: Admin, priority: 1, %s, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {ns:"
        " x}}, podSelector: {matchLabels: {pod: b}}}}]}, {action: Accept, %s}, {action: Deny, from: [{namespaces:"
        " {}}]}]}" % (IN_Y, FROM_X)
    ),
    "x/a x/f -> y/a 80/tcp\nout w2 -> y/a 80/tcp",
    "x/b y/b z/a -> y/a 80/tcp",
)
case(
    "admin-same-priority-by-name",
    cluster_policy("{tier: Admin, priority: 7, %s, ingress: [{action: Deny, %s}]}" % (IN_Y, FROM_X), name="b")
    + cluster_policy(
        "{tier: Admin, priority: 7, %s, ingress: [{action: Accept, %s}]}" % (IN_Y, FROM_X), name="a"
    ),
    "x/a -> y/a 80/tcp",
)
case(
    "pass-hands-on-to-network-policy-and-baseline",
    cluster_policy(
        "{tier: Admin, priority: 1, %s, ingress: [{action: Pass, %s}, {action: Deny, from: [{namespaces: {}}]}]}"
        % (IN_Y, FROM_X),
        name="first",
    )
    + cluster_policy(
        "{tier: Admin, priority: 2, %s, ingress: [{action: Deny, %s}]}" % (IN_Y, FROM_X), name="later"
    )
    + cluster_policy(
        "{tier: Baseline, priority: 1, %s, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector:"
        " {matchLabels: {pod: b}}}}]}]}" % IN_Y,
        name="base",
    )
    + network_policy("{%s, ingress: [{ports: [{port: 80}]}]}" % TO_A),
    # y/a is NetworkPolicy's, with the last word; y/d goes on to the baseline
    "x/a x/b -> y/a 80/tcp\nx/a -> y/d 80/tcp 81/udp",
    "x/a -> y/a 81/tcp\nx/b -> y/d 80/tcp\nz/a y/c -> y/a y/d 80/tcp",
)
case(
    "baseline-only-where-no-network-policy-selects",
    cluster_policy(
        "{tier: Baseline, priority: 0, %s, ingress: [{action: Deny, from: [{namespaces: {}}]}]}" % IN_Y
    )
    + network_policy("{%s, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}" % TO_A),
    "x/a -> y/a 80/tcp\nout w2 -> y/d 80/tcp",
    "x/a y/a -> y/d 80/tcp\nz/a -> y/a 80/tcp",
)
case(
    "egress-tiers-with-networks-and-nodes",
    cluster_policy(
        "{tier: Admin, priority: 1, %s, egress: [{action: Accept, to: [{networks: [203.0.113.9/32]}]}, {action: Deny,"
        " to: [{networks: [203.0.113.0/24, 2001:db8::/64]}]}, {action: Deny, to: [{nodes: {matchLabels: {role:"
        " core}}}], protocols: [{tcp: {destinationPort: {number: 10250}}}]}]}" % IN_Y
    ),
    "y/a -> out 80/tcp v4\ny/a -> w2 7070/tcp\ny/d -> w1 10250/tcp\ny/a -> x/a 80/tcp",
    "y/a -> out 80/tcp v6\ny/a -> w2 10250/tcp",
)
case(
    "tier-networks-match-pods-too",
    cluster_policy(
        "{tier: Admin, priority: 1, %s, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}" % IN_Y
    ),
    "y/a -> x/a out 80/tcp v6",
    "y/a -> x/a z/d out 80/tcp v4\ny/a -> x/a ping v4",
)
case(
    "tier-named-ports-take-the-pods-protocol",
    cluster_policy(
        "{tier: Admin, priority: 1, %s, ingress: [{action: Deny, %s, protocols: [{destinationNamedPort: dns},"
        " {destinationNamedPort: web}]}], egress: [{action: Deny, to: [{namespaces: {}}], protocols:"
        " [{destinationNamedPort: sig}]}]}" % (IN_Y, FROM_X)
    ),
    "x/a -> y/a 81/tcp 81/udp 80/sctp\nx/a -> y/d 80/tcp 80/udp\nz/a -> y/a 80/tcp",
    "x/a -> y/a 80/tcp 80/udp\nx/a -> y/d 81/tcp 81/udp\ny/a -> x/a z/d 80/sctp",
)
case(
    "tier-subjects-by-pods-and-no-host-network",
    cluster_policy(
        "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key:"
        " pod, operator: In, values: [b, host]}]}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress:"
        " [{action: Deny, to: [{namespaces: {}}]}]}"
    ),
    "x/a -> y/a 80/tcp\nx/host -> y/a 80/tcp\nz/a -> w2 7070/tcp\nx/host -> y/b 80/tcp",
    "x/a z/d -> x/b y/b z/b 80/tcp\ny/b -> x/a 80/tcp",
)
case(
    "older-admin-network-policy",
    admin_policy(
        "{priority: 50, %s, ingress: [{action: Allow, %s, ports: [{portNumber: {protocol: TCP, port: 80}}, {portRange:"
        " {protocol: UDP, start: 80, end: 81}}]}, {action: Pass, from: [{namespaces: {matchLabels: {ns: y}}}]},"
        " {action: Deny, from: [{namespaces: {}}], ports: [{namedPort: web}]}]}" % (IN_Y, FROM_X)
    )
    + network_policy("{%s, ingress: []}" % TO_A),
    "x/a -> y/a 80/tcp 81/udp\nz/a y/b -> y/d 80/tcp\ny/a -> y/d 81/tcp",
    "x/a z/a y/b -> y/a 81/tcp\nz/a -> y/d 81/tcp\nz/a -> y/a 80/udp",
)
case(
    "older-baseline-admin-network-policy",
    admin_policy(
        "{%s, ingress: [{action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: b}}}}]},"
        " {action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: [198.51.100.0/24]}]}]}"
        % IN_Y,
        kind="BaselineAdminNetworkPolicy",
        name="default",
    )
    + cluster_policy(
        "{tier: Baseline, priority: 1000, %s, ingress: [{action: Accept, %s, protocols: [{tcp: {destinationPort:"
        " {number: 81}}}]}]}" % (IN_Y, FROM_X)
    ),
    "x/b y/b -> y/a 80/tcp\nx/a -> y/a 81/tcp\nout -> y/a 80/tcp\ny/a -> x/a 80/tcp",
    "x/a z/a -> y/a 80/tcp\nz/a -> y/a 81/tcp",
)
