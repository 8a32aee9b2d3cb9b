# SPDX-License-Identifier: GPL-2.0-or-later
"""Raises the gate with all filters, and raises it again after somebody flushed the rules."""

from __future__ import annotations

from contextlib import suppress

from virtwarden.gate import counting, notes
from virtwarden.gate.foreign import foreign_taps
from virtwarden.gate.unguarded import unwritten
from virtwarden.paths import Paths
from virtwarden.system import nftlink
from virtwarden.system.netfilter import BACKENDS, Gate, TapFilter
from virtwarden.system.nft import nft


def together(
    gate: Gate, filters: dict[str, list[TapFilter]], also: str, *, anew: bool = False
) -> None:
    """Filters first: if the gate has another backend, no tap is admitted before its filter."""
    put = {name: each.renew if anew else each.install for name, each in BACKENDS.items()}
    for backend, promises in filters.items():
        if backend != gate.name and promises:
            put[backend](promises)
    if filters.get(gate.name):
        put[gate.name](filters[gate.name], also)
    else:
        gate.perform(also)


def raise_all(paths: Paths, gate: Gate, *, anew: bool = False, also: str = "") -> int:
    """Install all that the notes say; with `anew`, replace what is there already.

    `also` is in the gate's words, and in the same transaction as the gate.
    """
    written = notes.present(paths)
    filters: dict[str, list[TapFilter]] = {}
    for each in written:
        filters.setdefault(each.backend, []).append(each.filter)
    admitted = [each.tap for each in written]
    admitted += foreign_taps(unwritten(written), paths.libvirt_run)
    raising = gate.raising(admitted, notes.foreign_names(paths))
    together(gate, filters, raising + also, anew=anew)
    return len(admitted)


def raise_again(paths: Paths, also: str = "") -> int:
    """Restore the gate and all filters from the notes, and do `also`, words of nft's.

    Gives the number of admitted taps. The caller holds the lock of `paths.filters`.
    """
    gate = notes.current_gate(paths)
    if gate is not None:
        counting.record(paths, notes.present(paths))
        if gate.name == "nftables":
            return raise_all(paths, gate, anew=True, also=also)
    count = raise_all(paths, gate, anew=True) if gate is not None else 0
    if also:
        nft(also)
    return count


def shut_if_gone(paths: Paths) -> bool:
    """Shut out all taps where somebody removed the gate; gives whether somebody did.

    That takes a moment, however many taps there are; nothing forged passes while their filters are
    restored. An ebtables gate cannot be shut so fast. The caller holds the lock of `paths.filters`.
    """
    gate = notes.current_gate(paths)
    if gate is None or not gate.table:
        return False
    with suppress(OSError):
        if gate.table not in nftlink.tables(nftlink.BRIDGE):
            gate.perform(gate.raising([], notes.foreign_names(paths)))
            return True
    return False


def amiss(paths: Paths) -> str:
    """What the kernel lacks of the gate or of any noted filter; empty where nothing.

    The caller holds the lock of `paths.filters`.
    """
    gate = notes.current_gate(paths)
    if gate is None:
        return ""
    written = notes.present(paths)
    waiting = gate.shut_out([each.tap for each in written])
    if waiting is None:
        return "the gate is down"
    if waiting:
        return f"tap {waiting[0]} is shut out by the gate"
    filters = {name: [e.filter for e in written if e.backend == name] for name in BACKENDS}
    return next(filter(None, (BACKENDS[n].first_missing(f) for n, f in filters.items() if f)), "")
