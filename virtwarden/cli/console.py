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
        "--revoke", action="store_true", help="for systemd: revoke what a killed service left"
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
    if options.revoke:
        return _revoke(paths)
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


def _revoke(paths: Paths) -> int:
    from virtwarden.consoled import abandoned
    from virtwarden.libvirtd.connection import connected

    if os.geteuid() != 0:
        raise HostError("only root can revoke tickets", fix="leave it to systemd")
    with connected() as hypervisor:
        failed = abandoned.revoke(paths, hypervisor)
    for domain, error in failed.items():
        raise HostError(str(error), where=domain, fix=f"virsh destroy {domain}, if it hangs")
    return 0


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
    print(f"One viewer may connect to {printable(ticket.domain)} within {ticket.seconds} seconds:")
    if ticket.kind == "vnc" and ticket.ca:
        _print_for_vnc(ticket, viewer_file, ca_file)
    else:
        print(f"  remote-viewer {shown(str(viewer_file))}")
    user = f"user {ticket.user}, " if ticket.user else ""
    port = "TLS port" if ticket.kind == "spice" and ticket.ca else "port"
    print(f"  any other: {ticket.host} {port} {ticket.port}, {user}password {ticket.password}")
    if ticket.certificate:
        print("It also asks for your certificate: ~/.pki/libvirt-vnc (docs/console.md).")
    if ticket.host in ("127.0.0.1", "::1"):
        tunnel = f"-L {ticket.port}:localhost:{ticket.port}"
        print(f"From another machine: ssh {tunnel} {os.uname().nodename}, then as above.")


def _print_for_vnc(ticket: Ticket, viewer_file: Path, ca_file: Path) -> None:
    """First the command that needs no step before it."""
    if not ticket.user and not ticket.certificate:  # TigerVNC has neither
        print(f"  vncviewer -X509CA {shown(str(ca_file))} {ticket.host}::{ticket.port}")
        print(f"    asks for a password: {ticket.password}")
    file = asking.trusting_file(Path(pwd.getpwuid(os.getuid()).pw_dir))
    if not asking.is_trusted(ticket.ca, file):
        if file == asking.OF_HOST:
            print(f"  not remote-viewer: it goes by {file}, which has another CA")
            return
        print(f"  mkdir -p ~/.pki/CA && cat {shown(str(ca_file))} >> ~/.pki/CA/cacert.pem")
        print("    once before remote-viewer, which knows no other CA; Debian 13's knows none")
    print(f"  remote-viewer {shown(str(viewer_file))}")


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
