# SPDX-License-Identifier: GPL-2.0-or-later
"""Which firewall tools have worked since the boot: to try one at each start would take 10 ms.

A change that laid rules with a tool notes that it works. The note counts for that very program.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files, netfilter, nft, portfilter

_TAP_TOOLS = {"nftables": Path(nft.NFT), "ebtables": Path(netfilter.EBTABLES_RESTORE)}
_PORT_TOOLS = {"nftables": Path(nft.NFT), "iptables": Path(portfilter.IPTABLES)}


def has_filtered_taps(paths: Paths, backend: str) -> bool:
    """Whether this backend, as it is installed now, has filtered a tap since the boot."""
    return _is_noted(paths.run / f"{backend}-works", _TAP_TOOLS[backend])


def note_filtered_taps(paths: Paths, backend: str) -> None:
    """Note that it has; a note that cannot be written costs time and nothing else."""
    _note(paths.run / f"{backend}-works", _TAP_TOOLS[backend])


def has_limited_ports(paths: Paths, backend: str) -> bool:
    """Whether this backend, as it is installed now, has limited a port since the boot."""
    return _is_noted(paths.run / f"{backend}-limits-ports", _PORT_TOOLS[backend])


def note_limited_ports(paths: Paths, backend: str) -> None:
    """Note that it has; a note that cannot be written costs time and nothing else."""
    _note(paths.run / f"{backend}-limits-ports", _PORT_TOOLS[backend])


def has_limited_reach(paths: Paths) -> bool:
    """Whether nftables, as it is installed now, has limited what a user sends since the boot."""
    return _is_noted(paths.run / "nftables-limits-reach", Path(nft.NFT))


def note_limited_reach(paths: Paths) -> None:
    """Note that it has; a note that cannot be written costs time and nothing else."""
    _note(paths.run / "nftables-limits-reach", Path(nft.NFT))


def _is_noted(note: Path, program: Path) -> bool:
    version = files.version_of(program)
    return bool(version) and files.read_if_there(note) == version


def _note(note: Path, program: Path) -> None:
    if _is_noted(note, program):
        return
    with suppress(OSError):
        files.passable_directory(note.parent)
        files.write_atomically(note, files.version_of(program).encode(), 0o600)
