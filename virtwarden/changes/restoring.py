# SPDX-License-Identifier: GPL-2.0-or-later
"""Restores the rules on what VMs send and on who reaches their consoles, by the changes' notes.

Somebody may have flushed them. What nftables does of it is one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum

from virtwarden import gate
from virtwarden.changes import ports, reach
from virtwarden.changes.ports import RestrictPorts
from virtwarden.errors import CommandError
from virtwarden.paths import Paths
from virtwarden.system import files, portfilter
from virtwarden.system import reach as kernel
from virtwarden.system.nft import nft
from virtwarden.system.reach import Limit


class Kind(Enum):
    """The rules that belong together, by what they limit."""

    TAPS = "taps"
    """The gate, and the filters of all taps."""
    REACH = "reach"
    """What QEMU itself sends."""
    CONSOLES = "consoles"
    """Who reaches a console's port."""


@dataclass(frozen=True)
class Restored:
    """How many taps are admitted, users limited, and domains' consoles kept from others."""

    taps: int = 0
    users: int = 0
    consoles: int = 0


@dataclass(frozen=True)
class _Noted:
    limits: tuple[Limit, ...]
    restrictions: tuple[RestrictPorts, ...]


def restore(paths: Paths) -> Restored:
    """Restore all. Raises CommandError."""
    if not _is_anything_noted(paths):
        return Restored()
    with _held(paths) as noted:
        return _restore(paths, noted, tuple(Kind))


def shut_if_gone(paths: Paths) -> bool:
    """Shut out all taps where somebody removed the gate; gives whether somebody did.

    Raises CommandError.
    """
    if not gate.is_up(paths):
        return False
    with files.locked(paths.filters):
        return gate.shut_if_gone(paths)


def restore_missing(
    paths: Paths,
    kinds: Collection[Kind],
    closely: Collection[str] = (),
    *,
    is_gate_gone: bool = False,
) -> dict[Kind, str]:
    """Restore those of these kinds of which the kernel lacks anything. Gives what it lacks.

    Of the consoles it looks `closely` only at those of these domains. With `is_gate_gone` somebody
    removed the gate, and `shut_if_gone` has found that out. Raises CommandError.
    """
    if not _is_anything_noted(paths):
        return {}
    with _held(paths) as noted:
        is_gone = Kind.TAPS in kinds and (gate.shut_if_gone(paths) or is_gate_gone)
        looks = {
            Kind.TAPS: lambda: "the gate is down" if is_gone else gate.amiss(paths),
            Kind.REACH: lambda: kernel.first_missing(noted.limits),
            Kind.CONSOLES: lambda: _missing_ports(noted.restrictions, closely),
        }
        lost = {kind: looks[kind]() for kind in Kind if kind in kinds}
        lost = {kind: missing for kind, missing in lost.items() if missing}
        if lost:
            _restore(paths, noted, lost)
        return lost


def _is_anything_noted(paths: Paths) -> bool:
    """Whether any domain was guarded since the boot."""
    return any(each.exists() for each in (paths.reach, paths.ports, paths.filters))


@contextmanager
def _held(paths: Paths) -> Iterator[_Noted]:
    """All notes, while nobody else changes them or the rules."""
    with ExitStack() as locks:
        for directory in (paths.reach, paths.ports, paths.filters):
            locks.enter_context(files.locked(directory))
        yield _Noted(tuple(reach.every(paths)), tuple(ports.every(paths)))


def _restore(paths: Paths, noted: _Noted, kinds: Iterable[Kind]) -> Restored:
    limits = noted.limits if Kind.REACH in kinds else ()
    restrictions = noted.restrictions if Kind.CONSOLES in kinds else ()
    of_nft = [each for each in restrictions if each.backend == portfilter.NFTABLES.name]
    words = kernel.words_for(limits) if limits else ""
    words += "".join(portfilter.NFTABLES.render(each.promise) for each in of_nft)
    taps = _raise_again(paths, words) if Kind.TAPS in kinds else 0
    if words and Kind.TAPS not in kinds:
        nft(words)
    for each in restrictions:
        if each not in of_nft:
            portfilter.BACKENDS[each.backend].install(each.promise)
    return Restored(taps, len(limits), len(restrictions))


def _raise_again(paths: Paths, words: str) -> int:
    """Raise the gate again, with these words if the kernel takes them, and else without them."""
    try:
        return gate.raise_again(paths, words)
    except CommandError:
        taps = gate.raise_again(paths)
        if words:
            nft(words)
        return taps


def _missing_ports(restrictions: Iterable[RestrictPorts], closely: Collection[str]) -> str:
    for name, backend in portfilter.BACKENDS.items():
        ours = [each for each in restrictions if each.backend == name]
        lost = backend.gone([each.domain for each in ours]) if ours else ""
        looks = (backend.missing(each.promise) for each in ours if each.domain in closely)
        if lost or (lost := next(filter(None, looks), "")):
            return lost
    return ""
