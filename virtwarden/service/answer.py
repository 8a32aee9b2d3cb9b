# SPDX-License-Identifier: GPL-2.0-or-later
"""One call of the hook, answered; ask.py is the hook's side, wire.py how they speak."""

from __future__ import annotations

import io
import socket
from contextlib import suppress

from virtwarden import hook
from virtwarden.paths import Paths
from virtwarden.service import wire
from virtwarden.service.turns import Turns

# For each part; a hook that was stopped in the middle is not waited for for ever.
_PART_SECONDS = 10
# With which of libvirt's calls a start begins, and with which it has ended, well or not.
_BEGINNING, _ENDS = "prepare", ("started", "stopped", "release")


def answer(connection: socket.socket, paths: Paths, turns: Turns) -> None:
    """Read a call, offer to act, and act where the offer is taken; else do nothing."""
    try:
        arguments, untrusted_xml = _call(connection)
    except (OSError, EOFError, ValueError):
        return  # it hung up, did not go on, or is not one of ours: it knows that we do not act
    name, op = (*arguments, "", "")[:2]
    stdout, stderr = io.BytesIO(), io.StringIO()

    def reply(code: int = 0) -> None:
        if op in _ENDS or code != 0:
            turns.end(name)
        said = stderr.getvalue().encode(errors="backslashreplace")
        # It died: libvirt knows, and has the rest undone. Or it was dismissed before.
        with suppress(OSError):
            wire.send(connection, b"%d" % code, stdout.getvalue(), said)
            connection.shutdown(socket.SHUT_RDWR)

    def is_wanted() -> bool:
        if op == _BEGINNING:
            turns.take(name)
        return _still_waits(connection)

    reply(hook.main(arguments, io.BytesIO(untrusted_xml), stdout, stderr, paths, is_wanted, reply))


def _call(connection: socket.socket) -> tuple[list[str], bytes]:
    """The call's arguments and XML, once the hook took our offer to act on them."""
    connection.settimeout(_PART_SECONDS)
    if wire.receive(connection) != wire.VERSION:
        raise ValueError("the hook is of another version than the service")
    arguments = wire.receive(connection).decode(errors="surrogateescape").split("\0")
    untrusted_xml = wire.receive(connection)
    wire.send(connection, wire.OFFER)
    if wire.receive(connection) != wire.TAKE:
        raise ValueError("the hook does not accept the offer")
    connection.settimeout(None)
    return arguments, untrusted_xml


def _still_waits(connection: socket.socket) -> bool:
    """Whether the hook is there: it sends nothing any more, so all that can come is its end."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
