"""Make a node of the lab as it was when it was built. Runs inside the node; must never run anywhere else.

Knows where rules and state of any back end can be. Must not know which back end put them there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

_BUILTIN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
_NETLINK_NETFILTER = 12
_DELETE_CONNECTIONS = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REQUEST_AND_ACKNOWLEDGE = 5
_KEEP_IN_BPF = {"maps.debug", "progs.debug"}  # the kernel's own
_KEEP_IN_RUN = {"lock", "netns", "xtables.lock"}


def everything() -> None:
    """Flush all of it. Raises subprocess.CalledProcessError when a tool fails."""
    _do(["nft", "flush", "ruleset"])
    for restore, names in (
        ("iptables-legacy-restore", "/proc/net/ip_tables_names"),
        ("ip6tables-legacy-restore", "/proc/net/ip6_tables_names"),
    ):
        _legacy(restore, Path(names))
    if shutil.which("ipset"):
        _do(["ipset", "destroy"])
    if _ipvs_serves() and shutil.which("ipvsadm"):
        _do(["ipvsadm", "--clear"])
    _traffic_control()
    connections()
    _devices()
    for folder, keep in ((Path("/run"), _KEEP_IN_RUN), (Path("/sys/fs/bpf"), _KEEP_IN_BPF)):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in keep:
                _delete(entry)


def _ipvs_serves() -> bool:
    table = Path("/proc/net/ip_vs")
    return table.exists() and len(table.read_text("ascii").splitlines()) > 3  # its head


def connections() -> None:
    """Forget all tracked connections. As `conntrack --flush`, without the start of a program. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        # nlmsghdr and nfgenmsg (linux/netlink.h, linux/netfilter/nfnetlink.h): delete, and nothing said of which.
        sock.send(struct.pack("=IHHIIBBH", 20, _DELETE_CONNECTIONS, _REQUEST_AND_ACKNOWLEDGE, 1, 0, 0, 0, 0))
        code = -struct.unpack_from("=i", sock.recv(4096), 16)[0]
        if code:
            raise OSError(code, os.strerror(code), "flush of tracked connections")


def _devices() -> None:
    for name in os.listdir("/sys/class/net"):
        if name.startswith("k8snetc"):
            _do(["ip", "link", "delete", name])


def _do(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def _legacy(restore: str, names: Path) -> None:
    # The list shows only tables that exist in this namespace; to name another one would create it.
    tables = names.read_text().split() if names.exists() else []
    lines = []
    for table in tables:
        lines += [f"*{table}", *(f":{c} ACCEPT [0:0]" for c in _BUILTIN[table]), "COMMIT"]
    if lines:
        _do([restore], "\n".join(lines) + "\n")


def _traffic_control() -> None:
    for entry in json.loads(_do(["tc", "-json", "qdisc", "show"])):
        if entry["kind"] in {"clsact", "ingress"}:
            _do(["tc", "qdisc", "delete", "dev", entry["dev"], entry["kind"]])


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
