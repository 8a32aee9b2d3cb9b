# SPDX-License-Identifier: GPL-2.0-or-later
"""Foreign taps: those of VPNs and of other hypervisors; also taps of unguarded domains."""

from __future__ import annotations

from collections.abc import Sequence

from virtwarden.system import taps, users
from virtwarden.system.taps import Holder, Tap

_LIBVIRT = ("libvirtd", "virtqemud")


def foreign_taps(among: Sequence[Tap]) -> list[Tap]:
    """Which of these taps certainly belong to no guarded domain, by the process that has them open.

    A tap that libvirt itself has open is just being made. A tap that no process has open can belong
    to anybody. Neither counts.
    """
    if not among:
        return []  # to look at every process of a host takes time
    holders = taps.holders()
    return [tap for tap in among if _is_foreign(holders.get(tap.name, []))]


def _is_foreign(holders: Sequence[Holder]) -> bool:
    return bool(holders) and not any(
        holder.uid < 0 or holder.program in _LIBVIRT or users.domain_of(holder.uid)
        for holder in holders
    )
