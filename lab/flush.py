"""Make a node of the lab as it was when it was built. Runs inside the node; must never run anywhere else.

Knows where rules and state of any back end can be. Must not know which back end put them there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

_BUILTIN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
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
    if Path("/proc/net/ip_vs").exists() and shutil.which("ipvsadm"):
        _do(["ipvsadm", "--clear"])
    _traffic_control()
    _do(["conntrack", "--flush"])
    for folder, keep in ((Path("/run"), _KEEP_IN_RUN), (Path("/sys/fs/bpf"), _KEEP_IN_BPF)):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in keep:
                _delete(entry)


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
