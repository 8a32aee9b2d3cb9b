# SPDX-License-Identifier: GPL-2.0-or-later
"""The filters of system calls: with seccomp(2), QEMU makes only the calls that its domain needs."""

from __future__ import annotations

import _ctypes
import posix as os

from kernel import failure, in_memory, packed, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argv import Option
    from ticket import Ticket

# The kernel's words: <linux/seccomp.h>, <linux/filter.h>
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_LOG = 2
INSTRUCTION_SIZE = 8
# libvirt's words.
OF_QEMU = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def insist_on_filter(options: list[Option]) -> list[str]:
    """The words that have QEMU set a filter of its own, where libvirt did not ask for it."""
    return [] if any(option.name == "sandbox" for option in options) else ["-sandbox", OF_QEMU]


def without_off(ticket: Ticket, options: list[Option]) -> list[Option]:
    """The options without `-sandbox off`, which libvirt writes for seccomp_sandbox = 0.

    That is qemu.conf's word for all VMs. The policy's for this one is system_calls.
    """
    switched_off = [option for option in options if option.words == ["-sandbox", "off"]]
    if not switched_off or ticket["passthrough"]:
        return options
    os.write(
        2,
        b"virt-warden: QEMU filters its system calls: seccomp_sandbox = 0 in /etc/libvirt/qemu.conf"
        b" does not hold for a VM of virt-warden's\n",
    )
    return [option for option in options if option not in switched_off]


def limit_calls(ticket: Ticket, options: list[Option]) -> None:
    """From here on this process, and the QEMU that it becomes, makes only calls that are allowed.

    The filters were compiled with the ticket, and come in its order. They allow what is left to do
    here: to look at QEMU and execute it.
    """
    wanted = ticket["system_calls"]
    if wanted is None:
        return
    takes_in = any(option.name == "incoming" for option in options)
    for each in wanted["filters"]:
        if each["incoming"] or not takes_in:
            flags = SECCOMP_FILTER_FLAG_LOG if each["log"] else 0
            set_filter(wanted["call"], flags, bytes.fromhex(each["code"]))


def set_filter(call: int, flags: int, code: bytes) -> None:
    kept = in_memory(code)
    # struct sock_fprog: how many instructions and, after the padding, where they are.
    program = packed(2, len(code) // INSTRUCTION_SIZE, 0, 0, 0)
    program += packed(8, _ctypes.addressof(kept))
    if syscall(call, SECCOMP_SET_MODE_FILTER, flags, program) != 0:
        raise failure("seccomp")
