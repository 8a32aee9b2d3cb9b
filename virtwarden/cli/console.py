# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden console`: a password for one look at a domain's console.

For anybody: the console service, which is root, says who may. Nothing here needs libvirt.
"""

from __future__ import annotations

import argparse
import getpass
import os
import pwd
import socket
import sys
import tempfile
from pathlib import Path

from virtwarden.consoled import asking
from virtwarden.consoled.talk import Ticket
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.words import printable, shown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serve", action="store_true", help="for systemd: answer the operator at stdin, a socket"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        default=Path(),
        help="where to write the viewer's files; default: the working directory",
    )
    parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="by name")


def run(options: argparse.Namespace, paths: Paths) -> int:
    if options.serve:
        return _serve(paths)
    if not options.domain:
        raise HostError("whose console?", fix="virt-warden console DOMAIN")
    _print(asking.ticket(paths, options.domain, _password), options.out)
    return 0


def _serve(paths: Paths) -> int:
    from virtwarden.consoled.tickets import serve

    if os.geteuid() != 0:
        raise HostError("only root can run the console service", fix="leave it to systemd")
    try:
        connection = socket.socket(fileno=os.dup(0))
        connection.getpeername()
    except OSError:
        raise HostError("stdin is not a connection", fix="leave it to systemd") from None
    return serve(paths, connection)


def _password() -> str:
    """The operator's own password on this host; a line of stdin where that is no terminal."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {getpass.getuser()} on this host: ")
    return sys.stdin.readline().rstrip("\n")


def _print(ticket: Ticket, directory: Path) -> None:
    name = ticket.domain.replace("/", "_")
    viewer_file = directory / f"{name}.vv"
    ca_file = directory / f"{name}.ca.pem"
    _write(viewer_file, asking.virt_viewer_file(ticket))
    if ticket.ca:
        _write(ca_file, ticket.ca)
        if ticket.kind == "vnc":
            _print_trust(ticket.ca, ca_file)
    print(f"One viewer may connect to {printable(ticket.domain)} within {ticket.seconds} seconds:")
    print(f"  remote-viewer {shown(str(viewer_file))}")
    # TigerVNC has neither names nor certificates.
    if ticket.kind == "vnc" and ticket.ca and not ticket.user and not ticket.certificate:
        print(f"  vncviewer -X509CA {shown(str(ca_file))} {ticket.host}::{ticket.port}")
    user = f"user {ticket.user}, " if ticket.user else ""
    port = "TLS port" if ticket.kind == "spice" and ticket.ca else "port"
    print(f"  any other: {ticket.host} {port} {ticket.port}, {user}password {ticket.password}")
    if ticket.certificate:
        print("It also asks for your certificate: ~/.pki/libvirt-vnc (docs/console.md).")
    if ticket.host in ("127.0.0.1", "::1"):
        tunnel = f"-L {ticket.port}:localhost:{ticket.port}"
        print(f"From another machine: ssh {tunnel} {os.uname().nodename}, then as above.")


def _print_trust(ca: str, ca_file: Path) -> None:
    """Print the one step before remote-viewer shows a VNC console of this host, if it is due."""
    file = asking.trusting_file(Path(pwd.getpwuid(os.getuid()).pw_dir))
    if asking.is_trusted(ca, file):
        return
    if file == asking.OF_HOST:
        print(f"remote-viewer reads {file}, which has another CA: take vncviewer, or SPICE.")
        return
    print("Once, for remote-viewer to know the VNC consoles of this host:")
    print(f"  mkdir -p ~/.pki/CA && cat {shown(str(ca_file))} >> ~/.pki/CA/cacert.pem")


def _write(file: Path, content: str) -> None:
    """Write a file that only the operator can read, over a former one of that name."""
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".virt-warden.")
        with os.fdopen(handle, "w") as opened:
            opened.write(content)
        Path(temporary).replace(file)
    except OSError as error:
        raise HostError(
            f"it cannot be written: {error.strerror}", where=str(file), fix="--out DIRECTORY"
        ) from None
