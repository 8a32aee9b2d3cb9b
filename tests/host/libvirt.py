# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of our own, with the virtlogd that it needs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.host.command import run
from tests.host.namespace import require_private_host

_RUN = Path("/run/libvirt")
_LOGS = Path("/var/log/libvirt")
# No mount namespace for QEMU: libvirt would make one out of /dev, which is a small one here.
# No AppArmor: a profile's name knows of no overlay. DAC is always on.
_QEMU_CONF = """\
namespaces = []
security_driver = "none"
"""
_START_SECONDS = 20
_STOP_SECONDS = 10
_BETWEEN_ATTEMPTS_SECONDS = 0.005


class _Daemon:
    """A libvirt daemon in the foreground."""

    def __init__(self, name: str, listens_at: Path) -> None:
        self._program = Path("/usr/sbin") / name
        self._socket = listens_at
        self._log = _LOGS / f"{name}.stderr"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # As packaging/libvirt-path.conf has it, which systemd would read.
        path = f"/usr/lib/virt-warden/bin:{os.environ['PATH']}"
        environment = {"PATH": path, "LC_ALL": "C.UTF-8"}
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the test, which then stops the daemon itself.
            self._process = subprocess.Popen(
                [self._program, *options],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_listening(self._process)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # libvirt 11.3 waits for a thread of its node devices at times, which nobody wakes.
                # systemd would kill it as well (TimeoutStopSec).
                self._process.kill()
                self._process.wait()
            finally:
                self._process = None

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(str(self._socket)) == 0:
                    return
            time.sleep(_BETWEEN_ATTEMPTS_SECONDS)
        self.end(signal.SIGKILL)
        raise RuntimeError(f"{self._program} does not listen:\n{self._log.read_text()}")


class Libvirt:
    """What a test asks of libvirt, and of the machine about libvirt's domains."""

    def __init__(self, daemon: _Daemon) -> None:
        self._daemon = daemon

    def virsh(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run virsh; where `check`, a failure raises CommandFailedError with what it said."""
        return run("virsh", "-q", "-c", "qemu:///system", *arguments, check=check, stdin=stdin)

    def define(self, xml: str) -> None:
        """Define a domain, or define it anew."""
        self.virsh("define", "/dev/stdin", stdin=xml)

    def start(self, name: str) -> None:
        """Start a defined domain."""
        self.virsh("start", name)

    def destroy(self, name: str) -> None:
        """End a running domain."""
        self.virsh("destroy", name)

    def undefine(self, name: str) -> None:
        """Forget a domain that does not run, and all that libvirt keeps of it."""
        kept = ("--managed-save", "--snapshots-metadata", "--checkpoints-metadata")
        self.virsh("undefine", name, "--nvram", *kept)

    def xml(self, name: str, *options: str) -> str:
        """The domain's XML, the running one's if it runs (`--inactive`: what is stored)."""
        return self.virsh("dumpxml", name, *options).stdout

    def pid(self, name: str) -> int:
        """The process of a running domain."""
        return int((_RUN / "qemu" / f"{name}.pid").read_text())

    def log(self, name: str) -> str:
        """QEMU's command lines and messages, of every run so far."""
        return (_LOGS / "qemu" / f"{name}.log").read_text()

    def send(self, number: signal.Signals) -> None:
        """Send libvirtd a signal, such as the one that stops it as if it hung."""
        self._daemon.send(number)

    def kill(self) -> None:
        """End libvirtd by SIGKILL; the domains go on, and restart() brings it back."""
        self._daemon.end(signal.SIGKILL)

    def stop(self) -> None:
        """End libvirtd in order; the domains go on, and restart() brings it back."""
        self._daemon.end()

    def has_saved_memory(self, name: str) -> bool:
        """Whether the domain's next start goes on from what `managedsave` wrote."""
        saved = self.virsh("list", "--inactive", "--with-managed-save", "--name").stdout
        return name in saved.split()

    def restart(self, *options: str) -> None:
        """Stop libvirtd, if it runs, and start it with these options; the domains go on.

        It knows all of them again at the end: one that is destroyed while libvirtd still
        comes back to it is at times lost to it first, and the destroy fails.
        """
        self._daemon.end()
        self._daemon.start(*options)
        for uuid in self.virsh("list", "--uuid").stdout.split():
            # A question to QEMU waits for the job that the return to a domain is.
            self.virsh("iothreadinfo", uuid, check=False)

    def remove_domains(self) -> None:
        """Destroy and undefine every domain, with libvirtd brought back first if need be."""
        if not self._daemon.running:
            self.restart()
        running = self.virsh("list", "--uuid").stdout.split()
        # At once, since libvirt waits 0.2 s for each to end.
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(self.destroy, running))
        for uuid in self.virsh("list", "--uuid", "--inactive").stdout.split():
            self.undefine(uuid)


@contextmanager
def libvirtd() -> Iterator[Libvirt]:
    """Run virtlogd and libvirtd; at the end no domain of theirs is left."""
    require_private_host()
    Path("/etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
    virtlogd = _Daemon("virtlogd", _RUN / "virtlogd-sock")
    daemon = _Daemon("libvirtd", _RUN / "libvirt-sock")
    libvirt = Libvirt(daemon)
    try:
        virtlogd.start()
        libvirt.restart()
        try:
            yield libvirt
        finally:
            libvirt.remove_domains()
    finally:
        daemon.end()
        virtlogd.end()
