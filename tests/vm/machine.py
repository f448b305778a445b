"""The running virtual machine, seen from the host: boot it, run commands in it, know when it died, switch it off.

Knows qemu and the agent's messages; must not know pytest. Every wait in here ends: with an answer, with the death
of the machine (a panic ends qemu), or with its silence (the agent gives a sign of life every second).
"""

import base64
import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.vm import initramfs
from tests.vm.agent import PORT_NAME
from tests.vm.kernel import REPOSITORY, Kernel, KernelError, cache_dir, kernel

QEMU = "qemu-system-x86_64"
KERNEL_MODULES = (
    "ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_dh ip_vs_sh ip_vs_sed "
    "ip_vs_nq ip_vs_mh ip_vs_fo ip_vs_ovf dummy veth bridge br_netfilter vxlan ipip ip6_tunnel nf_conntrack "
    "nf_conntrack_netlink nf_nat nf_tables nft_compat nft_chain_nat nft_ct nft_fib_inet nft_limit nft_log "
    "nft_masq nft_nat nft_numgen nft_hash nft_redir nft_reject_inet ip_tables ip6_tables iptable_filter "
    "iptable_nat iptable_mangle iptable_raw ip6table_filter ip6table_nat ip6table_mangle ip6table_raw "
    "xt_set xt_addrtype xt_comment xt_conntrack xt_ipvs xt_mark xt_MASQUERADE xt_nat xt_multiport "
    "xt_owner xt_recent xt_sctp xt_statistic xt_tcpudp ip_set_bitmap_port ip_set_hash_ip ip_set_hash_ipport "
    "ip_set_hash_ipportip ip_set_hash_ipportnet ip_set_hash_net ip_set_hash_netport ip_set_list_set "
    "act_bpf cls_bpf cls_u32 sch_ingress "
)
"""What the guest loads at its start.

Not `sctp`: with it the kernel answers SCTP by itself, and the lab's speakers on raw sockets are talked over.
"""

KERNEL_ARGUMENTS = (
    "console=ttyS0 panic=-1 oops=panic loglevel=4 mitigations=off "
    # What costs an emulated processor most, and no test asks for: with addresses at random every start of a program is
    # translated anew; each page is written once more when it is given out; each file is judged (docs/decisions/0004).
    "norandmaps init_on_alloc=0 apparmor=0 audit=0"
)

BOOT_LIMIT = 600.0
"""Seconds from the start of qemu to the agent's first word; about 7 when the machine is idle."""
SILENCE_LIMIT = 90.0
"""Seconds without a sign of life after which the guest counts as hung: far more than a busy host ever causes."""
GRACE = 30.0
"""Seconds by which the guest may be late with the end of a command that ran out of time."""
CONSOLE_LINES = 40
"""Of the console's end in an error's message; after a panic: before it."""
PANIC = "Kernel panic"
PANIC_LINES = 200
"""At most shown of it: what the kernel says after a panic, trace and registers, has no fixed length."""


class VmError(RuntimeError):
    """The machine did not start, died or hung. The message ends in its console: from before a panic on, or the end."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command in the guest ended."""

    argv: tuple[str, ...]
    code: int
    """Exit status; negative: the number of the signal that ended it."""
    stdout: str
    stderr: str
    timed_out: bool

    def check(self) -> Self:
        """Return itself, or raise AssertionError with all the command said when it failed."""
        if self.code != 0 or self.timed_out:
            why = "ran out of time" if self.timed_out else f"ended with {self.code}"
            raise AssertionError(f"{' '.join(self.argv)} {why}\n{self.stdout}{self.stderr}")
        return self


