# SPDX-License-Identifier: GPL-2.0-or-later
"""What the two ends of the console service's socket say: JSON, one object a line.

The operator says {"domain": NAME}. The service may say {"ask": "password"}, and the operator then
says {"password": …}. Last, the service says {"ticket": {…}} or {"refused": WHY}. Neither end trusts
the form of what the other says.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from virtwarden.errors import HostError

_LONGEST_LINE = 16 * 1024


@dataclass(frozen=True)
class Ticket:
    """What one viewer needs to connect, for so many seconds.

    `kind` is the protocol, vnc or spice. `ca` is PEM, empty where TLS is off. `user` is empty where
    the display's own password is in use. `certificate` says that a viewer also has to show a
    certificate of its own. `subject` is the name in the console's, where viewers can check it.
    """

    domain: str
    host: str
    port: int
    password: str
    seconds: int
    ca: str
    user: str = ""
    certificate: bool = False
    kind: str = "vnc"
    subject: str = ""

    def __repr__(self) -> str:
        """Without the password: no log may contain it."""
        return f"Ticket({self.domain!r}, {self.host!r}, {self.port})"


class Talk:
    """One end of the conversation.

    Raises HostError where the other end hangs up, is too slow, or sends what has another format.
    """

    def __init__(self, connection: socket.socket, patience_seconds: float) -> None:
        """`patience_seconds` is how long the other end may take for all of its lines.

        It may also take that long to accept a line of ours.
        """
        self._patience_seconds = patience_seconds
        self._left_seconds = patience_seconds
        self._connection = connection
        self._untrusted = b""

    def say(self, **said: object) -> None:
        """Send one line."""
        try:
            self._connection.settimeout(self._patience_seconds)
            self._connection.sendall(json.dumps(said).encode() + b"\n")
        except OSError as error:
            raise HostError(f"the other end hung up: {error}") from None

    def say_ticket(self, ticket: Ticket) -> None:
        """Send the ticket."""
        self.say(ticket=asdict(ticket))

    def hear(self, key: str) -> str:
        """The text under this key in the next line: any text, not yet checked."""
        untrusted_text = self.hear_line().get(key)
        if not isinstance(untrusted_text, str):
            raise HostError(f"invalid answer: {key} is missing")
        try:
            untrusted_text.encode()
        except UnicodeEncodeError:  # JSON can spell half a character (RFC 8259, section 8.2)
            raise HostError(f"invalid answer: {key} is not text") from None
        return untrusted_text

    def hear_line(self) -> dict[str, Any]:
        """The next line."""
        while b"\n" not in self._untrusted:
            if len(self._untrusted) > _LONGEST_LINE:
                raise HostError("invalid answer: too long")
            more = self._heard()
            if not more:
                raise HostError("the other end hung up")
            self._untrusted += more
        untrusted_line, _, self._untrusted = self._untrusted.partition(b"\n")
        try:
            said = json.loads(untrusted_line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise HostError("invalid answer: unknown format")
        return said

    def _heard(self) -> bytes:
        """Some more bytes. All waits count together: a byte now and then gets no more time."""
        if self._left_seconds <= 0:
            raise HostError("the other end is too slow")
        begun = time.monotonic()
        try:
            self._connection.settimeout(self._left_seconds)
            return self._connection.recv(4096)
        except OSError as error:
            raise HostError(f"the other end does not answer: {error}") from None
        finally:
            self._left_seconds -= time.monotonic() - begun


def ticket_of(untrusted_ticket: Any) -> Ticket:
    """A ticket as the service sent it. Raises HostError where it is none."""
    try:
        ticket = Ticket(**untrusted_ticket)
    except TypeError:
        raise HostError("the console service gave no ticket") from None
    texts = [ticket.domain, ticket.host, ticket.password, ticket.ca, ticket.user]
    texts += [ticket.kind, ticket.subject]
    numbers = (ticket.port, ticket.seconds)
    if not (
        all(type(t) is str for t in texts)
        and all(type(n) is int for n in numbers)
        and type(ticket.certificate) is bool
        and ticket.kind in ("vnc", "spice")
    ):
        raise HostError("the console service gave a ticket of an unknown form")
    return ticket
