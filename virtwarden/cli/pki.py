# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden pki`: the two CAs, what they issue, and what they revoke."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import authority, consoles, remote
from virtwarden.pki.authority import Authority
from virtwarden.pki.keys import Asks, Rest, kind, title

_SHORTEST_PASSPHRASE = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make a CA")
    _which(init)
    how = init.add_mutually_exclusive_group()
    how.add_argument(
        "--sealed",
        action="store_true",
        help="no passphrase: seal the key to this host (systemd-creds, with its TPM2 if any)",
    )
    _passphrase(how)
    init.add_argument(
        "--nss", action="store_true", help="put the key into an NSS database, with the passphrase"
    )
    server = actions.add_parser("server", help="issue this host's certificate for qemu+tls://")
    server.add_argument("names", nargs="*", metavar="NAME", help="DNS names and IP addresses")
    _passphrase(server)
    client = actions.add_parser("client", help="issue a certificate for an admin or an operator")
    _which(client)
    client.add_argument("name", metavar="NAME", help="whose it is")
    client.add_argument(
        "--out", type=Path, required=True, metavar="DIRECTORY", help="must not exist"
    )
    _passphrase(client)
    revoke = actions.add_parser("revoke", help="revoke a certificate")
    _which(revoke)
    revoke.add_argument("certificate", metavar="NAME|SERIAL")
    _passphrase(revoke)
    renew = actions.add_parser("renew", help="renew console certificates while VMs run")
    renew.add_argument("--now", action="store_true", help="also those that are not due yet")
    renew.add_argument(
        "--signer", action="store_true", help="with a new signer below the console CA"
    )
    renew.add_argument("domains", nargs="*", metavar="DOMAIN", help="default: all that run")
    _passphrase(renew)
    listing = actions.add_parser("list", help="list issued and revoked certificates")
    listing.add_argument("--json", action="store_true", help="for programs")
    _which(listing)
    export = actions.add_parser("export", help="copy what others must trust")
    _which(export)
    export.add_argument("--out", type=Path, required=True, metavar="FILE")


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("authority", choices=[consoles.NAME, remote.NAME])


def _passphrase(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="a file that only root can read; without it, asked at the terminal",
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    actions: dict[str, Callable[[argparse.Namespace, Paths], int]] = {
        "init": _init,
        "server": _server,
        "client": _client,
        "revoke": _revoke,
        "renew": _renew,
        "list": _list,
        "export": _export,
    }
    return actions[options.action](options, paths)


def _authority(options: argparse.Namespace, paths: Paths) -> Authority:
    return {consoles.NAME: consoles.ca, remote.NAME: remote.ca}[options.authority](paths)


def _init(options: argparse.Namespace, paths: Paths) -> int:
    if options.sealed and options.nss:
        raise HostError("an NSS database needs a passphrase", fix="use --nss without --sealed")
    rest = Rest(b"" if options.sealed else _new_passphrase(options), in_nss=options.nss)
    if options.authority == consoles.NAME:
        consoles.create(paths, rest)
    else:
        authority.create(remote.ca(paths), rest)
    found = _authority(options, paths)
    print(f"The {found.title} is in {found.directory}. Its key: {kind(found.directory)}.")
    if rest.passphrase:
        print("A lost passphrase cannot be recovered. Keep it where you keep root's password.")
    return 0


def _server(options: argparse.Namespace, paths: Paths) -> int:
    names = options.names or [os.uname().nodename]
    for file in remote.install_server(paths, names, _asks(options)):
        print(f"wrote {file}")
    print("Now: systemctl try-restart virtproxyd libvirtd")
    return 0


def _client(options: argparse.Namespace, paths: Paths) -> int:
    certificate, written = remote.client(
        _authority(options, paths), options.name, options.out.absolute(), _asks(options)
    )
    for file in written:
        print(f"wrote {file}")
    print(f"Its name, for tls_allowed_dn_list: {certificate.subject.rfc4514_string()}")
    return 0


def _revoke(options: argparse.Namespace, paths: Paths) -> int:
    above = _authority(options, paths)
    issuer = authority.issuer_of(above, _asks(options))
    for one in authority.revoke(above, issuer, options.certificate):
        print(f"{one.purpose} certificate {one.serial} of {one.name} is revoked")
    if above.name == remote.NAME:
        for file in remote.publish(paths):
            print(f"wrote {file}")
        print("Now: systemctl try-restart virtproxyd libvirtd")
        return 0
    # QEMU reads the list together with the certificate.
    options.now, options.domains, options.signer = True, [], False
    return _renew(options, paths)


def _renew(options: argparse.Namespace, paths: Paths) -> int:
    import libvirt

    from virtwarden.cli.terminal.for_each import for_each
    from virtwarden.libvirtd import renewal
    from virtwarden.libvirtd.connection import find

    if options.signer:
        consoles.renew_signer(paths, _asks(options))

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if options.domains:
            return [find(connection, name) for name in options.domains]
        active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return [d for d in active if paths.domain_state(d.UUIDString()).exists()]

    return for_each(chosen, lambda _, domain: renewal.renew(paths, domain, always=options.now))


def _list(options: argparse.Namespace, paths: Paths) -> int:
    listed = authority.issued(_authority(options, paths))
    if options.json:
        print(json.dumps([asdict(one) for one in listed], indent=2))
        return 0
    for one in listed:
        state = f"revoked {one.revoked}" if one.revoked else f"until {one.expires}"
        print(f"{one.purpose:<9} {one.name:<24} {state}  {one.serial}")
    return 0


def _export(options: argparse.Namespace, paths: Paths) -> int:
    found = _authority(options, paths)
    _ = found.certificate
    try:
        shutil.copyfile(found.directory / authority.CERTIFICATE, options.out)
    except OSError as error:
        raise HostError(f"{options.out} cannot be written: {error.strerror}") from None
    print(f"wrote {options.out}; trust only what this CA signed")
    return 0


def _asks(options: argparse.Namespace) -> Asks:
    def ask(name: str) -> bytes:
        if options.passphrase_file is not None:
            return _from_file(options.passphrase_file)
        return getpass.getpass(f"Passphrase of the {title(name)}: ").encode()

    return ask


def _new_passphrase(options: argparse.Namespace) -> bytes:
    if options.passphrase_file is not None:
        passphrase = _from_file(options.passphrase_file)
    else:
        passphrase = getpass.getpass("New passphrase: ").encode()
        if passphrase != getpass.getpass("Again: ").encode():
            raise HostError("the two passphrases differ", fix="try again")
    if len(passphrase) < _SHORTEST_PASSPHRASE:
        raise HostError(
            f"the passphrase has fewer than {_SHORTEST_PASSPHRASE} characters",
            fix="use four random words; or --sealed, for no passphrase",
        )
    return passphrase


def _from_file(file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"it cannot be read: {error.strerror}", where=str(file)) from None
    with os.fdopen(handle, "rb") as opened:
        found = os.fstat(opened.fileno())
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o077:
            raise HostError(
                "users other than root can read it", where=str(file), fix=f"chmod 600 {file}"
            )
        return opened.read().rstrip(b"\n")
