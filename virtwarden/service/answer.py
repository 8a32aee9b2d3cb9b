# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers one call of the hook. ask.py is the hook's side, and wire.py is the protocol."""

from __future__ import annotations

import io
import socket
from contextlib import suppress

from virtwarden import hook
from virtwarden.paths import Paths
from virtwarden.service import wire
from virtwarden.service.turns import Turns

# For each part, so that a hook that stopped in the middle does not hold the worker for ever.
_PART_SECONDS = 10
# The call of libvirt's that begins a start, and those that end it, whether it succeeded or not.
_BEGINNING, _ENDS = "prepare", ("started", "stopped", "release")


def answer(connection: socket.socket, paths: Paths, turns: Turns) -> None:
    """Read a call, offer to act, and act if the hook takes the offer; do nothing otherwise."""
    try:
        arguments, untrusted_xml = _call(connection)
    except (OSError, EOFError, ValueError):
        return  # it hung up, stalled, or is not our hook: it knows that we do not act
    name, op = (*arguments, "", "")[:2]
    stdout, stderr = io.BytesIO(), io.StringIO()

    def reply(code: int = 0) -> None:
        if op in _ENDS or code != 0:
            turns.end(name)
        said = stderr.getvalue().encode(errors="backslashreplace")
        # The hook died: libvirt knows, and has the rest undone. Or the hook already has its answer.
        with suppress(OSError):
            wire.send(connection, b"%d" % code, stdout.getvalue(), said)
            connection.shutdown(socket.SHUT_RDWR)

    def is_wanted() -> bool:
        if op == _BEGINNING:
            turns.take(name)
        return _still_waits(connection)

    reply(hook.main(arguments, io.BytesIO(untrusted_xml), stdout, stderr, paths, is_wanted, reply))


def _call(connection: socket.socket) -> tuple[list[str], bytes]:
    """The call's arguments and XML, once the hook has taken our offer to act on them.

    Raises OSError, EOFError or ValueError where the hook does not take it.
    """
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
    """Whether the hook is still there. It sends nothing more, so only its end can arrive."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