class Process:
    """A command that runs in the guest. Made by `Vm.start`."""

    def __init__(self, vm: "Vm", number: int, limit: float | None) -> None:
        self._vm = vm
        self._number = number
        self._limit = limit
        self._late = None if limit is None else time.monotonic() + limit + GRACE
        self.messages: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self.code: int | None = None
        self.timed_out = False

    def output(self, limit: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (1 for stdout or 2 for stderr, bytes) until the command has ended.

        `limit` is for this call: seconds without any output after which TimeoutError is raised. Raises VmError when the
        guest dies or hangs, and FileNotFoundError when there is no such program.
        """
        until = None if limit is None else time.monotonic() + limit
        while self.code is None:
            try:
                message = self.messages.get(timeout=1.0)
            except queue.Empty:
                message = {"op": "nothing"}
            if message is None:
                raise self._vm.death()
            match message:
                case {"op": "output", "stream": int(stream), "data": str(data)}:
                    yield stream, base64.b64decode(data)
                    until = None if limit is None else time.monotonic() + limit
                    continue
                case {"op": "exit", "code": int(code), "timed_out": bool(timed_out)}:
                    self.code, self.timed_out = code, timed_out
                case {"op": "refused", "why": why}:
                    raise FileNotFoundError(f"the guest can not run this: {why}")
                case _:
                    pass
            now = time.monotonic()
            self._vm.check_alive()
            if self._late is not None and now > self._late:
                raise self._vm.kill(f"a command should have been ended after {self._limit} s and was not")
            if until is not None and now > until and self.code is None:
                raise TimeoutError(f"no output for {limit} s")

    def write(self, data: bytes | None) -> None:
        """Give it input; None closes its standard input."""
        self._vm.send(
            op="input", id=self._number, data=None if data is None else base64.b64encode(data).decode()
        )

    def signal(self, number: int) -> None:
        """Send a signal to the command and all that it started."""
        self._vm.send(op="signal", id=self._number, number=number)

    def size(self, rows: int, columns: int) -> None:
        """Tell it the size of its terminal."""
        self._vm.send(op="size", id=self._number, rows=rows, columns=columns)


class Vm:
    """One virtual machine. `with Vm.boot() as vm: vm.run(["uname", "-r"])`."""

    def __init__(self, silence: float) -> None:
        """Use `boot`."""
        runs = cache_dir() / "runs"
        runs.mkdir(exist_ok=True)
        _collect(runs)
        self.folder = Path(tempfile.mkdtemp(dir=runs, prefix=f"{os.getpid()}-"))
        self.pid = 0
        self._silence = silence
        self._numbers = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._qemu: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._last_word = time.monotonic()
        self._why: str | None = None
        self.settings: dict[str, str] = {}
        self.stderr_log = self.folder / "qemu.log"
        self.console_log = self.folder / "console.log"

    @classmethod
    def boot(
        cls,
        *,
        memory: int = 2048,
        processors: int = 2,
        silence: float = SILENCE_LIMIT,
        boot_limit: float = BOOT_LIMIT,
        kernel_arguments: Sequence[str] = (),
        cache: str = "loose",
        modules: str = KERNEL_MODULES,
    ) -> Self:
        """Boot and return when the guest takes commands.

        `memory` is in MiB, the limits are in seconds; `cache` is the guest's cache mode for the shared files
        (`none`: it sees what the host changes while it runs); `modules` are loaded at the start. Raises VmError, or
        KernelError when there is no kernel.
        """
        vm = cls(silence)
        settings = {"VM_9P_CACHE": cache, "VM_KERNEL_MODULES": modules}
        try:
            vm._start(kernel(), memory, processors, kernel_arguments, settings)
            vm._await_ready(boot_limit)
        except BaseException:
            vm.close(keep=vm._why is not None)
            raise
        return vm

    def _start(
        self,
        linux: Kernel,
        memory: int,
        processors: int,
        arguments: Sequence[str],
        settings: Mapping[str, str],
    ) -> None:
        if shutil.which(QEMU) is None:
            raise KernelError(f"{QEMU} is not installed: run make setup")
        here = Path(__file__).parent
        self.settings = {
            **settings,
            "VM_MODULES": str(linux.modules.resolve()),
            "VM_GUEST_SCRIPT": str(here / "guest.sh"),
            "VM_AGENT": str(here / "agent.py"),
        }
        initrd = self.folder / "initrd"
        initrd.write_bytes(initramfs.build(linux, self.settings))
        self._socket, theirs = socket.socketpair()
        append = [KERNEL_ARGUMENTS, *arguments]
        command = [
            # Whatever happens to us, the machine does not outlive us.
            "setpriv", "--pdeathsig", "KILL", "--",
            QEMU, "-machine", "q35,usb=off,smbus=off,sata=off,vmport=off,hpet=off", "-cpu", "max",
            "-accel", "tcg,thread=multi", "-smp", str(processors), "-m", str(memory),
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
            "-kernel", str(linux.image), "-initrd", str(initrd), "-append", " ".join(append),
            "-chardev", f"file,id=console,path={_option(self.console_log)}", "-serial", "chardev:console",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={theirs.fileno()}",
            "-device", f"virtserialport,chardev=agent,name={PORT_NAME}",
            "-device", "virtio-rng-pci",
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
        ]  # fmt: skip
        with self.stderr_log.open("wb") as log:
            self._qemu = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        theirs.close()
        self.pid = self._qemu.pid
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()

    def _await_ready(self, limit: float) -> None:
        until = time.monotonic() + limit
        while not self._ready.wait(0.2):
            if self._ended.is_set():
                raise self.death()
            if time.monotonic() > until:
                raise self.kill(f"it was not ready after {limit:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=isinstance(error, VmError))

    # Commands ------------------------------------------------------------------------------------------------------

    def start(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> Process:
        """Start a command in the guest; it is ended there after `timeout` seconds. Raises VmError."""
        self.check_alive()
        number = next(self._numbers)
        process = Process(self, number, timeout)
        self._processes[number] = process
        self.send(
            op="start", id=number, argv=list(argv), cwd=str(cwd), env=dict(env or {}), timeout=timeout, tty=tty
        )  # fmt: skip
        if self._ended.is_set():  # it died between the check and the registration
            process.messages.put(None)
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        cwd: str | Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002  # named as subprocess.run names it
    ) -> Result:
        """Run a command in the guest to its end.

        Raises VmError when the guest dies or hangs, never for a command that failed or ran out of time.
        """
        process = self.start(argv, timeout=timeout, cwd=cwd, env=env)
        if input is not None:
            process.write(input.encode())
        process.write(None)
        streams = {1: bytearray(), 2: bytearray()}
        for stream, data in process.output():
            streams[stream] += data
        assert process.code is not None
        stdout, stderr = (streams[n].decode(errors="replace") for n in (1, 2))
        return Result(tuple(argv), process.code, stdout, stderr, process.timed_out)

    # Life and death ------------------------------------------------------------------------------------------------

    def console(self) -> str:
        """All that the guest's console said, without empty lines."""
        try:
            text = self.console_log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())

    def check_alive(self) -> None:
        """Raise VmError when the machine has ended or gave no sign of life for too long."""
        if self._ended.is_set():
            raise self.death()
        silent = time.monotonic() - self._last_word
        if self._ready.is_set() and silent > self._silence:
            raise self.kill(f"it hung: no sign of life for {silent:.0f} s")

    def kill(self, why: str) -> VmError:
        """End the machine now; returns the error to raise."""
        if self._why is None:
            self._why = why
        self._end_qemu(0.0)
        return self.death()

    def death(self) -> VmError:
        """Return the error that tells how the machine ended."""
        self._end_qemu(5.0)  # its socket closes a moment before it is gone
        log = self.stderr_log.read_text(errors="replace").strip()
        if self._why is None:
            code = self._qemu.returncode if self._qemu else None
            panic = next((line for line in self.console().splitlines() if PANIC in line), None)
            self._why = panic or f"it ended by itself (qemu's exit status: {code})"
        parts = [f"the virtual machine is gone: {self._why}"]
        if log:
            parts.append(f"qemu said:\n{log[-2000:]}")
        shown = telling(self.console())
        parts.append(f"the end of its console (all of it: {self.console_log}):\n{shown}")
        return VmError("\n".join(parts))

    def close(self, *, keep: bool = False) -> None:
        """Switch the machine off and remove what it left, except its logs if `keep`. Can be called again."""
        with contextlib.suppress(OSError):
            if self._qemu is not None and self._qemu.poll() is None and self._why is None:
                self.send(op="off")
        self._end_qemu(3.0)
        if self._socket is not None:
            self._socket.close()
        if keep:
            (self.folder / "initrd").unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_qemu(self, patience: float) -> None:
        if self._qemu is None:
            return
        try:
            self._qemu.wait(patience)
        except subprocess.TimeoutExpired:
            # Never by name: only the process that this object started. KILL ends a stopped one, too.
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()

    # The agent's messages ------------------------------------------------------------------------------------------

    def send(self, **message: object) -> None:
        """Send one message to the agent; a dead guest is noticed by whoever waits for the answer."""
        assert self._socket is not None
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self, connection: socket.socket) -> None:
        pending = bytearray()
        while True:
            try:
                data = connection.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            self._last_word = time.monotonic()
            pending += data
            if b"\n" not in data:
                continue
            *lines, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in lines:
                message = json.loads(line)
                if message["op"] == "hello":
                    self._ready.set()
                elif (process := self._processes.get(message.get("id"))) is not None:
                    if message["op"] in {"exit", "refused"}:
                        del self._processes[message["id"]]
                    process.messages.put(message)
        self._ended.set()
        for process in list(self._processes.values()):
            process.messages.put(None)


