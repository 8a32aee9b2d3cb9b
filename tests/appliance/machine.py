# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted appliance, as its admin and the one at its power switch see it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.appliance.agent import Agent, Done, LineDeadError, Pending
from tests.appliance.build import Image
from tests.appliance.hardware import Hardware, Machine
from tests.appliance.scratch import scratch
from tests.host.command import CommandFailedError
from tests.host.qemu import Qemu

# Ten times what it takes on two idle cores.
_BOOT_SECONDS = 300
_COMMAND_SECONDS = 300
_CONSOLE_TAIL = 2000
_PANIC = "Kernel panic"


class Host:
    """One appliance; made by `booted`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # What the admin does.

    def run(
        self,
        command: str,
        *,
        check: bool = True,
        stdin: str = "",
        seconds: float = _COMMAND_SECONDS,
    ) -> Done:
        """Have root's bash run a command line.

        Where `check`, an exit that is not 0 raises CommandFailedError, with what it said.
        """
        done = self._agent.begin(command, stdin.encode(), seconds).wait()
        if check and done.exit != 0:
            said = (done.stderr or done.stdout).strip()
            raise CommandFailedError(f"on the appliance, `{command}` exited {done.exit}: {said}")
        return done

    def begin(self, command: str, *, seconds: float = _COMMAND_SECONDS) -> Pending:
        """Start a command line, and go on while it runs."""
        return self._agent.begin(command, b"", seconds)

    def until(self, condition: str, *, seconds: float = _COMMAND_SECONDS) -> None:
        """Wait until a command line exits 0; where there is an event to wait for, use that."""
        self.run(f"until {condition}; do sleep 0.2; done", seconds=seconds)

    def put(self, path: str, content: Path | bytes | str, mode: int = 0o644) -> None:
        """Write a file on the appliance: a copy of one of ours, or this content."""
        data = content.read_bytes() if isinstance(content, Path) else content
        data = data.encode() if isinstance(data, str) else data
        command = f"install -D -m {mode:o} /dev/stdin {shlex.quote(path)}"
        done = self._agent.begin(command, data, _COMMAND_SECONDS).wait()
        if done.exit != 0:
            raise CommandFailedError(f"{path} was not written: {done.stderr}")

    def get(self, path: str) -> bytes:
        """Read a file on the appliance."""
        return self.run(f"cat {shlex.quote(path)}").output

    def define(self, xml: str) -> None:
        """Define a domain, or define it anew."""
        self.run("virsh -q define /dev/stdin", stdin=xml)

    def denials(self) -> list[str]:
        """What AppArmor denied since the boot."""
        found = self.run("journalctl -b -k -o cat --grep 'apparmor=\"DENIED\"'", check=False)
        return found.stdout.splitlines()

    def journal(self, lines: int) -> str:
        """The system journal's last lines, if the host can still tell."""
        try:
            return self.run(f"journalctl -b -q -n {lines}", check=False, seconds=30).stdout
        except (LineDeadError, OSError) as failure:
            return f"none: {failure!r}"

    def has_warden(self) -> bool:
        """Whether virt-warden is installed."""
        return self.run("test -x /usr/sbin/virt-warden", check=False).exit == 0

    # What one does at its power switch and its cables.

    def reboot(self) -> None:
        """Reboot as an admin does, and wait until it is up again."""
        self._go_down("reboot")
        self.power_on()

    def shut_down(self) -> None:
        """Power off as an admin does, and wait until it is off."""
        self._go_down("poweroff")

    def cut_power(self) -> None:
        """Pull the plug: what was not synced to the disk is gone. Harmless when it is off."""
        self._process.kill()
        self._process.communicate()
        self._agent.close()

    def power_on(self) -> None:
        """Switch it on with the disks as they are, and wait until it is up.

        Now and then a kernel panics early in its boot, when it changes its own code while QEMU
        translates that for another of its CPUs: then it is switched on once more.
        """
        for last in (False, False, True):
            try:
                self._power_on()
            except LineDeadError:
                if last or _PANIC not in self.console():
                    raise
            else:
                return

    def _power_on(self) -> None:
        self.machine.agent_address.unlink(missing_ok=True)
        self._process = self.machine.power_on()
        try:
            self._monitor = Qemu(self._process)
            self._agent = Agent(self.machine.agent_address)
            self._await_boot()
        except BaseException as failure:
            self._process.kill()
            self._process.communicate()
            failure.add_note(f"the console's last lines:\n{self.console()}")
            raise

    def pull(self, cable: int, *, up: bool = False) -> None:
        """Pull the plug of the n-th cable out of its NIC, or put it back (`up`)."""
        self._monitor.execute("set_link", name=f"cable{cable}", up=up)

    def console(self) -> str:
        """The last lines of the serial console."""
        if not self.machine.console.exists():
            return ""
        return self.machine.console.read_text(errors="replace")[-_CONSOLE_TAIL:]

    def _go_down(self, how: str) -> None:
        # Not answered: the agent goes down with the host.
        self.begin(f"systemctl {how}")
        # QEMU was told to end at a reset too.
        self._process.wait(_BOOT_SECONDS)
        self.cut_power()

    def _await_boot(self) -> None:
        self._agent.await_boot(_BOOT_SECONDS)
        state = self.run("systemctl is-system-running --wait", check=False).stdout.strip()
        if state != "running":
            failed = self.run("systemctl --failed --plain --no-legend; systemctl list-jobs").stdout
            raise RuntimeError(f"the appliance is {state}: {failed}")
        self.run("virsh version")


@contextmanager
def booted(image: Image, hardware: Hardware | None = None) -> Iterator[Host]:
    """Boot an appliance from an image, which stays as it is; at the end nothing of it is left."""
    with scratch() as directory:
        host = Host(Machine(image, hardware or Hardware(), directory))
        host.power_on()
        try:
            yield host
        finally:
            host.cut_power()
