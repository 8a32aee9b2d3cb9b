# SPDX-License-Identifier: GPL-2.0-or-later
"""What the chaos does: each deed is a function of the host and of chance, and may fail."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.host.command import run
from tests.host.libvirt import Libvirt
from tests.host.service import service
from tests.libvirt.warden import ENFORCING, PATHS, set_policy

_HOOK = b"/etc/libvirt/hooks/qemu"
_BROKEN = ("managed = [", 'mode = "enforced"\n', "\0")
_GOOD = (ENFORCING, f'{ENFORCING}[network]\nbackend = "ebtables"\n', f"{ENFORCING}# edited\n")


class Served:
    """virt-warden.service, which comes back when it is killed, as systemd would have it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stack = ExitStack()
        self._running = self._stack.enter_context(service())

    def kill(self) -> None:
        """End it in the middle of its work, and start it again."""
        with self._lock:
            self._running.signal(signal.SIGKILL)
            self._running.wait()
            self._stack.close()
            self._running = self._stack.enter_context(service())

    def close(self) -> None:
        """Stop it."""
        self._stack.close()


@dataclass
class Host:
    """Where the chaos takes place; libvirtd is killed and brought back by one deed at a time."""

    libvirt: Libvirt
    served: Served
    names: tuple[str, ...]
    daemon: Lock = field(default_factory=Lock)


Deed = Callable[[Host, random.Random], None]


def start(host: Host, chance: random.Random) -> None:
    """Start one of the domains, whether or not it runs."""
    host.libvirt.virsh("start", chance.choice(host.names), check=False)


def stop(host: Host, chance: random.Random) -> None:
    """End one of the domains, whether or not it runs."""
    host.libvirt.virsh("destroy", chance.choice(host.names), check=False)


def kill_qemu(host: Host, chance: random.Random) -> None:
    """End a QEMU behind libvirt's back."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(host.libvirt.pid(chance.choice(host.names)), signal.SIGKILL)


def kill_hook(host: Host, chance: random.Random) -> None:
    """End a hook in the middle of its work."""
    pids = list(_hooks())
    if pids:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)


def _hooks() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if _HOOK in (entry / "cmdline").read_bytes().split(b"\0"):
                    yield int(entry.name)


def kill_libvirtd(host: Host, chance: random.Random) -> None:
    """End libvirtd and bring it back."""
    with host.daemon:
        host.libvirt.kill()
        host.libvirt.restart()


def restart_libvirtd(host: Host, chance: random.Random) -> None:
    """Restart libvirtd, as an upgrade does."""
    with host.daemon:
        host.libvirt.restart()


def kill_service(host: Host, chance: random.Random) -> None:
    """End the service that answers hooks, and bring it back."""
    host.served.kill()


def edit_policy(host: Host, chance: random.Random) -> None:
    """Change the policy to another good one."""
    set_policy(chance.choice(_GOOD))


def break_policy(host: Host, chance: random.Random) -> None:
    """Break the policy, have a start refused by it, and mend it."""
    set_policy(chance.choice(_BROKEN))
    start(host, chance)
    set_policy(ENFORCING)


def recover(host: Host, chance: random.Random) -> None:
    """Have an admin recover in the middle of it all."""
    run("virt-warden", "recover", check=False)


def look(host: Host, chance: random.Random) -> None:
    """Have an admin look."""
    run("virt-warden", "status", check=False)


def fill_run(host: Host, chance: random.Random) -> None:
    """Start a domain while /run is full."""
    with _full(PATHS.run):
        start(host, chance)


def fill_disk(host: Host, chance: random.Random) -> None:
    """Start a domain while the disk with the journals is full."""
    with _full(PATHS.state):
        start(host, chance)


@contextmanager
def _full(directory: Path) -> Iterator[None]:
    """Both are small file systems of their own here; what stops must be undone in them, too."""
    glutton = directory / ".full"
    handle = os.open(glutton, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with suppress(OSError):
            while os.write(handle, bytes(1 << 16)):
                pass
        yield
    finally:
        os.close(handle)
        glutton.unlink(missing_ok=True)


# How often each is done, out of their sum.
DEEDS: dict[Deed, int] = {
    start: 30,
    stop: 20,
    kill_qemu: 12,
    kill_hook: 12,
    kill_libvirtd: 2,
    kill_service: 4,
    restart_libvirtd: 2,
    edit_policy: 5,
    break_policy: 4,
    recover: 4,
    look: 4,
    fill_run: 3,
    fill_disk: 3,
}
