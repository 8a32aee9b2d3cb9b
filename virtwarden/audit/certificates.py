# SPDX-License-Identifier: GPL-2.0-or-later
"""This host's certificates: do they exist, are they strong and valid, who can read their keys."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from virtwarden.audit.item import HOST, Check, Item, Severity
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import consoles, keys, places
from virtwarden.pki.authority import CERTIFICATE
from virtwarden.system import certificates
from virtwarden.system.conf import Settings
from virtwarden.words import shown


@dataclass(frozen=True)
class CertificateCheck(Check):
    """A check of a certificate; its third title is for a valid one that expires soon."""

    title_of_soon: str


SERVER = CertificateCheck(
    "remote.tls.certificate",
    Severity.HIGH,
    "The host's certificate is valid, and only root can read its key",
    "The host's certificate or its key has a fault",
    "Clients cannot recognise the host without it. Who has its key can pose as the host.",
    "virt-warden pki server NAME, then: systemctl try-restart virtproxyd libvirtd",
    title_of_soon="The host's certificate expires soon",
)
CLIENTS = CertificateCheck(
    "remote.tls.authority",
    Severity.HIGH,
    "The CA that libvirt checks its clients by is valid",
    "The CA that libvirt checks its clients by has a fault",
    "Without it no client can connect. Who can forge its certificates, or write the file, can"
    " manage the host.",
    "make a new one, and new certificates for host and clients: move"
    " /var/lib/virt-warden/remote-ca away if it is there, virt-warden pki init remote, virt-warden"
    " pki server NAME",
    title_of_soon="The CA that libvirt checks its clients by expires soon",
)
CLIENT = CertificateCheck(
    "remote.tls.client",
    Severity.HIGH,
    "This host's client certificate is valid, and only root can read its key",
    "This host's client certificate or its key has a fault",
    "This host cannot migrate VMs to others by TLS without it. Who has its key can manage them.",
    "virt-warden pki client remote NAME --out DIRECTORY on the host of the remote CA; copy it here",
    title_of_soon="This host's client certificate expires soon",
)
AUTHORITY = CertificateCheck(
    "host.console.authority",
    Severity.HIGH,
    "The console CA is valid, and only root can read its key",
    "The console CA or its key has a fault",
    "Once it has expired, no viewer trusts a console. Who has its key can pose as any console.",
    "move /var/lib/virt-warden/console-ca away: the next start makes a new one; give it to viewers:"
    " virt-warden pki export consoles --out FILE",
    title_of_soon="The console CA expires soon",
)
SIGNER = CertificateCheck(
    "host.console.signer",
    Severity.HIGH,
    "The console CA's signer is valid, and only root can read its keys",
    "The console CA's signer or one of its keys has a fault",
    "Once it has expired, no VM with a console starts. Who has its key can pose as any console.",
    "virt-warden pki renew --signer",
    title_of_soon="The console CA's signer expires soon",
)
CONSOLE = CertificateCheck(
    "vm.certificate",
    Severity.HIGH,
    "Its console's certificate is valid, and only its user can read its key",
    "Its console's certificate or its key has a fault",
    "Viewers refuse an expired certificate. Who has its key can pose as the console.",
    "virt-warden pki renew; systemctl enable --now virt-warden-renew.timer does so each day",
    title_of_soon="Its console's certificate expires soon",
)
_ROOT = 0


def libvirt(settings: Settings, *, listens: bool) -> Iterator[Item]:
    """The certificates of libvirt's remote connections, which must exist where it listens."""
    server, key = (
        Path(str(settings.get(name) or place.path))
        for name, place in zip(("cert_file", "key_file"), places.SERVER, strict=True)
    )
    client, its_key = (place.path for place in places.CLIENT)
    if listens or server.exists():
        yield judged(SERVER, server, [key])
    if client.exists():
        yield judged(CLIENT, client, [its_key])
    if listens or server.exists() or client.exists():
        yield judged(CLIENTS, Path(str(settings.get("ca_file") or places.CA.path)))


def authority(paths: Paths) -> Iterator[Item]:
    """The console CA, once it exists."""
    directory = paths.console_ca
    if directory.exists():
        yield judged(AUTHORITY, directory / CERTIFICATE, keys.at_rest(directory))
        signer = directory / consoles.SIGNER_CERTIFICATE
        yield judged(SIGNER, signer, consoles.signer_keys(paths))


def console(directory: Path, domain: str, *, lasts: bool = False) -> Iterator[Item]:
    """A running console's certificate, in the directory of its QEMU's credentials, if any.

    One that `lasts` cannot be renewed while the VM runs.
    """
    certificate = directory / "server-cert.pem"
    if certificate.exists():
        fix = f"virsh shutdown {shown(domain)}; virsh start {shown(domain)}"
        check = replace(CONSOLE, fix=fix) if lasts else CONSOLE
        yield judged(check, certificate, [directory / "server-key.pem"], domain, its_groups=True)


def judged(
    check: CertificateCheck,
    file: Path,
    its_keys: Iterable[Path] = (),
    subject: str = HOST,
    *,
    its_groups: bool = False,
) -> Item:
    """Look at one certificate and its keys, which only root, or a group, may read."""
    others = stat.S_IRWXO if its_groups else stat.S_IRWXG | stat.S_IRWXO
    faults = [(what, check.fix) for what in _faults(file)]
    for key in its_keys:
        faults += _opened(key, others, check)
    if faults:
        seen = "; ".join(what for what, _ in faults)
        return check.bad(seen, subject, fix="; ".join(dict.fromkeys(fix for _, fix in faults)))
    found = min(certificates.load_all(file.read_bytes(), str(file)), key=certificates.expiry)
    until = certificates.expiry(found).date()
    if certificates.runs_out_soon(found):
        soon = replace(check, severity=Severity.MEDIUM, bad_title=check.title_of_soon)
        return soon.bad(f"{file} expires on {until}", subject)
    return check.good(f"{file}: {certificates.key_in_words(found)}, until {until}", subject)


def _faults(file: Path) -> Iterator[str]:
    """What is wrong with a file of certificates: its readers trust each of them."""
    try:
        found = certificates.load_all(file.read_bytes(), str(file))
        weak = [certificates.weakness(each) for each in found]
        status = file.stat()
    except OSError as error:
        yield f"{file}: {error.strerror}"
        return
    except (HostError, ValueError) as error:
        yield str(error)
        return
    for each in found:
        if certificates.has_run_out(each):
            yield f"{file} expired on {certificates.expiry(each).date()}"
        elif certificates.is_to_come(each):
            yield f"{file} is not valid yet"
    yield from (f"{file}: {each}" for each in weak if each)
    if status.st_uid != _ROOT:
        yield f"{file} belongs to uid {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield f"{file} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"


def _opened(key: Path, others: int, check: Check) -> Iterator[tuple[str, str]]:
    """Who else may read a key, and the fix."""
    try:
        found = key.stat()
    except OSError as error:
        yield f"its key {key}: {error.strerror}", check.fix
        return
    if found.st_uid != _ROOT:
        yield f"its key {key} belongs to uid {found.st_uid}", f"chown root {key}"
    if found.st_mode & others:
        whom = "o=" if others == stat.S_IRWXO else "go="
        fix = f"chmod {whom} {key}, and make a new one if somebody may have read it: {check.fix}"
        yield f"its key {key} has mode {stat.S_IMODE(found.st_mode):04o}", fix
