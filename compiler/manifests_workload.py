"""Pods, what makes pods, and where they run: as far as a node's dataplane reads them.

Knows: core/v1 Pod, Namespace, Node and ReplicationController, apps/v1 Deployment, StatefulSet, DaemonSet and
ReplicaSet, batch/v1 Job and CronJob. Must not know: services, policies, or how addresses are made up.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from k8snetc.compiler.fields import (
    AddressField,
    Annotations,
    ContainerPortName,
    Flag,
    Int,
    Labels,
    Model,
    NetworkField,
    Object,
    Port,
    PortOrUnset,
    Problems,
    ProtocolName,
    Text,
    parse_address,
    refuse,
)
from k8snetc.ir.types import Address, Network

# --- pods ----------------------------------------------------------------------------------------------------


class ContainerPort(Model):
    """A port that a container says it listens on; its name is what Services and policies may use."""

    name: ContainerPortName = ""
    container_port: Port
    protocol: ProtocolName = "TCP"
    host_port: PortOrUnset = 0


class Container(Model):
    """A container. `restart_policy` Always makes an init container a sidecar, whose ports count too (KEP-753)."""

    name: Text = ""
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: Text = ""


class PodSpec(Model):
    """PodSpec: where it runs and which ports it has."""

    node_name: Text = ""
    host_network: Flag = False
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        """The ports of all containers that run as long as the pod, in the order in which a name is looked up."""
        return tuple(
            port
            for container in (
                *self.containers,
                *(c for c in self.init_containers if c.restart_policy == "Always"),
            )
            for port in container.ports
        )


class PodIP(Model):
    """One of status.podIPs."""

    ip: AddressField


class Condition(Model):
    """One of status.conditions."""

    type: Text = ""
    status: Text = ""


class PodStatus(Model):
    """PodStatus. `pod_ips` holds `pod_ip` too, whichever of the two was given."""

    phase: Text = ""
    pod_ip: AddressField | None = None
    pod_ips: tuple[PodIP, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: object) -> object:
        """A pod without address may have an empty string there."""
        if isinstance(value, dict) and value.get("podIP") == "":
            return {k: v for k, v in value.items() if k != "podIP"}
        return value

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.pod_ip is not None and not self.pod_ips:
            self.__dict__["pod_ips"] = (PodIP(ip=self.pod_ip),)
        elif self.pod_ips and self.pod_ip is None:
            self.__dict__["pod_ip"] = self.pod_ips[0].ip
        elif self.pod_ip is not None and self.pod_ip != self.pod_ips[0].ip:
            raise refuse(
                f"podIP is {self.pod_ip}, but podIPs begins with {self.pod_ips[0].ip}",
                "make the first of podIPs the same as podIP",
            )
        if len({p.ip.version for p in self.pod_ips}) != len(self.pod_ips):
            raise refuse("podIPs has more than one address of a family", "give at most one IPv4 and one IPv6")
        return self


class Pod(Object):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its addresses, at most one a family."""
        return tuple(p.ip for p in self.status.pod_ips)

    @property
    def finished(self) -> bool:
        """Whether it has run to its end: another pod may have its address by now."""
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def ready(self) -> bool:
        """Whether the Ready condition holds."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


# --- namespaces and nodes --------------------------------------------------------------------------------------


class Namespace(Object):
    """core/v1 Namespace. It carries `kubernetes.io/metadata.name`, whatever its manifest says (KEP-2161)."""

    @model_validator(mode="after")
    def _default(self) -> Self:
        key = "kubernetes.io/metadata.name"
        if self.metadata.labels.get(key) != self.metadata.name:
            labels = {**self.metadata.labels, key: self.metadata.name}
            self.__dict__["metadata"] = self.metadata.model_copy(update={"labels": labels})
        return self


class NodeSpec(Model):
    """NodeSpec. `pod_cidrs` holds `pod_cidr` too, whichever of the two was given."""

    pod_cidr: NetworkField | None = None
    pod_cidrs: tuple[NetworkField, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("podCIDR") == "":
            return {k: v for k, v in value.items() if k != "podCIDR"}
        return value

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.pod_cidr is not None and not self.pod_cidrs:
            self.__dict__["pod_cidrs"] = (self.pod_cidr,)
        elif self.pod_cidrs and self.pod_cidr is None:
            self.__dict__["pod_cidr"] = self.pod_cidrs[0]
        elif self.pod_cidr is not None and self.pod_cidr != self.pod_cidrs[0]:
            raise refuse(
                f"podCIDR is {self.pod_cidr}, but podCIDRs begins with {self.pod_cidrs[0]}",
                "make the first of podCIDRs the same as podCIDR",
            )
        return self


_IP_TYPES = frozenset({"InternalIP", "ExternalIP"})


class NodeAddress(Model):
    """One of a node's addresses. Those that are names (`Hostname`, `InternalDNS`) stay text."""

    type: Text
    address: Text


