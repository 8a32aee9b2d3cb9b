"""How this host's certificates stand: there, strong, not about to run out, their keys closed."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from virtwarden.audit.item import HOST, Check, Item, Severity
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import consoles, keys, places
from virtwarden.pki.authority import CERTIFICATE
from virtwarden.system import certificates
from virtwarden.system.conf import Settings

SERVER = Check(
    "remote.tls.certificate",
    Severity.HIGH,
    "The host's certificate holds, and its key is closed",
    "Without it clients cannot know the host; who has its key can be the host.",
    "virt-warden pki server NAME, then: systemctl try-restart virtproxyd libvirtd",
)
CLIENTS = Check(
    "remote.tls.authority",
    Severity.HIGH,
    "The authority by which libvirt knows its clients holds",
    "Without it nobody is let in; whoever can forge its certificates, or write the file, manages"
    " the host.",
    "a new one, of which host and clients need new certificates: move"
    " /var/lib/virt-warden/remote-ca away if it is there, virt-warden pki init remote, virt-warden"
    " pki server NAME",
)
CLIENT = Check(
    "remote.tls.client",
    Severity.HIGH,
    "The certificate by which this host manages others holds, and its key is closed",
    "Without it this host cannot migrate VMs to others by TLS; who has its key manages them.",
    "virt-warden pki client remote NAME --out DIRECTORY where the authority is, and carry it here",
)
AUTHORITY = Check(
    "host.console.authority",
    Severity.HIGH,
    "The consoles' authority holds, and its key is closed",
    "Once it has run out no viewer believes a console; who has its key can be any console.",
    "move /var/lib/virt-warden/console-ca away: the next start makes a new one, which viewers need:"
    " virt-warden pki export consoles --out FILE",
)
SIGNER = Check(
    "host.console.signer",
    Severity.HIGH,
    "The signer of the consoles' certificates holds, and its keys are closed",
    "Once it has run out no VM with a console starts; who has its key can be any console.",
    "virt-warden pki renew --signer",
)
CONSOLE = Check(
    "vm.certificate",
    Severity.HIGH,
    "Its console's certificate holds, and its key is its own",
    "Viewers refuse a console whose certificate has run out; who has its key can be the console.",
    "virt-warden pki renew; systemctl enable --now virt-warden-renew.timer does so each day",
)
_ROOT = 0


def libvirt(settings: Settings, *, listens: bool) -> Iterator[Item]:
    """The certificates of libvirt's remote connections, which must be there where it listens."""
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
    """The consoles' authority, once it is there."""
    directory = paths.console_ca
    if directory.exists():
        yield judged(AUTHORITY, directory / CERTIFICATE, keys.at_rest(directory))
        signer = directory / consoles.SIGNER_CERTIFICATE
        yield judged(SIGNER, signer, consoles.signer_keys(paths))


def console(directory: Path, domain: str) -> Iterator[Item]:
    """A running console's, in the directory of its QEMU's credentials, where it has one."""
    certificate = directory / "server-cert.pem"
    if certificate.exists():
        yield judged(CONSOLE, certificate, [directory / "server-key.pem"], domain, its_groups=True)


def judged(
    check: Check,
    file: Path,
    its_keys: Iterable[Path] = (),
    subject: str = HOST,
    *,
    its_groups: bool = False,
) -> Item:
    """Look at one certificate and its keys, which nobody but root, or a group, may read."""
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
        return replace(check, severity=Severity.MEDIUM).bad(f"{file} runs out on {until}", subject)
    return check.good(f"{file}: {certificates.key_in_words(found)}, until {until}", subject)


def _faults(file: Path) -> Iterator[str]:
    """What is wrong with a file of certificates: whoever reads it believes each of them."""
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
            yield f"{file} ran out on {certificates.expiry(each).date()}"
        elif certificates.is_to_come(each):
            yield f"{file} is not valid yet"
    yield from (f"{file}: {each}" for each in weak if each)
    if status.st_uid != _ROOT:
        yield f"{file} belongs to uid {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield f"{file} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"


def _opened(key: Path, others: int, check: Check) -> Iterator[tuple[str, str]]:
    """What is wrong with who may read a key, and what mends it."""
    try:
        found = key.stat()
    except OSError as error:
        yield f"its key {key}: {error.strerror}", check.fix
        return
    if found.st_uid != _ROOT:
        yield f"its key {key} belongs to uid {found.st_uid}", f"chown root {key}"
    if found.st_mode & others:
        whom = "o=" if others == stat.S_IRWXO else "go="
        fix = f"chmod {whom} {key}, and a new one if somebody may have read it: {check.fix}"
        yield f"its key {key} has mode {stat.S_IMODE(found.st_mode):04o}", fix
