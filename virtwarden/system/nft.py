# SPDX-License-Identifier: GPL-2.0-or-later
"""nftables, with nft's own library (libnftables(3)): it takes nft's words and needs no process."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from virtwarden.errors import CommandError

# linux/netlink.h
_NETLINK_NETFILTER = 12

NFT = "/usr/sbin/nft"
"""The program, with which admins see what is done here."""


def nft(words: str, *, check: bool = False, numeric: bool = False, stateless: bool = False) -> str:
    """What nft(8) prints for these words. All that they alter is one transaction.

    With `check` they alter nothing (nft --check). With `numeric` nft prints numbers, not names
    (nft --numeric), with `stateless` no counts (nft --stateless). Raises CommandError where nft or
    the kernel refuses.
    """
    library = _library()
    library.set_dry_run(check)
    library.set_stateless_output(stateless)
    for set_numeric in (
        library.set_numeric_prio_output,
        library.set_numeric_proto_output,
        library.set_numeric_symbol_output,
        library.set_numeric_time_output,
    ):
        set_numeric(numeric)
    code, printed, said = library.cmd(words)
    if code != 0:
        raise _error(code, str(said))
    return str(printed)


class _Own(threading.local):
    """The library of one thread: its socket talks to the network namespace of that thread."""

    process = 0
    library: Any = None


_own = _Own()


def _library() -> Any:
    """The library, with a socket to the kernel that no other process or thread uses.

    It has no stale listing: it asks the kernel each time. Raises CommandError.
    """
    if _own.process != os.getpid():
        _own.library, _own.process = _new_library(), os.getpid()
    return _own.library


def _new_library() -> Any:
    try:
        import nftables  # 6 ms, only for a hook that lays rules
    except ImportError as error:
        fix = "apt install python3-nftables"
        raise CommandError(f"nftables: {error}", code=1, said=str(error), fix=fix) from None

    _try_netlink()
    return nftables.Nftables()


def blocks(listed: str) -> dict[str, list[str]]:
    """The lines of each block in nft's listing of a table, by the block's kind and name.

    A table that somebody made dormant has none that counts.
    """
    found: dict[str, list[str]] = {}
    for line in (line.strip() for line in listed.splitlines()):
        if not found and line.startswith("flags ") and "dormant" in line:
            return {}
        if line.startswith(("chain ", "set ")):
            lines = found[line.removesuffix(" {")] = []
        elif found and line not in ("", "}"):
            lines.append(line)
    return found


def accepts(words: str) -> bool:
    """Whether nft(8) is installed, and nft and the kernel accept these words; alters nothing."""
    if not Path(NFT).exists():
        return False
    try:
        nft(words, check=True)
    except CommandError:
        return False
    return True


def _try_netlink() -> None:
    """Check that a netlink socket can be made: without one the library ends the process.

    Raises CommandError where it cannot.
    """
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError as error:
        said = f"the kernel does not talk about nftables: {error.strerror}"
        raise CommandError(said, code=1, said=said, fix="modprobe nfnetlink") from None


def _error(code: int, said: str) -> CommandError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = lines[0] if lines else "it said nothing"
    at = f" ({lines[1]})" if len(lines) > 1 else ""
    return CommandError(
        f"nft: {reason}{at}",
        code=code,
        said=reason,
        fix="see what is there: nft list ruleset",
    )
