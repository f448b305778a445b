"""What validation makes of manifests: defaults, and errors with their place."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.compiler.diagnostics import InputError
from k8snetc.compiler.manifests import Manifests, read


def manifests(tmp_path: Path, text: str, name: str = "a.yaml") -> Manifests:
    """The manifests of one file."""
    path = tmp_path / name
    path.write_text(text)
    return read([str(path)])


def test_service_defaults(tmp_path: Path) -> None:
    m = manifests(
        tmp_path,
        """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.7
  ports: [{port: 80}]
""",
    )
    (service,) = m.services
    assert service.metadata.namespace == "default"
    assert service.origin.line == 2
    assert service.spec.type == "ClusterIP"
    assert service.spec.cluster_ips == (ip_address("10.96.0.7"),)
    assert service.spec.ip_families == ("IPv4",)
    (port,) = service.spec.ports
    assert (port.protocol, port.target_port, port.node_port) == ("TCP", 80, 0)


def test_every_error_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        manifests(
            tmp_path,
            """apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.0.0.300
  ports:
  - port: 80000
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  ingress:
  - from:
    - {}
""",
        )
    assert [(d.line, d.what.split(":")[0]) for d in caught.value.diagnostics] == [
        (7, "spec.ports[0].port"),
        (15, "spec.ingress[0].from[0]"),
    ]
