# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness's end of the line to the agent in the appliance (rootfs/usr/local/sbin)."""

from __future__ import annotations

import itertools
import json
import queue
import socket
import threading
from base64 import b64decode, b64encode
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

# What the appliance's own clock ends is answered a little later; busy machines answer late.
_GRACE_SECONDS = 60


class Done(NamedTuple):
    """How a command on the appliance ended; one that took too long, with 124, as timeout(1)."""

    exit: int
    stdout: str
    stderr: str
    output: bytes
    """stdout as it came, for what is no text."""


class LineDeadError(RuntimeError):
    """The appliance went down, by itself or by the test, with a command still unanswered."""


class Pending:
    """A command that runs on the appliance."""

    def __init__(self, future: Future[Done], seconds: float) -> None:
        self._future = future
        self._seconds = seconds

    def wait(self) -> Done:
        """Wait for its end, however it ends."""
        return self._future.result(self._seconds + _GRACE_SECONDS)


class Agent:
    """One QEMU's line, which lives as long as the QEMU, through reboots of what is in it."""

    def __init__(self, address: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(address))
        self._numbers = itertools.count(1)
        self._boots: queue.Queue[str | None] = queue.Queue()
        self._asked: dict[int, Future[Done]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def await_boot(self, seconds: float) -> None:
        """Wait until the agent says that it is there after a boot; each boot is waited for once.

        Raises TimeoutError, and LineDeadError where QEMU ended.
        """
        try:
            boot = self._boots.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"the appliance did not boot within {seconds} s") from None
        if boot is None:
            raise LineDeadError("QEMU ended before the appliance had booted")

    def begin(self, command: str, stdin: bytes, seconds: float) -> Pending:
        """Have bash run a command, for so long at most."""
        number = next(self._numbers)
        future: Future[Done] = Future()
        request = {
            "number": number,
            "command": command,
            "stdin": b64encode(stdin).decode(),
            "seconds": seconds,
        }
        with self._lock:
            self._asked[number] = future
            self._line.sendall(json.dumps(request).encode() + b"\n")
        return Pending(future, seconds)

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _listen(self) -> None:
        with self._line.makefile("rb") as lines:
            try:
                for line in lines:
                    self._hear(line)
            except OSError:
                pass
        self._give_up()
        self._boots.put(None)

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # what an agent was saying when the machine went down
        if "boot" in said:
            self._give_up()
            self._boots.put(said["boot"])
        else:
            self._asked.pop(said["number"]).set_result(_done(said))

    def _give_up(self) -> None:
        with self._lock:
            unanswered, self._asked = self._asked, {}
        for future in unanswered.values():
            future.set_exception(LineDeadError("the appliance went down meanwhile"))


def _done(said: dict[str, Any]) -> Done:
    output, complaints = b64decode(said["stdout"]), b64decode(said["stderr"])
    stdout, stderr = output.decode(errors="replace"), complaints.decode(errors="replace")
    return Done(said["exit"], stdout, stderr, output)
