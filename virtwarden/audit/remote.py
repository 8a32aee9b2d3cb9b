# SPDX-License-Identifier: GPL-2.0-or-later
"""Remote administration of libvirt, item by item."""

from __future__ import annotations

import grp
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from virtwarden.audit import certificates
from virtwarden.audit.item import Check, Item, Severity
from virtwarden.errors import WardenError
from virtwarden.remote import daemons
from virtwarden.remote.daemons import PLAIN_PORT, TLS_PORT, Daemon
from virtwarden.system.conf import Settings
from virtwarden.system.run import run

PLAIN = Check(
    "remote.plain",
    Severity.CRITICAL,
    "libvirt does not listen unencrypted",
    "libvirt listens unencrypted",
    "Who is on the network path takes over the connection, and with it the host.",
    "systemctl disable --now libvirtd-tcp.socket virtproxyd-tcp.socket; listen_tcp = 0",
)
NAMES = Check(
    "remote.tls.names",
    Severity.HIGH,
    "Clients are checked by name",
    "Any certificate of the CA may connect",
    "Without tls_allowed_dn_list the owner of any certificate of the CA can manage the host, also"
    " of one that was made for something else.",
    "virt-warden remote setup tls",
)
VERIFIES = Check(
    "remote.tls.verify",
    Severity.CRITICAL,
    "Clients need a certificate",
    "Clients need no certificate",
    "Who reaches the port can manage the host.",
    "tls_no_verify_certificate = 0, or virt-warden remote setup tls",
)
PRIORITY = Check(
    "remote.tls.priority",
    Severity.MEDIUM,
    "Only TLS 1.2 and later is allowed",
    "Old TLS versions are allowed",
    "Older versions of TLS have known weaknesses.",
    'tls_priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", or virt-warden remote setup tls',
)
SASL = Check(
    "remote.sasl",
    Severity.HIGH,
    "SASL passwords are protected",
    "SASL passwords are not protected",
    "Who reads a password, on the network or in the database, can manage the host.",
    "virt-warden remote setup sasl",
)
SOCKET = Check(
    "remote.socket",
    Severity.HIGH,
    "Other users cannot use libvirt's socket",
    "Other users can use libvirt's socket",
    "Who can use it is as good as root.",
    'unix_sock_group = "libvirt", unix_sock_rw_perms = "0770", auth_unix_rw = "polkit"',
)
CROWD = Check(
    "remote.crowd",
    Severity.MEDIUM,
    "Only root and a group can connect to libvirt's socket",
    "Every user of this host can connect to libvirt's socket",
    "polkit asks only once somebody is connected. A user who connects some hundred times and says"
    " nothing, such as an escaped guest's, makes every virsh wait, root's too.",
    "systemctl edit libvirtd.socket libvirtd-ro.socket (or virtqemud's), and write [Socket],"
    " SocketMode=0660, SocketGroup=libvirt; then, which ends no VM: systemctl stop libvirtd.service"
    " libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket && systemctl start libvirtd.socket"
    " libvirtd-ro.socket libvirtd-admin.socket libvirtd.service. Where systemd opens no socket:"
    ' unix_sock_group = "libvirt", unix_sock_rw_perms = "0770", unix_sock_ro_perms = "0770" in'
    " /etc/libvirt/libvirtd.conf, and restart libvirtd",
)
GROUP = Check(
    "remote.group",
    Severity.LOW,
    "Group libvirt has no members",
    "Group libvirt has members",
    "polkit lets its members manage libvirt without a password: each is as good as root.",
    "gpasswd -d USER libvirt, for each who need not be in it; else a waiver",
)
POLKIT = Check(
    "remote.polkit",
    Severity.HIGH,
    "polkit does not open libvirt to everybody",
    "polkit opens libvirt to everybody",
    "Everybody with an account on this host is then as good as root.",
    "edit the file so that it asks for a group: polkit(8)",
)
SSH = Check(
    "remote.ssh",
    Severity.MEDIUM,
    "SSH needs a key",
    "SSH accepts a password",
    "qemu+ssh:// is as strong as SSH: who guesses a password can manage the host.",
    "virt-warden remote setup ssh",
)
_SASL_FILE = Path("/etc/sasl2/libvirt.conf")
_PASSWORDS = Path("/etc/libvirt/passwd.db")
_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
_READ_ONLY = tuple(path.with_name(f"{path.name}-ro") for path in _SOCKETS)
_RULES = (Path("/etc/polkit-1/rules.d"), Path("/usr/share/polkit-1/rules.d"))
_SSHD = Path("/usr/sbin/sshd")
# These mechanisms encrypt nothing, or use a hash that is worth as much as the password.
_WEAK_MECHANISMS = ("plain", "login", "anonymous", "digest-md5", "cram-md5")
_WEAK_PRIORITIES = frozenset({"LEGACY", "NONE", "+VERS-SSL3.0", "+VERS-TLS1.0", "+VERS-TLS1.1"})
# Such a rule speaks of a group or of a user.
_ASKS_WHO = re.compile(r"isInGroup|subject\.user")


