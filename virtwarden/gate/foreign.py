# SPDX-License-Identifier: GPL-2.0-or-later
"""Foreign taps: those of VPNs and of other hypervisors; also taps of unguarded domains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from virtwarden.system import taps, users
from virtwarden.system.taps import Holder, Tap

_LIBVIRT = ("libvirtd", "virtqemud")
_PID = re.compile(r"<domstatus [^>]*\bpid='(\d+)'")
_TAP = re.compile(r"<target dev='([^']+)'")


def foreign_taps(among: Sequence[Tap], libvirt_run: Path) -> list[Tap]:
    """Which of these taps certainly belong to no guarded domain, by the process that has them open.

    That is a program of root's, or the QEMU of an unmanaged domain. Any other user's can be a user
    who took a VM's tap. A tap that libvirt itself has open is just being made. A tap that no
    process has open can belong to anybody. None of these counts.
    """
    if not among:
        return []  # to look at every process of a host takes time
    holders = taps.holders()
    emulators = _emulators(libvirt_run)
    return [
        tap
        for tap in among
        if _is_foreign(holders.get(tap.name, []), emulators.get(tap.name, frozenset()))
    ]


def _is_foreign(holders: Sequence[Holder], emulators: frozenset[int]) -> bool:
    return bool(holders) and all(
        holder.program not in _LIBVIRT
        and (holder.uid == 0 or (holder.pid in emulators and not users.domain_of(holder.uid)))
        for holder in holders
    )


def _emulators(libvirt_run: Path) -> dict[str, frozenset[int]]:
    """The processes of libvirt's running domains by the taps that libvirt gave them.

    libvirt writes its domains' state there, which only root can read or write.
    """
    found: dict[str, frozenset[int]] = {}
    for file in libvirt_run.glob("*.xml"):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        pid = _PID.search(text)
        for tap in _TAP.findall(text) if pid else ():
            found[tap] = found.get(tap, frozenset()) | {int(pid[1])}  # type: ignore[index]
    return found
