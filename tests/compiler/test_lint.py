"""`k8snetc lint`: each rule finds what it is for at its line, and nothing in manifests that are well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k8snetc.compiler.cli_lint import lint_command
from k8snetc.compiler.lint import RULES

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        ports: [{name: http, containerPort: 8080}]
---
"""
PROXY = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: proxy, namespace: shop}
spec:
  selector: {matchLabels: {app: proxy}}
  template:
    metadata: {labels: {app: proxy}}
    spec: {hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]}
---
"""
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: w1, labels: {role: edge}}\n---\n"


def run(tmp_path: Path, text: str, *words: str) -> Result:
    (tmp_path / "m.yaml").write_text(text)
    return CliRunner().invoke(lint_command, [str(tmp_path / "m.yaml"), *words], standalone_mode=False)


def findings(tmp_path: Path, text: str, *words: str) -> list[tuple[str, str]]:
    """(rule, the text of the line that it points at)."""
    result = run(tmp_path, text, "--format", "json", *words)
    assert not result.exception, result.output
    lines = text.splitlines()
    return [(f["rule"], lines[f["line"] - 1].strip()) for f in json.loads(result.output)["findings"]]


def policy(spec: str, namespace: str = "shop") -> str:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    return f"{head}metadata:\n  name: p\n  namespace: {namespace}\nspec:\n{spec}---\n"


def cluster_policy(spec: str, name: str = "c") -> str:
    head = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n"
    return f"{head}metadata: {{name: {name}}}\nspec:\n{spec}---\n"


def service(spec: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop}}\nspec:\n{spec}---\n"


CASES = {
    "selects-nothing-subject": (
        WEB + policy("  podSelector: {matchLabels: {app: wbe}}\n"),
        [("selects-nothing", "podSelector: {matchLabels: {app: wbe}}")],
    ),
    "selects-nothing-peers": (
        WEB
        + policy(
            "  podSelector: {}\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: web}}\n"
            "    - podSelector: {matchLabels: {app: db}}\n    - namespaceSelector: {matchLabels: {team: red}}\n"
        ),
        [
            ("selects-nothing", "- podSelector: {matchLabels: {app: db}}"),
            ("selects-nothing", "- namespaceSelector: {matchLabels: {team: red}}"),
        ],
    ),
    "selects-nothing-host-network-peer": (
        WEB
        + PROXY.replace(", hostPort: 80", "")
        + policy("  podSelector: {}\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: proxy}}\n"),
        [("selects-nothing", "- podSelector: {matchLabels: {app: proxy}}")],
    ),
    "selects-nothing-nodes": (
        NODE
        + cluster_policy(
            "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  egress:\n  - action: Accept\n    to:\n"
            "    - nodes: {matchLabels: {role: edge}}\n    - nodes: {matchLabels: {role: core}}\n"
        ),
        [("selects-nothing", "- nodes: {matchLabels: {role: core}}")],
    ),
    "selects-nothing-service": (
        WEB + service("  selector: {app: db}\n  ports: [{port: 80}]\n"),
        [("selects-nothing", "selector: {app: db}")],
    ),
    "empty-namespace": (
        WEB + policy("  podSelector: {}\n", namespace="shpo"),
        [("empty-namespace", "metadata:")],
    ),
    "host-network-only": (
        WEB + PROXY.replace(", hostPort: 80", "") + policy("  podSelector: {matchLabels: {app: proxy}}\n"),
        [("host-network-only", "podSelector: {matchLabels: {app: proxy}}")],
    ),
    "unknown-port-name": (
        WEB
        + policy(
            "  podSelector: {}\n  ingress:\n  - ports:\n    - port: http\n    - port: htpt\n"
            "    - {port: http, protocol: UDP}\n"
            "  egress:\n  - to:\n    - podSelector: {}\n    ports:\n    - port: metrics\n"
        ),
        [
            ("unknown-port-name", "- port: metrics"),
            ("unknown-port-name", "- port: htpt"),
            ("unknown-port-name", "- {port: http, protocol: UDP}"),
        ],
    ),
    "unknown-port-name-service": (
        WEB
        + service(
            "  selector: {app: web}\n  ports:\n  - {name: a, port: 80, targetPort: http}\n"
            "  - {name: b, port: 81, targetPort: admin}\n"
        ),
        [("unknown-port-name", "- {name: b, port: 81, targetPort: admin}")],
    ),
    "unreachable-rule-covered": (
        WEB
        + policy(
            "  podSelector: {}\n  ingress:\n  - ports: [{port: 80, endPort: 90}]\n"
            "  - {from: [{podSelector: {}}], ports: [{port: 85}]}\n"
            "  - from: [{ipBlock: {cidr: 10.1.0.0/16}}]\n  - from: [{ipBlock: {cidr: 10.0.0.0/8}}]\n"
            "  - ports: [{port: 85, protocol: UDP}]\n"
        ),
        [
            ("unreachable-rule", "- {from: [{podSelector: {}}], ports: [{port: 85}]}"),
            ("unreachable-rule", "- from: [{ipBlock: {cidr: 10.1.0.0/16}}]"),
        ],
    ),
    "unreachable-rule-twice-the-same": (
        WEB + policy("  podSelector: {}\n  egress:\n  - ports: [{port: 80}]\n  - ports: [{port: 80}] # again\n"),
        [("unreachable-rule", "- ports: [{port: 80}] # again")],
    ),
    "unreachable-rule-silenced": (
        WEB + policy("  podSelector: {}\n  policyTypes: [Egress]\n  ingress:\n  - {}\n"),
        [("unreachable-rule", "ingress:")],
    ),
    "unreachable-rule-in-tier": (
        WEB
        + cluster_policy(
            "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n"
            "  - {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}\n"
            "  - {action: Deny, from: [{namespaces: {}}]}\n"
            "  - {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}\n"
        ),
        [
            (
                "unreachable-rule",
                "- {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}",
            )
        ],
    ),
    "except-outside-and-empty-block": (
        WEB
        + policy(
            "  podSelector: {}\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/24\n        except:\n"
            "        - 10.0.0.0/25\n        - 10.9.0.0/24\n  egress:\n  - to:\n"
            "    - ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.0/25, 10.0.0.128/25]}\n"
        ),
        [
            ("empty-block", "- ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.0/25, 10.0.0.128/25]}"),
            ("except-outside", "- 10.9.0.0/24"),
        ],
    ),
    "equal-priority": (
        WEB
        + cluster_policy(
            "  tier: Admin\n  priority: 7\n  subject: {namespaces: {}}\n"
            "  ingress: [{action: Deny, from: [{namespaces: {}}]}]\n",
            "a",
        )
        + cluster_policy(
            "  tier: Admin\n  priority: 7 # too\n  subject: {namespaces: {}}\n"
            "  ingress: [{action: Accept, from: [{namespaces: {}}]}]\n",
            "b",
        )
        + cluster_policy(
            "  tier: Baseline\n  priority: 7\n  subject: {namespaces: {}}\n"
            "  ingress: [{action: Deny, from: [{namespaces: {}}]}]\n",
            "c",
        ),
        [("equal-priority", "priority: 7 # too")],
    ),
    "own-node": (
        NODE
        + cluster_policy(
            "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  egress:\n  - action: Deny\n"
            "    to: [{nodes: {}}]\n"
        ),
        [("own-node", "- action: Deny")],
    ),
    "host-port": (WEB.replace("{name: http,", "{hostPort: 80, name: http,"), [
        ("host-port", "ports: [{hostPort: 80, name: http, containerPort: 8080}]")
    ]),
    "ignored-field": (
        WEB
        + service("  selector: {app: web}\n  clusterIP: None\n  externalIPs: [192.0.2.1]\n  ports: [{port: 80}]\n"),
        [("ignored-field", "externalIPs: [192.0.2.1]")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_finds(tmp_path: Path, name: str) -> None:
    text, expected = CASES[name]
    assert findings(tmp_path, text) == expected


def test_every_rule_has_a_case() -> None:
    found = {rule for _, expected in CASES.values() for rule, _ in expected}
    assert found | {"localhost-node-port", "doubtful"} == set(RULES)


def test_what_every_command_warns_of(tmp_path: Path) -> None:
    text = WEB + service("  selector: {app: web}\n  ports:\n  - port: 80\n    targetport: 8080\n")
    assert findings(tmp_path, text) == [("doubtful", "targetport: 8080")]
    assert findings(tmp_path, text, "--ignore", "doubtful") == []
    result = run(tmp_path, text, "--strict")
    assert result.return_value == 2
    assert "did you mean targetPort? [doubtful]" in result.stdout


def test_what_a_back_end_can_not_do(tmp_path: Path) -> None:
    text = WEB + service(
        "  type: NodePort\n  selector: {app: web}\n  ports:\n  - {port: 80, nodePort: 30080}\n"
    )
    flag = "--iptables-localhost-nodeports"
    assert findings(tmp_path, text, "-b", "ipvs", flag) == [
        ("localhost-node-port", "- {port: 80, nodePort: 30080}")
    ]
    assert findings(tmp_path, text, "-b", "iptables", flag) == []
    assert findings(tmp_path, text, "-b", "ipvs") == []


def test_well_made_manifests_are_well() -> None:
    folder = Path(__file__).parents[1] / "corpus" / "online-boutique"
    result = CliRunner().invoke(lint_command, [str(folder), "--strict"], standalone_mode=False)
    assert (result.return_value, result.stdout) == (0, "")


def test_without_pods_nothing_is_said_about_pods(tmp_path: Path) -> None:
    text = policy("  podSelector: {matchLabels: {app: web}}\n") + service(
        "  selector: {a: b}\n  ports: [{port: 80}]\n"
    )
    result = run(tmp_path, text)
    assert result.return_value == 0
    assert result.stdout == ""
    assert "no pods and no workloads" in result.stderr


def test_text_strict_and_exit_codes(tmp_path: Path) -> None:
    text = CASES["selects-nothing-subject"][0]
    result = run(tmp_path, text)
    assert result.return_value == 0
    assert result.stdout == (
        f"{tmp_path}/m.yaml:20: warning: NetworkPolicy shop/p: {{app=wbe}} selects no pod in namespace 'shop': "
        "the policy does nothing; compare the selector with the labels in the manifests [selects-nothing]\n"
    )
    assert result.stderr == "k8snetc: 1 warning\n"
    strict = run(tmp_path, text, "--strict")
    assert strict.return_value == 2
    assert ": warning:" not in strict.stdout
    ignored = run(tmp_path, text, "--strict", "--ignore", "selects-nothing", "-q")
    assert (ignored.return_value, ignored.output) == (0, "")


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    assert "no such rule: select" in str(run(tmp_path, WEB, "--ignore", "select").exception)


def test_errors_are_told_in_json_too(tmp_path: Path) -> None:
    result = run(tmp_path, policy("  podSelecter: {}\n"), "--format", "json")
    assert result.return_value == 2
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["severity"] == "error"
    assert finding["line"] == 7
