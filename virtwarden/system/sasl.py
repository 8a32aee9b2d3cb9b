# SPDX-License-Identifier: GPL-2.0-or-later
"""SASL logins of QEMU's VNC server: Cyrus SASL, application `qemu`, configured by SASL_CONF_PATH.

A console ticket is in the domain's own database. The domain's user may read it, so it holds
nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from virtwarden.errors import CommandError, HostError
from virtwarden.system import files
from virtwarden.system.run import run

_SASLPASSWD = "/usr/sbin/saslpasswd2"
_APPLICATION = "qemu"
CONFIGURATION, DATABASE = f"{_APPLICATION}.conf", "sasldb2"
# Where Debian's libsasl2-modules and libsasl2-modules-gssapi-mit put these mechanisms.
_PLUGINS = "usr/lib/*/sasl2"
_NEEDED = {
    "tickets": (f"{_PLUGINS}/libscram.so", f"{_PLUGINS}/libsasldb.so", _SASLPASSWD[1:]),
    "kerberos": (f"{_PLUGINS}/libgssapiv2.so",),
}
_PACKAGES = {
    "tickets": "libsasl2-modules libsasl2-modules-db sasl2-bin",
    "kerberos": "libsasl2-modules-gssapi-mit",
}


def lacking(kind: str, root: Path = Path("/")) -> str:
    """The Debian packages that this kind of login needs; empty where all their files are there."""
    return "" if all(any(root.glob(path)) for path in _NEEDED[kind]) else _PACKAGES[kind]


def configuration(directory: str, kind: str, keytab: str) -> str:
    """The configuration file for one domain's QEMU, which allows only this kind of login."""
    if kind == "kerberos":
        return f"mech_list: gssapi\nkeytab: {keytab}\n"
    return (
        "mech_list: scram-sha-256\npwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
        f"sasldb_path: {directory}/{DATABASE}\n"
    )


def admit(directory: Path, name: str, password: str, private: Path) -> bytes:
    """Accept this name and password from a viewer, and no earlier ones.

    Gives what `shut` takes later. The database is made in `private`, a directory that only root
    can open. Raises HostError.
    """
    import tempfile  # imports much that no hook needs

    with tempfile.TemporaryDirectory(dir=private) as work:
        made = Path(work, DATABASE)
        try:
            run(_SASLPASSWD, "-p", "-c", "-f", str(made), "-a", _APPLICATION, name, stdin=password)
        except CommandError as error:
            raise HostError(
                f"the ticket cannot be written: {error.said}",
                fix=f"apt install {_PACKAGES['tickets']}",
            ) from None
        content = made.read_bytes()
        _publish(directory, content)
        return content


def shut(directory: Path, admitted: bytes) -> None:
    """Accept these no more; harmless where the domain stopped or has accepted others since."""
    with suppress(FileNotFoundError):
        if (directory / DATABASE).read_bytes() == admitted:
            _publish(directory, b"")


def shut_all(directory: Path) -> None:
    """Accept no name and password any more; harmless where the domain stopped."""
    with suppress(FileNotFoundError):
        if (directory / DATABASE).stat().st_size:
            _publish(directory, b"")


def _publish(directory: Path, content: bytes) -> None:
    gid = (directory / CONFIGURATION).stat().st_gid
    files.write_atomically(directory / DATABASE, content, 0o640, gid=gid)