class NodeStatus(Model):
    """NodeStatus."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(Object):
    """core/v1 Node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = Problems()
        for i, address in enumerate(self.status.addresses):
            if address.type in _IP_TYPES:
                try:
                    parse_address(address.address)
                except PydanticCustomError as error:
                    problems.add_error(("status", "addresses", i, "address"), error)
        problems.check()
        return self

    @property
    def ips(self) -> tuple[Address, ...]:
        """Its addresses (InternalIP and ExternalIP), each once, in the order given."""
        return tuple(
            dict.fromkeys(parse_address(a.address) for a in self.status.addresses if a.type in _IP_TYPES)
        )

    @property
    def internal_ips(self) -> tuple[Address, ...]:
        """Its InternalIP addresses alone."""
        return tuple(
            dict.fromkeys(parse_address(a.address) for a in self.status.addresses if a.type == "InternalIP")
        )

    @property
    def pod_networks(self) -> tuple[Network, ...]:
        """Its podCIDRs, at most one a family."""
        return self.spec.pod_cidrs

    @property
    def zone(self) -> str:
        """Its zone, "" if none."""
        return self.metadata.labels.get("topology.kubernetes.io/zone", "")


# --- workloads -------------------------------------------------------------------------------------------------


class TemplateMetadata(Model):
    """The metadata of a pod template."""

    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class PodTemplate(Model):
    """PodTemplateSpec."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: PodSpec = PodSpec()


def _count(value: int) -> int:
    if value < 0:
        raise refuse(f"{value} is less than 0", "give 0 or more")
    return value


Count = Annotated[Int, AfterValidator(_count)]


class WorkloadSpec(Model):
    """What the specs of the workload kinds have in common; which field counts the pods depends on the kind."""

    replicas: Count = 1
    parallelism: Count = 1
    completions: Count | None = None
    template: PodTemplate


class Workload(Object):
    """Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController or Job: `origin.kind` says which."""

    spec: WorkloadSpec

    @property
    def template(self) -> PodTemplate:
        """What its pods are made from."""
        return self.spec.template

    @property
    def replicas(self) -> int | None:
        """How many pods it has; None for one a node (DaemonSet)."""
        match self.origin.kind:
            case "DaemonSet":
                return None
            case "Job":
                return _job_pods(self.spec)
            case _:
                return self.spec.replicas


class JobTemplate(Model):
    """JobTemplateSpec."""

    spec: WorkloadSpec


class CronJobSpec(Model):
    """batch/v1 CronJobSpec."""

    job_template: JobTemplate


class CronJob(Object):
    """batch/v1 CronJob."""

    spec: CronJobSpec

    @property
    def template(self) -> PodTemplate:
        """What its pods are made from."""
        return self.spec.job_template.spec.template

    @property
    def replicas(self) -> int | None:
        """How many pods one run has at a time."""
        return _job_pods(self.spec.job_template.spec)


def _job_pods(spec: WorkloadSpec) -> int:
    return spec.parallelism if spec.completions is None else min(spec.parallelism, spec.completions)
