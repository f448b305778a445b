"""What manifests don't say about a node: command-line flags and a configuration file with the same names.

Knows: the flags' names, forms and help. Must not know: manifests (`context` puts the two together). Imported at
start-up, so nothing slow may be imported here.

Names are kube-proxy's where it has them, else those of kube-apiserver or kubeadm. The configuration file is a YAML
mapping of the same names, without the dashes in front; kube-proxy's own spelling is taken too (`cluster-cidr` or
`clusterCIDR`), and so is its own file as it is (`kube_proxy_config`). A flag wins over the file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar

import click

from k8snetc.compiler.diagnostics import Diagnostic, InputError
from k8snetc.ir.types import Address, Family, Network, PortRange

if TYPE_CHECKING:
    from k8snetc.compiler.document import FieldPath, JsonValue, Tree


class DetectLocal(StrEnum):
    """How traffic of the cluster's own pods is told from other traffic (kube-proxy `--detect-local-mode`)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


class NodePortAddresses(NamedTuple):
    """Where NodePorts are served: the node's addresses in `networks`, or with `primary` its first of each family."""

    networks: tuple[Network, ...] = ()
    primary: bool = False


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """What flags and the configuration file say. None is "not said"; an empty `cluster_cidr` is `none`."""

    node: str | None = None
    node_address: tuple[Address, ...] | None = None
    cluster_cidr: tuple[Network, ...] | None = None
    service_cidr: tuple[Network, ...] | None = None
    nodeport_addresses: NodePortAddresses | None = None
    service_node_port_range: PortRange | None = None
    masquerade_all: bool | None = None
    detect_local_mode: DetectLocal | None = None
    pod_bridge_interface: str | None = None
    pod_interface_name_prefix: str | None = None
    localhost_nodeports: bool | None = None
    conntrack_tcp_be_liberal: bool | None = None
    ip_families: tuple[Family, ...] | None = None


