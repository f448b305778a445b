"""An agent, seen from the process that built the lab: start it, ask it, end it.

Knows processes and the message socket. Must not know what the requests mean.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading

from k8snetc.backends.base import NodeError
from k8snetc.lab import messages

_PATIENCE = 120.0


class LabError(NodeError):
    """The lab could not do what was asked; the message says what failed, with the tool's own words."""


class AgentHandle:
    """The other end of one agent. May be used from several threads."""

    def __init__(self, title: str) -> None:
        self.title = title
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "k8snetc.lab.agent", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.settimeout(_PATIENCE)
        self._socket = ours
        self._decoder = messages.Decoder()
        self._numbers = itertools.count()
        self._replies: dict[int, object] = {}
        self._sending = threading.Lock()
        self._receiving = threading.Lock()

    @property
    def pid(self) -> int:
        """The agent's process, which holds its mount namespace."""
        return self._process.pid

    def send(self, request: messages.Request) -> int:
        """Ask; the number returned is for `reply`."""
        number = next(self._numbers)
        try:
            with self._sending:
                self._socket.sendall(messages.encode(number, request))
        except OSError as error:
            raise self._gone() from error
        return number

    def reply(self, number: int) -> object:
        """Wait for the reply to a request. Raises LabError with the agent's words if it failed."""
        with self._receiving:
            while number not in self._replies:
                try:
                    arrived = messages.receive(self._socket, self._decoder)
                except TimeoutError as error:
                    raise LabError(
                        f"the agent of {self.title} has not answered for {_PATIENCE:.0f} s"
                    ) from error
                except (EOFError, OSError) as error:
                    raise self._gone() from error
                self._replies.update(arrived)
            answer = self._replies.pop(number)
        if isinstance(answer, messages.Failure):
            between = "\n" if "\n" in answer.text else " "
            raise LabError(f"the agent of {self.title} failed:{between}{answer.text}")
        return answer

    def ask(self, request: messages.Request) -> object:
        """Ask and wait for the reply."""
        return self.reply(self.send(request))

    def close(self) -> None:
        """End the agent; never raises."""
        with contextlib.suppress(LabError):
            self.send(messages.Close())
        self._socket.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def abandon(self) -> None:
        """In a forked child: let go of the socket, so that the agent sees the end when the real owner dies."""
        os.close(self._socket.detach())

    def _gone(self) -> LabError:
        return LabError(f"the agent of {self.title} is gone (exit status {self._process.poll()})")
