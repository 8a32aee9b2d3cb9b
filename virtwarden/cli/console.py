"""`virt-warden console`: a password for one look at a domain's console.

For anybody: the console service, which is root, says who may. Nothing here needs libvirt.
"""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import sys
import tempfile
from pathlib import Path

from virtwarden.consoled import operators
from virtwarden.consoled.talk import Talk, Ticket, ticket_of
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.words import printable

# The service may wait for PAM, and for another attempt's end.
_PATIENCE_SECONDS = 120


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    parser.add_argument(
        "--serve", action="store_true", help="for systemd: answer the operator at stdin, a socket"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        default=Path(),
        help="where the files for the viewer go; the working directory, if none is named",
    )
    parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="by name")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    if options.serve:
        return _serve(paths)
    if not options.domain:
        raise HostError("whose console?", fix="virt-warden console DOMAIN")
    ticket = _ask(paths, options.domain)
    _print(ticket, options.out)
    return 0


def _serve(paths: Paths) -> int:
    from virtwarden.consoled.tickets import serve

    if os.geteuid() != 0:
        raise HostError("the console service is root's", fix="leave it to systemd")
    try:
        connection = socket.socket(fileno=os.dup(0))
        connection.getpeername()
    except OSError:
        raise HostError("stdin is no connection", fix="leave it to systemd") from None
    return serve(paths, connection)


def _ask(paths: Paths, domain: str) -> Ticket:
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
            raise HostError("somebody else than root is there", where=str(paths.console_socket))
        return _talk(Talk(connection, _PATIENCE_SECONDS), domain)


def _talk(talk: Talk, domain: str) -> Ticket:
    talk.say(domain=domain)
    said = talk.hear_line()
    if "ask" in said:
        talk.say(password=_password())
        said = talk.hear_line()
    if "refused" in said:
        raise HostError(str(said["refused"]))
    return ticket_of(said.get("ticket"))


def _password() -> str:
    """The operator's own, of this host; a line of stdin where that is no terminal."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {getpass.getuser()} on this host: ")
    return sys.stdin.readline().rstrip("\n")


def _print(ticket: Ticket, directory: Path) -> None:
    name = ticket.domain.replace("/", "_")
    viewer_file = directory / f"{name}.vv"
    _write(viewer_file, virt_viewer_file(ticket))
    print(f"One viewer may look at {printable(ticket.domain)}, within {ticket.seconds} seconds:")
    print(f"  remote-viewer {viewer_file}")
    if ticket.ca:
        ca_file = directory / f"{name}.ca.pem"
        _write(ca_file, ticket.ca)
        if not ticket.user and not ticket.certificate:  # TigerVNC has neither
            print(f"  vncviewer -X509CA {ca_file} {ticket.host}::{ticket.port}")
    name = f"user {ticket.user}, " if ticket.user else ""
    print(f"  any other: {ticket.host} port {ticket.port}, {name}password {ticket.password}")
    if ticket.certificate:
        print("It asks for your certificate too: ~/.pki/libvirt-vnc (docs/console.md).")
    if ticket.host in ("127.0.0.1", "::1"):
        tunnel = f"-L {ticket.port}:localhost:{ticket.port}"
        print(f"From another machine: ssh {tunnel} {os.uname().nodename}, then as above.")


def virt_viewer_file(ticket: Ticket) -> str:
    """What remote-viewer(1) opens: a GLib key file, in which a line's end is written as \\n."""
    values = {
        "type": "vnc",
        "host": ticket.host,
        "port": ticket.port,
        "password": ticket.password,
        "title": ticket.domain,
        "delete-this-file": 1,
    }
    if ticket.ca:
        values["ca"] = ticket.ca
    if ticket.user:
        values["username"] = ticket.user
    lines = [f"{key}={_escaped(str(value))}" for key, value in values.items()]
    return "\n".join(["[virt-viewer]", *lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _write(file: Path, content: str) -> None:
    """A file of the operator's that nobody else can read, in the place of one of that name."""
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".virt-warden.")
        with os.fdopen(handle, "w") as opened:
            opened.write(content)
        Path(temporary).replace(file)
    except OSError as error:
        raise HostError(
            f"it cannot be written: {error.strerror}", where=str(file), fix="--out DIRECTORY"
        ) from None
