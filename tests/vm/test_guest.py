"""The guest is the machine that other tests count on: Debian's kernel, its modules, devices, sockets and BPF."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from k8snetc.backends.ebpf import bpf_objects, bpf_programs
from tests.vm.plugin import in_guest

pytestmark = pytest.mark.vm


def test_runs_in_the_guest() -> None:
    assert in_guest()
    assert "hypervisor" in Path("/proc/cpuinfo").read_text()
    assert "9p" in Path("/proc/filesystems").read_text()


def test_kernel_is_that_of_debian_12() -> None:
    assert os.uname().release.startswith("6.1.0-")
    assert os.geteuid() == 0


def test_the_hosts_files_are_read_only_below_and_writable_above() -> None:
    scratch = Path(__file__).parent / f"scratch-{os.getpid()}"
    scratch.write_text("only in the guest's memory")
    assert scratch.read_text() == "only in the guest's memory"
    scratch.unlink()
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    assert {"overlay", "tmpfs", "cgroup2", "bpf", "tracefs"} <= kinds


def test_modules_can_be_loaded_on_demand() -> None:
    subprocess.run(["modprobe", "sch_netem"], check=True, timeout=60)
    assert "sch_netem" in Path("/proc/modules").read_text()


def test_the_devices_that_ipvs_and_tunnels_need() -> None:
    for kind, arguments in {
        "dummy": [],
        "bridge": [],
        "vxlan": ["id", "7", "dstport", "4789", "dev", "lo"],
        "ipip": ["remote", "127.0.0.2", "local", "127.0.0.1"],
        "ip6tnl": ["remote", "::2", "local", "::1"],
    }.items():
        name = f"t{os.getpid() % 10000}{kind}"
        subprocess.run(["ip", "link", "add", name, "type", kind, *arguments], check=True, timeout=60)
        shown = subprocess.run(
            ["ip", "-d", "-j", "link", "show", name], check=True, capture_output=True, timeout=60
        )
        assert json.loads(shown.stdout)[0]["linkinfo"]["info_kind"] == kind
        subprocess.run(["ip", "link", "delete", name], check=True, timeout=60)


def test_sctp_sockets_speak(sctp_sockets: None) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as server,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.settimeout(20)
        client.connect(server.getsockname())
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"heard")
            assert client.recv(16) == b"heard"


@pytest.mark.parametrize("command", ["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"])
def test_iptables_with_sets_and_statistics(command: str) -> None:
    family = "inet6" if command.startswith("ip6") else "inet"
    rules = (
        "*nat\n:VMTEST - [0:0]\n"
        "-A VMTEST -p tcp -m statistic --mode random --probability 0.5 -m set --match-set vmtest dst -j RETURN\n"
        "-A VMTEST -j MASQUERADE --random-fully\nCOMMIT\n"
    )
    subprocess.run(
        ["unshare", "-n", "sh", "-ec", f"ipset create vmtest hash:ip family {family}; exec {command}-restore"],
        input=rules, text=True, check=True, timeout=60,
    )  # fmt: skip


def test_nftables_maps_with_numgen() -> None:
    rules = """
    table inet vmtest {
        map m { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; flags interval; }
        chain c { type nat hook prerouting priority -100; }
    }
    """
    subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=rules, text=True, check=True, timeout=60)


def test_btf_of_kernel_and_modules() -> None:
    assert Path("/sys/kernel/btf/vmlinux").stat().st_size > 1_000_000
    assert Path("/sys/kernel/btf/ip_vs").exists()


def test_bpf_program_runs_through_the_libbpf_in_bcc(tmp_path: Path) -> None:
    source = tmp_path / "answer.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("tc") int answer(struct __sk_buff *skb) { return skb->len == 60 ? 42 : 7; }\n'
        'char _license[] SEC("license") = "Dual MIT/GPL";\n'
    )
    compiled = tmp_path / "answer.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run(
        ["clang", "-target", "bpf", "-O2", "-g", f"-I{include}", "-c", str(source), "-o", str(compiled)],
        check=True, timeout=120,
    )  # fmt: skip

    loaded = bpf_objects.Object(compiled.read_bytes(), "answer")
    try:
        loaded.load()
        answers = [bpf_programs.run(loaded.program("answer"), bytes(length))[0] for length in (60, 61)]
    finally:
        loaded.close()
    assert answers == [42, 7]
