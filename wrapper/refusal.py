# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a guest may not start, said in one line."""

from __future__ import annotations

import posix as os

LEAVE = "'virt-warden unenrol {name}' to run it without virt-warden"
AGAIN = "start {name} once more through libvirt, or " + LEAVE
ENROL = "'virt-warden enrol {name}' if the policy manages it, or " + LEAVE
HOOK = "'virt-warden package configure' puts its hook in place; " + ENROL
LESS = (
    "it was not enrolled; to attach disks and to make snapshots and screenshots works from its next"
    " start on, and fails until then (Permission denied)"
)
RESTART = "once it is enrolled, stop {name} and start it"
EDIT = "'virsh edit {name}' (or the file that it is created from)"
XML = (
    EDIT + ": remove it from <qemu:commandline>; or allow it in the policy, by"
    ' exceptions = ["qemu-commandline"] under a [[domain]] for {name}'
)


class Refusal(Exception):
    """Why this guest may not start, and the fix ({name} stands for the domain's)."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


def say(name: str, verb: str, what: object, fix: str) -> None:
    """Print one line on stderr, which libvirt shows in the error of `virsh start`."""
    line = f"virt-warden {verb} {name}: {str(what)[:400]}; fix: {fix.format(name=name)}"
    printable = "".join(char if char.isprintable() else "?" for char in line)
    os.write(2, f"{printable}\n".encode(errors="backslashreplace"))
