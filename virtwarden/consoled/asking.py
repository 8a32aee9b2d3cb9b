# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's end: asks for a console ticket, and writes what a viewer needs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from virtwarden.consoled import operators
from virtwarden.consoled.talk import Talk, Ticket, ticket_of
from virtwarden.errors import HostError
from virtwarden.paths import Paths

OF_HOST = Path("/etc/pki/CA/cacert.pem")
# The service may wait for PAM, and for another attempt to end.
_PATIENCE_SECONDS = 120


def ticket(paths: Paths, domain: str, password: Callable[[], str]) -> Ticket:
    """Get a ticket for a domain's console; calls `password` where the service asks for one.

    Raises HostError where the service does not answer, or refuses.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(paths.console_socket))
        except OSError as error:
            raise HostError(
                f"the console service does not answer: {error.strerror}",
                where=str(paths.console_socket),
                fix="as root: systemctl enable --now virt-warden-console.socket",
            ) from None
        if not operators.peer(connection).is_root:
            raise HostError("another user than root answers", where=str(paths.console_socket))
        return _talk(Talk(connection, _PATIENCE_SECONDS), domain, password)


def _talk(talk: Talk, domain: str, password: Callable[[], str]) -> Ticket:
    with suppress(HostError):  # it may have refused already, and hung up
        talk.say(domain=domain)
    said = talk.hear_line()
    if "ask" in said:
        talk.say(password=password())
        said = talk.hear_line()
    if "refused" in said:
        raise HostError(str(said["refused"]))
    return ticket_of(said.get("ticket"))


def virt_viewer_file(ticket: Ticket) -> str:
    """The file that remote-viewer(1) opens: a GLib key file, where \\n stands for a line's end."""
    is_spice = ticket.kind == "spice"
    values: dict[str, object] = {
        "type": ticket.kind,
        "host": ticket.host,
        "tls-port" if is_spice and ticket.ca else "port": ticket.port,
        "password": ticket.password,
        "title": ticket.domain,
        "delete-this-file": 1,
    }
    # remote-viewer believes it for SPICE alone; for VNC see trusting_file.
    for key, value in (("ca", ticket.ca), ("username", ticket.user)):
        values |= {key: value} if value else {}
    if is_spice and ticket.subject:
        values["host-subject"] = ticket.subject
    lines = [f"{key}={_escaped(str(value))}" for key, value in values.items()]
    return "\n".join(["[virt-viewer]", *lines, ""])


def trusting_file(home: Path) -> Path:
    """The one file from which gtk-vnc, and so remote-viewer for VNC, takes the CAs that it trusts.

    That of the host comes first. libvirt knows its own clients by that one: an admin must not add
    the console CA to it.
    """
    return OF_HOST if OF_HOST.exists() else home / ".pki/CA/cacert.pem"


def is_trusted(ca: str, file: Path) -> bool:
    """Whether a CA is in such a file."""
    try:
        return _bare(ca) in _bare(file.read_text(errors="replace"))
    except OSError:
        return False


def _bare(pem: str) -> str:
    return "".join(pem.split())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