def checks() -> Iterator[Item]:
    """Look at the running host."""
    daemon = daemons.gateway()
    ports = {port for _, port in daemons.listening_ports()}
    try:
        settings = daemon.settings()
    except WardenError as error:
        yield PLAIN.unknown(str(error))
        return
    yield _plain(daemon, settings, ports)
    yield from certificates.libvirt(settings, listens=TLS_PORT in ports)
    if TLS_PORT in ports:
        yield from _tls(settings)
    if "sasl" in (settings.get("auth_tls"), settings.get("auth_tcp"), settings.get("auth_unix_rw")):
        yield _sasl()
    yield from (_socket(path) for path in _SOCKETS if path.is_socket())
    yield from (_crowd(path) for path in (*_SOCKETS, *_READ_ONLY) if path.is_socket())
    members = _members()
    yield GROUP.judged(not members, f"in it: {', '.join(members) or 'nobody'}")
    yield from _polkit()
    if _SSHD.exists():
        yield _ssh(["root", *members])


def _plain(daemon: Daemon, settings: Settings, ports: set[int]) -> Item:
    if PLAIN_PORT in ports:
        return PLAIN.bad(f"port {PLAIN_PORT} listens")
    if settings.get("listen_tcp") == "1":
        return PLAIN.bad(
            f"listen_tcp = 1 in {daemon.file}, which takes effect when it is told to listen"
        )
    return PLAIN.good(f"port {PLAIN_PORT} does not listen")


def _tls(settings: Settings) -> Iterator[Item]:
    off = settings.get("tls_no_verify_certificate") == "1"
    yield VERIFIES.judged(not off, f"tls_no_verify_certificate = {int(off)}")
    names = settings.get("tls_allowed_dn_list", ())
    yield NAMES.judged(bool(names), f"tls_allowed_dn_list has {len(names)} names")
    priority = str(settings.get("tls_priority", "NORMAL"))
    found = _WEAK_PRIORITIES.intersection(priority.split(":"))
    yield PRIORITY.judged(not found, f"tls_priority = {priority}")


def _sasl() -> Item:
    try:
        text = _SASL_FILE.read_text()
    except OSError as error:
        return SASL.bad(f"{_SASL_FILE}: {error.strerror}")
    found = re.search(r"^mech_list:[ \t]*(.*)$", text, re.MULTILINE)
    mechanisms = found[1].lower().split() if found else []
    weak = [word for word in mechanisms if word in _WEAK_MECHANISMS]
    if weak or not mechanisms:
        return SASL.bad(f"mech_list: {' '.join(mechanisms) or 'any'} in {_SASL_FILE}")
    if _PASSWORDS.exists() and _PASSWORDS.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(_PASSWORDS.stat().st_mode)
        return SASL.bad(f"{_PASSWORDS} has mode {mode:04o}", fix=f"chmod 0600 {_PASSWORDS}")
    return SASL.good(f"mech_list: {' '.join(mechanisms)}")


def _socket(path: Path) -> Item:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    shown = f"{path} has mode {mode:04o}, group {found.st_gid}"
    # On Debian everyone may connect, and polkit asks who it is.
    asks = "polkit" in _asks_on_this_host()
    return SOCKET.judged(asks or not mode & stat.S_IRWXO, f"{shown}{', polkit asks' * asks}")


def _crowd(path: Path) -> Item:
    mode = stat.S_IMODE(path.stat().st_mode)
    return CROWD.judged(not mode & stat.S_IWOTH, f"{path} has mode {mode:04o}")


def _asks_on_this_host() -> str:
    try:
        return str(daemons.gateway().settings().get("auth_unix_rw", "polkit"))
    except WardenError:
        return ""


def _members() -> list[str]:
    try:
        return list(grp.getgrnam("libvirt").gr_mem)
    except KeyError:
        return []


def _polkit() -> Iterator[Item]:
    for directory in _RULES:
        for file in sorted(directory.glob("*.rules")) if directory.is_dir() else ():
            text = file.read_text(errors="replace")
            if "org.libvirt.unix.manage" in text and "YES" in text:
                yield POLKIT.judged(bool(_ASKS_WHO.search(text)), str(file))


def _ssh(users: list[str]) -> Item:
    """Whether any of these users, who manage libvirt, can log in with a password; sshd(8), -T."""
    try:
        by_password = [user for user in users if _gets_in_by_password(user)]
    except WardenError as error:
        return SSH.unknown(str(error))
    if by_password:
        return SSH.bad(f"a password is enough for {', '.join(by_password)}")
    return SSH.good(f"a key is needed by {', '.join(users)}")


def _gets_in_by_password(user: str) -> bool:
    said = run(str(_SSHD), "-T", "-C", f"user={user},host=localhost,addr=192.0.2.1")
    found = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    allowed = "yes" in (
        found.get("passwordauthentication"),
        found.get("kbdinteractiveauthentication"),
    )
    return allowed and (user != "root" or found.get("permitrootlogin") == "yes")
