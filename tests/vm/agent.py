"""Runs commands in the guest for the host. Started by `guest.sh`; standard library only, for a quick start.

Both directions of the virtio port carry lines of JSON. From the host:
    {"op": "start", "id": 1, "argv": [...], "cwd": "/", "env": {...}, "timeout": 60, "tty": false}
    {"op": "input", "id": 1, "data": base64, or null for end of file}
    {"op": "signal", "id": 1, "number": 15}         to the whole process group
    {"op": "size", "id": 1, "rows": 24, "columns": 80}
    {"op": "off"}
To the host:
    {"op": "hello"}, then every second {"op": "beat"}
    {"op": "output", "id": 1, "stream": 1, "data": base64}
    {"op": "exit", "id": 1, "code": 0, "timed_out": false}      code as in subprocess: negative for a signal
    {"op": "refused", "id": 1, "why": "..."}
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PORT_NAME = "k8snetc.agent"
KILL_AFTER = 2.0
"""Seconds between asking a process that ran out of time to end, and ending it."""


class Port:
    """The virtio port: reads requests, writes answers of many threads."""

    def __init__(self, device: str) -> None:
        self._fd = os.open(device, os.O_RDWR)
        self._lock = threading.Lock()

    def send(self, **message: object) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]

    def requests(self) -> Iterator[dict[str, Any]]:
        pending = b""
        while chunk := os.read(self._fd, 65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


class Command:
    """One running command: its output goes to the host as it comes."""

    def __init__(self, port: Port, request: dict[str, Any]) -> None:
        self._port = port
        self._id = request["id"]
        self._timed_out = False
        self._terminal: int | None = None
        self._input: int | None
        if request.get("tty"):
            self._terminal, side = pty.openpty()
            self._input, outputs, child = self._terminal, {1: self._terminal}, (side, side, side)
        else:
            (stdin, self._input), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
            outputs, child = {1: out, 2: err}, (stdin, stdout, stderr)
        try:
            # setsid makes the terminal the command's own, so that Ctrl-C and job control work in it.
            terminal = ["setsid", "--ctty"] if self._terminal is not None else []
            self._process = subprocess.Popen(
                terminal + request["argv"],
                cwd=request.get("cwd") or "/",
                env={**os.environ, **(request.get("env") or {})},
                stdin=child[0],
                stdout=child[1],
                stderr=child[2],
                start_new_session=self._terminal is None,
            )
        except BaseException:
            for fd in {self._input, *outputs.values()}:
                os.close(fd)
            raise
        finally:
            for fd in set(child):
                os.close(fd)
        readers = [
            threading.Thread(target=self._forward, args=output, daemon=True) for output in outputs.items()
        ]
        for reader in readers:
            reader.start()
        limit = request.get("timeout")
        threading.Thread(target=self._wait, args=(limit, readers), daemon=True).start()

    def input(self, data: str | None) -> None:
        if self._input is None:
            return
        try:
            if data is not None:
                content = base64.b64decode(data)
                while content:
                    content = content[os.write(self._input, content) :]
            elif self._terminal is not None:
                os.write(self._input, b"\x04")
            else:
                os.close(self._input)
                self._input = None
        except OSError:
            self._input = None  # the command has ended or closed its input: its exit tells the host

    def size(self, rows: int, columns: int) -> None:
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _forward(self, stream: int, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:  # a terminal whose other side is closed
                data = b""
            if not data:
                return
            self._port.send(
                op="output", id=self._id, stream=stream, data=base64.b64encode(data).decode("ascii")
            )

    def _wait(self, limit: float | None, readers: list[threading.Thread]) -> None:
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            self._timed_out = True
            self.signal(signal.SIGTERM)
            try:
                code = self._process.wait(KILL_AFTER)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                code = self._process.wait()
        # A background process of the command may hold its output open for ever; it gets a moment, not more.
        for reader in readers:
            reader.join(1.0)
        self._port.send(op="exit", id=self._id, code=code, timed_out=self._timed_out)


def _device() -> str:
    """The port's device; no udev here that would give it a name."""
    for _ in range(100):
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT_NAME:
                return f"/dev/{name.parent.name}"
        time.sleep(0.1)
    sys.exit("vm: the host gave no port for the agent")


def _beat(port: Port) -> None:
    while True:
        time.sleep(1.0)
        port.send(op="beat")


def main() -> None:
    """Serve until the host says stop or closes the port."""
    port = Port(_device())
    port.send(op="hello")
    threading.Thread(target=_beat, args=(port,), daemon=True).start()
    commands: dict[int, Command] = {}
    for request in port.requests():
        number = int(request.get("id", 0))
        match request["op"]:
            case "start":
                try:
                    commands[number] = Command(port, request)
                except (OSError, ValueError, subprocess.SubprocessError) as error:
                    port.send(op="refused", id=number, why=str(error))
            case "input" if number in commands:
                commands[number].input(request["data"])
            case "size" if number in commands:
                commands[number].size(request["rows"], request["columns"])
            case "signal" if number in commands:
                commands[number].signal(request["number"])
            case "off":
                return
            case _:
                pass  # to a command that has ended


if __name__ == "__main__":
    main()
