# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM with a real Linux in it, which does what is typed at its serial console."""

from __future__ import annotations

import shlex
from typing import Any

from tests.appliance.agent import Done
from tests.appliance.machine import Host
from tests.appliance.vm import Vm, defined
from tests.host.domain import domain_xml

# As image/guest lays them out. Emulated inside what is emulated, each step of the boot counts.
_KERNEL, _INITRD = "/srv/guest/vmlinuz", "/srv/guest/initrd"
_KERNEL_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr init_on_alloc=0 apparmor=0"
    " cryptomgr.notests no_timer_check"
)
_MEMORY_MIB = 128
_BOOT_SECONDS = 600
_LOGS = "/var/log/libvirt/qemu"

# Run on the appliance: one line to the guest, and what comes back until it has ended.
_TYPE = r"""
import os, re, sys, tty
console = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(console)
os.write(console, sys.argv[2].encode() + b"\n")
heard = b""
while not (end := re.search(rb"guest-exit (\d+)\r?\n", heard)):
    heard += os.read(console, 4096)
sys.stdout.write(heard[: end.start()].decode(errors="replace"))
sys.exit(int(end[1]))
"""


def booted(host: Host, name: str, **parts: Any) -> Vm:
    """Define and start a Linux guest, and wait until its first process is there."""
    log = f"{_LOGS}/{name}-serial.log"
    serial = f"<serial type='pty'><log file='{log}' append='off'/></serial>"
    xml = domain_xml(
        name,
        kernel=_KERNEL,
        initrd=_INITRD,
        memory_mib=_MEMORY_MIB,
        extra_devices=serial,
        **parts,
    ).replace("</initrd>", f"</initrd><cmdline>{_KERNEL_LINE}</cmdline>")
    vm = defined(host, name, xml=xml).start()
    host.until(f"grep -q guest-is-up {log}", seconds=_BOOT_SECONDS)
    return vm


def typed(vm: Vm, command: str) -> Done:
    """Type a line at the guest's console; how it ended there."""
    console = vm.virsh("ttyconsole")
    line = f"python3 - {shlex.quote(console)} {shlex.quote(command)}"
    return vm.host.run(line, check=False, stdin=_TYPE)
