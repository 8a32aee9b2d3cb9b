"""Taps that are no guarded domain's: those of other domains, of VPNs, of other hypervisors."""

from __future__ import annotations

from collections.abc import Sequence

from virtwarden.system import taps, users
from virtwarden.system.taps import Holder, Tap

_LIBVIRT = ("libvirtd", "virtqemud")


def foreign_taps(among: Sequence[Tap]) -> list[Tap]:
    """Which of these taps are certainly no guarded domain's, by who has them open.

    One that libvirt itself holds is in the making, and one that nobody holds can be anybody's.
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
