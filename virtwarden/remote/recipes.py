# SPDX-License-Identifier: GPL-2.0-or-later
"""What to write for each of the three ways to manage this host from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import authority, places, remote
from virtwarden.remote import daemons, edits
from virtwarden.remote.edits import Commands, Edit
from virtwarden.system import conf

_SYSTEMCTL = "/usr/bin/systemctl"
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
_SASL_FILE = Path("/etc/sasl2/libvirt.conf")
_SSHD_FILE = Path("/etc/ssh/sshd_config.d/50-virt-warden.conf")
_SASL = """\
# Written by virt-warden. SCRAM keeps no password, and sends none; libvirt's TLS goes around it.
mech_list: scram-sha-256
sasldb_path: /etc/libvirt/passwd.db
"""
_SSHD = """\
# Written by virt-warden: who manages libvirt over SSH, by qemu+ssh://, shows a key, and gets that
# far and no further.
Match Group libvirt
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    AllowTcpForwarding no
    AllowAgentForwarding no
    X11Forwarding no
    PermitTunnel no
"""


@dataclass(frozen=True)
class Recipe:
    """The files to write, the commands that apply them, and what is left for the admin to do."""

    edits: tuple[Edit, ...]
    commands: Commands
    undo: Commands
    left: tuple[str, ...]


def tls(paths: Paths, names: Iterable[str]) -> Recipe:
    """Clients with a certificate, by name: the given names, or else all that the CA issued.

    Raises HostError where the host has no certificate yet.
    """
    allowed = list(names) or _issued_names(paths)
    return Recipe(
        (_listening(auth="none", allowed=allowed),),
        _restart(),
        _undo(paths),
        (f"who may manage this host: {', '.join(allowed)}",),
    )


def sasl(paths: Paths, names: Iterable[str]) -> Recipe:
    """Users with a password, within TLS. Raises HostError where the host has no certificate."""
    return Recipe(
        (_listening(auth="sasl", allowed=list(names)), edits.prepare(_SASL_FILE, _SASL)),
        _restart(),
        _undo(paths),
        (
            "give each admin a password: saslpasswd2 -a libvirt -f /etc/libvirt/passwd.db NAME",
            "let only root read it: chmod 0600 /etc/libvirt/passwd.db",
        ),
    )


def ssh() -> Recipe:
    """Through SSH, with a key: libvirt itself does not listen."""
    return Recipe(
        (edits.prepare(_SSHD_FILE, _SSHD),),
        _ssh_reloaded(),
        _ssh_reloaded(),
        ("who may manage this host: adduser NAME libvirt; a key in ~NAME/.ssh/authorized_keys",),
    )


def _ssh_reloaded() -> Commands:
    """The commands that make SSH read its files, once it has checked them."""
    return (
        ("/usr/sbin/sshd", "-t"),
        (_SYSTEMCTL, "try-reload-or-restart", "ssh.service"),
    )


def _listening(*, auth: str, allowed: list[str]) -> Edit:
    for place in (places.CA, *places.SERVER):
        if not place.path.exists():
            raise HostError(
                f"the host has no certificate: {place.path} is not there",
                fix="virt-warden pki init remote; virt-warden pki server NAME",
            )
    daemon = daemons.gateway()
    wanted: conf.Settings = {
        "listen_tls": "1",
        "listen_tcp": "0",
        "auth_tls": auth,
        "tls_no_verify_certificate": "0",
        "tls_priority": _PRIORITY,
    }
    if daemon.name != "libvirtd":
        # virtproxyd listens where systemd says, and knows neither of the two settings.
        del wanted["listen_tls"], wanted["listen_tcp"]
    if allowed:
        wanted["tls_allowed_dn_list"] = tuple(allowed)
    former = daemon.file.read_text() if daemon.file.exists() else ""
    return edits.prepare(daemon.file, conf.with_settings(former, conf.LIBVIRTD, wanted))


def _issued_names(paths: Paths) -> list[str]:
    """The names as libvirt compares them: each subject's distinguished name."""
    names = [
        f"CN={one.name}"
        for one in authority.issued(remote.ca(paths))
        if one.purpose == "client" and not one.revoked
    ]
    if not names:
        raise HostError(
            "the remote CA has issued no valid client certificate",
            fix="virt-warden pki client remote NAME --out DIRECTORY; or name who may connect",
        )
    return sorted(set(names))


def _restart() -> Commands:
    name = daemons.gateway().name
    return (
        (_SYSTEMCTL, "stop", f"{name}.service", f"{name}.socket"),
        (_SYSTEMCTL, "disable", "--now", f"{name}-tcp.socket"),
        (_SYSTEMCTL, "enable", "--now", f"{name}.socket", f"{name}-tls.socket"),
        (_SYSTEMCTL, "start", f"{name}.service"),
    )


def _undo(paths: Paths) -> Commands:
    """The commands that go back: what did not listen before does not listen again."""
    name = daemons.gateway().name
    another = any(edits.is_set_up(paths, way) for way in ("tls", "sasl"))
    if another or daemons.listens_by_tls_from_boot_on(name):
        return _restart()
    return (
        (_SYSTEMCTL, "stop", f"{name}.service", f"{name}-tls.socket"),
        (_SYSTEMCTL, "disable", f"{name}-tls.socket"),
        (_SYSTEMCTL, "start", f"{name}.socket", f"{name}.service"),
    )
