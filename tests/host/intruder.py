# SPDX-License-Identifier: GPL-2.0-or-later
"""A user of the host who takes a tap before its VM does, and what that user does with it then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE

from tests.host.namespace import require_private_host

NOBODY = 65534

# It says a word a line: `won` once it has a queue, then `done` after each order. Orders: a name of
# a function, and what to write to the tap in hex.
_PROGRAM = """
import ctypes, fcntl, os, socket, struct, sys, threading
name, uid, *deeds = sys.argv[1:]
IFREQ = struct.Struct("16sH22x")
MULTI_QUEUE_TAP = 0x0002 | 0x0100 | 0x1000 | 0x4000
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
TUNATTACHFILTER, TUNSETCARRIER, SIOCSIFHWADDR = 0x401054D5, 0x400454E2, 0x8924
TUNSETQUEUE, CLONE_FILES = 0x400454D9, 0x400
ANOTHER_MAC, EXIT_THREAD = bytes.fromhex("fe5400000003"), 60
kept = []

def attach(queue):
    fcntl.ioctl(queue, TUNSETIFF, IFREQ.pack(name.encode(), MULTI_QUEUE_TAP))

def opened():
    return os.open("/dev/net/tun", os.O_RDWR)

def owner(queue): fcntl.ioctl(queue, TUNSETOWNER, int(uid))
def persist(queue): fcntl.ioctl(queue, TUNSETPERSIST, 1)
def close(queue): os.close(queue)
def rootly(queue): fcntl.ioctl(queue, TUNSETOWNER, 0)
def deaf(queue):
    nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    fcntl.ioctl(queue, TUNATTACHFILTER, struct.pack("@HP", 1, ctypes.addressof(nothing)))
def unplugged(queue): fcntl.ioctl(queue, TUNSETCARRIER, struct.pack("i", 0))
def renamed(queue):
    fcntl.ioctl(queue, SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), 1, ANOTHER_MAC))
def disabled(queue): fcntl.ioctl(queue, TUNSETQUEUE, IFREQ.pack(name.encode(), 0x0400))
def undumpable(queue): ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
def hide(queue):
    pair = socket.socketpair()
    socket.send_fds(pair[0], [b"x"], [queue])
    kept.extend(pair)
    os.close(queue)

os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)

def main():
    queue = opened()
    print("ready", flush=True)
    while True:
        try:
            attach(queue)
            break
        except OSError:
            pass
    for deed in deeds:
        globals()[deed](queue)
    print("won", flush=True)
    for line in sys.stdin:
        try:
            if line == "again\\n":
                attach(opened())
            else:
                os.write(queue, bytes.fromhex(line))
            print("done", flush=True)
        except OSError as error:
            print(type(error).__name__, os.strerror(error.errno), flush=True)

def apart_main():
    ctypes.CDLL(None).unshare(CLONE_FILES)
    main()

if "headless" in deeds:
    deeds.remove("headless")
    threading.Thread(target=main).start()
    ctypes.CDLL(None).syscall(EXIT_THREAD, 0)
elif "apart" in deeds:
    deeds.remove("apart")
    threading.Thread(target=apart_main).start()
else:
    main()
"""


class Intruder:
    """Somebody without root who tries, as fast as they can, to get a queue of a tap."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def says(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, frame: bytes, header: int = 12) -> str:
        """Have it send a frame from its queue; `done`, or how that failed."""
        return self._order((bytes(header) + frame).hex())

    def attach_again(self) -> str:
        """Have it take one more queue; `done`, or how that failed."""
        return self._order("again")

    def _order(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.says()


@contextmanager
def intruder(tap: str, *deeds: str, uid: int = NOBODY) -> Iterator[Intruder]:
    """Somebody who waits for a tap, takes a queue of it and does these deeds with it.

    `owner` makes it theirs, `rootly` makes it root's, `persist` makes it outlive all. `close` and
    `hide` have no process hold it, `disabled` switches it off. `undumpable` has /proc say
    that their process is root's, `headless` ends its first thread, `apart` has only another
    thread hold it. `deaf`, `unplugged` and `renamed` do to the tap what stays after they close it:
    a filter that lets nothing through, no carrier, another VM's MAC address.
    """
    require_private_host()
    command = [sys.executable, "-IS", "-c", _PROGRAM, tap, str(uid), *deeds]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            found = Intruder(process)
            assert found.says() == "ready"
            yield found
        finally:
            process.kill()
