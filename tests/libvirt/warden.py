# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden as its admin sees it: policy, command, domains."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host.command import run
from tests.host.domain import domain_xml
from tests.host.libvirt import Libvirt
from virtwarden.cli.main import main
from virtwarden.paths import Paths
from virtwarden.system import process, users

POLICY = Path("/etc/virt-warden/policy.toml")
ENFORCING = 'managed = ["*"]\n'
LEFT_ALONE = "managed = []\n"
PATHS = Paths()
_PATIENCE_SECONDS = 20
_BETWEEN_LOOKS_SECONDS = 0.01


def set_policy(text: str) -> None:
    """Write the policy, as an editor does: a new file in the old one's place."""
    new = POLICY.with_suffix(".new")
    new.write_text(text)
    new.replace(POLICY)


@dataclass(frozen=True)
class Warden:
    """The host's virt-warden and its libvirt."""

    libvirt: Libvirt

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `virt-warden`."""
        return run("/usr/sbin/virt-warden", *arguments, check=check)

    def enrolled(self, name: str, **parts: Any) -> str:
        """Define a domain and enrol it."""
        self.libvirt.define(domain_xml(name, **parts))
        said = _said("enrol", name)
        assert "is enrolled" in said, said
        return name

    def started(self, name: str, **parts: Any) -> process.Process:
        """Define, enrol and start a domain; its QEMU."""
        self.enrolled(name, **parts)
        self.libvirt.start(name)
        return self.qemu(name)

    def qemu(self, name: str) -> process.Process:
        """The QEMU of a running domain, as the kernel sees it."""
        return process.read(self.libvirt.pid(name))

    def kill(self, name: str) -> None:
        """End a running domain's QEMU by SIGKILL; its release may still be to come."""
        kill(self.libvirt.pid(name))

    def await_release(self, uuid: str) -> None:
        """Wait until all that was done for a domain's last run is undone."""
        until(lambda: not (PATHS.domain_state(uuid) / "run.journal").exists())

    def refusal(self, name: str) -> str:
        """Start a domain that is refused; what the admin reads."""
        done = self.libvirt.virsh("start", name, check=False)
        assert done.returncode != 0, "the start was not refused"
        _, found, line = done.stderr.partition("virt-warden refuses ")
        assert found, done.stderr
        return line.strip()

    def status(self, name: str) -> dict[str, Any]:
        """A domain's standing."""
        (standing,) = json.loads(_said("status", "--json", name))
        return dict(standing)

    def vnc_port(self, name: str) -> int:
        """The TCP port of a running domain's console."""
        return 5900 + int(self.libvirt.virsh("vncdisplay", name).stdout.strip().split(":")[-1])

    def overlay(self, name: str, file: Path) -> None:
        """Give the disk vda of a running domain an overlay, as a backup by snapshot does."""
        disk = f"vda,snapshot=external,file={file}"
        options = ("--disk-only", "--no-metadata", "--diskspec", disk)
        self.libvirt.virsh("snapshot-create-as", name, "s1", *options)

    def set_password(self, name: str, password: str) -> None:
        """Give a running console a password, as an admin would."""
        command = json.dumps(
            {"execute": "set_password", "arguments": {"protocol": "vnc", "password": password}}
        )
        self.libvirt.virsh("qemu-monitor-command", name, command)


def _said(*arguments: str) -> str:
    """What `virt-warden` prints, without the 0.1 s in which another Python starts."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        main([*arguments])
    return said.getvalue()


@contextmanager
def damaged_authority() -> Iterator[None]:
    """The consoles' authority cannot sign."""
    directory, kept = PATHS.console_ca, PATHS.console_ca.with_name("kept")
    was_there = directory.exists()
    if was_there:
        directory.rename(kept)
    directory.mkdir(mode=0o700, parents=True)
    (directory / "ca-cert.pem").write_text("damaged")
    try:
        yield
    finally:
        shutil.rmtree(directory)
        if was_there:
            kept.rename(directory)


def kill(pid: int) -> None:
    """End a process, anybody's child, by SIGKILL, and wait for its end."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], _PATIENCE_SECONDS)[0], "it does not end"
    finally:
        os.close(handle)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(_BETWEEN_LOOKS_SECONDS)


def owner(path: Path) -> str:
    """A file's uid, gid and mode."""
    found = path.stat()
    return f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o}"


def as_user(name: str, act: Callable[[], object]) -> str:
    """Do something as a VM's user, with all that its QEMU has; how it failed, or nothing."""
    account = users.account(name)
    assert account is not None, f"there is no user {name}"
    groups = users.groups_of(account)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            act()
        except OSError as error:
            os.write(writer, type(error).__name__.encode())
        except BaseException as error:  # noqa: BLE001 - the child must not go on as a test
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        os.waitpid(child, 0)
        return pipe.read()
