# SPDX-License-Identifier: GPL-2.0-or-later
"""nftables, by nft's own library: it takes nft's words, and costs no process (libnftables(3))."""

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


def nft(words: str, *, check: bool = False, numeric: bool = False) -> str:
    """What nft(8) prints for these words; what they alter is one transaction.

    With `check` nothing is altered (nft --check), with `numeric` nothing is named (nft --numeric).
    Raises CommandError where nft or the kernel will not.
    """
    library = _library()
    library.set_dry_run(check)
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
    """What one thread of one process has: its socket talks to that thread's network namespace."""

    process = 0
    library: Any = None


_own = _Own()


def _library() -> Any:
    """The library, with a socket to the kernel that no other process and no other thread has.

    What it lists it asks the kernel for each time, however long it is there. Raises CommandError.
    """
    if _own.process != os.getpid():
        _own.library, _own.process = _new_library(), os.getpid()
    return _own.library


def _new_library() -> Any:
    try:
        import nftables  # 6 ms, which a hook that has no rules to lay does not pay
    except ImportError as error:
        fix = "apt install python3-nftables"
        raise CommandError(f"nftables: {error}", code=1, said=str(error), fix=fix) from None

    _try_netlink()
    return nftables.Nftables()


def blocks(listed: str) -> dict[str, list[str]]:
    """What nft listed of a table: the lines of each block, under its kind and its name."""
    found: dict[str, list[str]] = {}
    for line in (line.strip() for line in listed.splitlines()):
        if line.startswith(("chain ", "set ")):
            lines = found[line.removesuffix(" {")] = []
        elif found and line not in ("", "}"):
            lines.append(line)
    return found


def accepts(words: str) -> bool:
    """Whether nft(8) is here, and it and the kernel would do this; nothing is altered."""
    if not Path(NFT).exists():
        return False
    try:
        nft(words, check=True)
    except CommandError:
        return False
    return True


def _try_netlink() -> None:
    """Where it gets no socket, the library does not fail, but ends the process."""
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