def telling(console: str) -> str:
    """The lines of a console that tell how its machine ended: from before the first panic on, or the last ones."""
    lines = console.splitlines()
    panic = next((at for at, line in enumerate(lines) if PANIC in line), None)
    if panic is None:
        return "\n".join(lines[-CONSOLE_LINES:])
    return "\n".join(lines[max(0, panic - CONSOLE_LINES) :][:PANIC_LINES])


def _option(path: Path) -> str:
    """A path inside an option of qemu, where a comma separates."""
    return str(path).replace(",", ",,")


def _collect(runs: Path) -> None:
    """Remove what machines of long ago left for their readers."""
    for folder in runs.iterdir():
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(folder, ignore_errors=True)


def interact(vm: Vm, argv: Sequence[str], cwd: Path) -> int:
    """Run a command in the guest on this terminal, as ssh would; returns its exit status."""
    import termios
    import tty

    process = vm.start(argv, cwd=cwd, tty=True, env={"TERM": os.environ.get("TERM", "dumb")})
    before = termios.tcgetattr(sys.stdin)

    def resize(*_: object) -> None:
        process.size(*reversed(shutil.get_terminal_size()))

    def type_in() -> None:
        while data := os.read(sys.stdin.fileno(), 4096):
            process.write(data)
        process.write(None)

    signal.signal(signal.SIGWINCH, resize)
    resize()
    threading.Thread(target=type_in, daemon=True).start()
    try:
        tty.setraw(sys.stdin)
        for _, data in process.output():
            os.write(sys.stdout.fileno(), data)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    return process.code if process.code is not None else 1