# --- forms of values: text to value, ValueError with what is wrong -----------------------------------------


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _name(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _interface(text: str) -> str:
    if not 0 < len(text) < 16 or any(c.isspace() or c == "/" for c in text):
        raise ValueError(f"{text!r} is no interface name (1 to 15 characters, no space, no slash)")
    return text


def _addresses(text: str) -> tuple[Address, ...]:
    found = []
    for part in _split(text):
        try:
            found.append(ip_address(part))
        except ValueError:
            raise ValueError(f"{part!r} is no IP address") from None
    return tuple(dict.fromkeys(found))


def _networks(text: str) -> tuple[Network, ...]:
    found = []
    for part in _split(text):
        try:
            if "/" not in part:
                raise ValueError
            found.append(ip_network(part, strict=False))
        except ValueError:
            raise ValueError(f"{part!r} is no CIDR block, as 10.0.0.0/8") from None
    return tuple(dict.fromkeys(found))


def _some_networks(text: str) -> tuple[Network, ...]:
    found = _networks(text)
    if not found:
        raise ValueError("it names no CIDR block")
    return found


def _networks_or_none(text: str) -> tuple[Network, ...]:
    return () if text.strip().lower() == "none" else _some_networks(text)


def _nodeport_addresses(text: str) -> NodePortAddresses:
    return (
        NodePortAddresses(primary=True) if text.strip() == "primary" else NodePortAddresses(_networks(text))
    )


def _port_range(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    try:
        value = PortRange(int(first), int(last) if dash else int(first))
    except ValueError:
        raise ValueError(f"{text!r} is no range of ports, as 30000-32767") from None
    if not 0 < value.first <= value.last < 65536:
        raise ValueError(f"{text!r} is not within 1-65535, lower end first")
    return value


def _mode(text: str) -> DetectLocal:
    for mode in DetectLocal:
        if mode.lower() == text.lower():
            return mode
    raise ValueError(f"{text!r} is not one of {', '.join(DetectLocal)}")


def _families(text: str) -> tuple[Family, ...]:
    known = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
    found = []
    for part in _split(text):
        if part.lower() not in known:
            raise ValueError(f"{part!r} is neither ipv4 nor ipv6")
        found.append(known[part.lower()])
    if not found:
        raise ValueError("it names no family")
    return tuple(sorted(set(found)))


# --- the flags ---------------------------------------------------------------------------------------------


class Flag(NamedTuple):
    """One flag. `parse` None: it is on or off. `repeat`: it may be given several times, as well as with commas."""

    field: str
    help: str
    metavar: str = ""
    parse: Callable[[str], object] | None = None
    repeat: bool = False
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As it stands in the configuration file, and with -- on the command line."""
        return self.field.replace("_", "-")


FLAGS: Final[tuple[Flag, ...]] = (
    Flag(
        "node",
        "Compile for this node: its addresses, podCIDRs and zone come from its Node object. Without it, for a node "
        "that hosts every pod.",
        "NAME",
        _name,
        also=("hostname-override",),
    ),
    Flag(
        "node_address",
        "The node's own addresses, where its Node object does not say them or says too few.",
        "IP[,IP]",
        _addresses,
        repeat=True,
    ),
    Flag(
        "cluster_cidr",
        "Where the cluster's pods have their addresses; `none`: not known, so that pods can't be told from other "
        "clients.  [default: the podCIDRs of all Node objects]",
        "CIDR[,CIDR]|none",
        _networks_or_none,
        repeat=True,
    ),
    Flag(
        "service_cidr",
        "Where ClusterIPs are allotted: what is sent there and is no service is dropped.",
        "CIDR[,CIDR]",
        _some_networks,
        repeat=True,
        also=("service-cluster-ip-range",),
    ),
    Flag(
        "nodeport_addresses",
        "Serve NodePorts only on the node's addresses in these blocks; `primary`: on its first address of each "
        "family.  [default: on all of the node's]",
        "CIDR[,CIDR]|primary",
        _nodeport_addresses,
        repeat=True,
    ),
    Flag(
        "service_node_port_range",
        "The ports that NodePorts may have.  [default: 30000-32767]",
        "FIRST-LAST",
        _port_range,
    ),
    Flag(
        "masquerade_all",
        "Masquerade all traffic to ClusterIPs, not only what comes from outside the cluster.",
    ),
    Flag(
        "detect_local_mode",
        "How traffic of the cluster's own pods is told: by source address in the cluster's or the node's CIDRs, or "
        "by the interface it comes in on.  [default: ClusterCIDR]",
        "|".join(DetectLocal),
        _mode,
    ),
    Flag(
        "pod_bridge_interface",
        "The bridge that pods are on, for --detect-local-mode=BridgeInterface.",
        "DEV",
        _interface,
    ),
    Flag(
        "pod_interface_name_prefix",
        "How the names of pod interfaces begin, for --detect-local-mode=InterfaceNamePrefix.",
        "PREFIX",
        _interface,
    ),
    Flag(
        "localhost_nodeports",
        "Serve NodePorts on 127.0.0.1 too (IPv4 only).",
        also=("iptables-localhost-nodeports",),
    ),
    Flag(
        "conntrack_tcp_be_liberal",
        "The kernel lets out-of-window TCP packets pass as valid (net.netfilter.nf_conntrack_tcp_be_liberal), so "
        "don't drop INVALID ones.",
    ),
    Flag(
        "ip_families",
        "The families to compile for.  [default: those that the manifests use]",
        "ipv4[,ipv6]",
        _families,
        repeat=True,
    ),
)


def _plain(name: str) -> str:
    """`cluster-cidr`, `clusterCIDR` and `cluster_cidr` are the same name."""
    return name.replace("-", "").replace("_", "").lower()


_BY_NAME: Final = {_plain(name): flag for flag in FLAGS for name in (flag.name, *flag.also)}


# --- the configuration file --------------------------------------------------------------------------------


def read_config(path: str) -> dict[str, object]:
    """The options that a configuration file sets, by field. Raises `InputError` with everything that is wrong in it."""
    from k8snetc.compiler.document import Flaw
    from k8snetc.compiler.load import trees

    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        what = f"can't be read: {(error.strerror or str(error)).lower()}"
        raise InputError([Diagnostic(path, 0, what, "check the path that --config gives")]) from None
    errors: list[Diagnostic] = []
    values: dict[str, object] = {}
    for tree in trees(path, data):
        if isinstance(tree, Flaw):
            errors.append(Diagnostic(path, tree.line, tree.what, tree.fix))
            continue
        if not isinstance(tree.value, dict):
            errors.append(
                Diagnostic(path, tree.line, "no mapping", "write one option a line, as `cluster-cidr: ...`")
            )
            continue
        for path_in_file, field, value in _settings(path, tree, errors):
            line = tree.locate(path_in_file)
            key = ".".join(map(str, path_in_file))
            flag = _BY_NAME[_plain(field)]
            if flag.field in values:
                errors.append(
                    Diagnostic(path, line, f"option {flag.name} is there twice", "keep one of the two")
                )
                continue
            try:
                values[flag.field] = _config_value(flag, value)
            except ValueError as error:
                metavar = flag.metavar if flag.parse else "true or false"
                errors.append(
                    Diagnostic(path, line, f"{key}: {error}", f"write {path_in_file[-1]}: {metavar}")
                )
    if errors:
        raise InputError(errors)
    return values


def _settings(file: str, tree: Tree, errors: list[Diagnostic]) -> Iterator[tuple[FieldPath, str, JsonValue]]:
    """(where, which option, its value) of each that a file sets; unknown names become errors."""
    from k8snetc.compiler.kube_proxy_config import Strange, is_kube_proxys, settings

    assert isinstance(tree.value, dict)
    if is_kube_proxys(tree.value):
        for found in settings(tree.value):
            if isinstance(found, Strange):
                errors.append(Diagnostic(file, tree.locate(found.path), found.what, found.fix))
            else:
                yield found
        return
    for key, value in tree.value.items():
        flag = _BY_NAME.get(_plain(key))
        if flag is None:
            errors.append(Diagnostic(file, tree.locate((key,)), f"no option is named {key!r}", _suggest(key)))
        else:
            yield (key,), flag.field, value


def _config_value(flag: Flag, value: object) -> object:
    if flag.parse is None:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value
    if isinstance(value, list) and flag.repeat:
        value = ",".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return flag.parse(value)


def _suggest(key: str) -> str:
    close = get_close_matches(_plain(key), _BY_NAME, n=1, cutoff=0.6)
    if close:
        return f"did you mean {_BY_NAME[close[0]].name}?"
    return f"the options are {', '.join(flag.name for flag in FLAGS)}"


# --- the command line --------------------------------------------------------------------------------------

P = ParamSpec("P")
R = TypeVar("R")


def node_options(command: Callable[P, R]) -> Callable[..., R]:
    """Give a click command the flags of `FLAGS` and `--config`; it gets them as one `ContextOptions`, as `options`."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        values: dict[str, object] = dict(kwargs)
        config = values.pop("config", None)
        given = {name: values.pop(name) for name in _FIELDS}
        values["options"] = context_options(given, str(config) if config else None)
        return command(*args, **values)  # type: ignore[arg-type]  # click calls by name; mypy can't see the change

    decorated: Callable[..., R] = click.option(
        "--config",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Read these options from a YAML file, named as the flags are (or as kube-proxy writes them: clusterCIDR); "
        "kube-proxy's own KubeProxyConfiguration will do too.",
    )(wrapper)
    for flag in reversed(FLAGS):
        decorated = _option(flag)(decorated)
    return decorated


_FIELDS: Final = tuple(f.name for f in fields(ContextOptions))


def _option(flag: Flag) -> Callable[[Callable[..., R]], Callable[..., R]]:
    names = [f"--{name}" for name in (flag.name, *flag.also)]
    if flag.parse is None:
        pairs = [f"{names[0]}/--no-{flag.name}", *names[1:]]
        return click.option(*pairs, flag.field, default=None, help=flag.help)
    return click.option(
        *names,
        flag.field,
        metavar=flag.metavar,
        multiple=flag.repeat,
        callback=_callback(flag.parse),
        help=flag.help,
    )


def _callback(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, object], object]:
    def convert(_ctx: click.Context, _param: click.Parameter, value: object) -> object:
        if value is None or value == ():
            return None
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


def context_options(given: Mapping[str, object], config: str | None = None) -> ContextOptions:
    """The options that a configuration file and flags set; flags win. Raises `InputError` for a bad file."""
    values = read_config(config) if config else {}
    values |= {name: value for name, value in given.items() if value is not None}
    return ContextOptions(**values)  # type: ignore[arg-type]  # each value was made by its flag's `parse`
