# SPDX-License-Identifier: GPL-2.0-or-later
"""Foreign taps: those of VPNs and of other hypervisors; also taps of unguarded domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from virtwarden.gate.emulators import emulators
from virtwarden.system import taps, users
from virtwarden.system.tapholders import LIBVIRT, Holder, holders
from virtwarden.system.taps import Tap


def foreign_taps(among: Sequence[Tap], libvirt_run: Path) -> list[Tap]:
    """Which of these taps certainly belong to no guarded domain, by the processes that have them.

    That is one program of root's or more, or the QEMU of an unmanaged domain. Any other user's can
    be a user who took a VM's tap. A tap that libvirt itself has open is just being made. A tap that
    no process has open can belong to anybody, and so can one with a queue that no process shows, or
    one that other users may join. None of these counts. An unmanaged domain's tap is made root's,
    so that nobody joins it.
    """
    if not among:
        return []  # to look at every process of a host takes time
    found, given = holders(), emulators(libvirt_run)
    return [tap for tap in among if _is_foreign(tap, found.get(tap.name, []), given)]


def _is_foreign(tap: Tap, at_it: Sequence[Holder], given: Mapping[str, int]) -> bool:
    pids = {holder.pid for holder in at_it}
    if pids == {given.get(tap.name)}:
        is_known = not any(users.domain_of(holder.uid) for holder in at_it)
        is_known = is_known and _is_kept_for_root(tap)
    else:
        is_known = all(holder.uid == 0 and holder.program not in LIBVIRT for holder in at_it)
    return bool(pids) and is_known and _is_all_shown(tap, at_it)


def _is_kept_for_root(tap: Tap) -> bool:
    try:
        taps.keep_for_root(tap.name)
    except OSError:
        return False
    return True


def _is_all_shown(tap: Tap, at_it: Sequence[Holder]) -> bool:
    """Whether these processes have all of a tap's queues, and nobody but root can add one."""
    now = taps.standing(tap)
    return (
        now is not None
        and now.is_roots
        and now.queues <= sum(holder.descriptors for holder in at_it)
    )
