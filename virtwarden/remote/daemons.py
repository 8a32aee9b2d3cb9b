# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons that make libvirt reachable from elsewhere, and how each is configured.

https://libvirt.org/daemons.html: one libvirtd, or virtproxyd before the modular ones.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system import conf
from virtwarden.system.conf import Settings

PLAIN_PORT, TLS_PORT = 16509, 16514
_LISTENING = "0A"
_SETTINGS = Path("/etc/libvirt")
_PROGRAMS = Path("/usr/sbin")
_ENABLED = Path("/etc/systemd/system/sockets.target.wants")


@dataclass(frozen=True)
class Daemon:
    """One daemon; `program` is its path, where it is installed."""

    name: str
    file: Path
    program: Path

    def settings(self) -> Settings:
        """What its file sets. Raises HostError where that cannot be understood."""
        return conf.settings(self.file, conf.LIBVIRTD)


def gateway(settings: Path = _SETTINGS, programs: Path = _PROGRAMS) -> Daemon:
    """The daemon that listens to the network: virtproxyd, or libvirtd where it is the only one."""
    modular = (programs / "virtproxyd").exists() and (settings / "virtproxyd.conf").exists()
    name = "virtproxyd" if modular else "libvirtd"
    return Daemon(name, settings / f"{name}.conf", programs / name)


def listens_by_tls_from_boot_on(name: str, enabled: Path = _ENABLED) -> bool:
    """Whether systemd listens for TLS in this daemon's place from the boot on."""
    return (enabled / f"{name}-tls.socket").is_symlink()


def listening_ports(
    tables: tuple[Path, ...] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6")),
) -> frozenset[tuple[str, int]]:
    """Address and port of each TCP socket of this network namespace that listens; proc(5)."""
    return frozenset(found for table in tables if table.exists() for found in _listening(table))


def _listening(table: Path) -> Iterator[tuple[str, int]]:
    for line in table.read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == _LISTENING:
            address, _, port = words[1].partition(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> str:
    """The kernel writes addresses as words of 32 bits, each in the host's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))
