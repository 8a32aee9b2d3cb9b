# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts that a domain's QEMU connects to, and the ports at which it listens, by its XML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from virtwarden.domain.model import Domain, Line, Nic, Volume

# Where the XML names none: libvirt's own choice, virStorageSourceNetworkDefaultPort. Ceph's
# monitors have two (v2 and v1 of its protocol).
_DEFAULT_PORTS = {
    "http": (80,),
    "https": (443,),
    "iscsi": (3260,),
    "nbd": (10809,),
    "rbd": (3300, 6789),
    "sheepdog": (7000,),
    "ssh": (22,),
    "vxhs": (9999,),
}
# Which ask a server for the ports of the rest, or answer from another port (TFTP).
_CHANGE_PORTS = frozenset({"ftp", "ftps", "tftp", "nfs", "gluster"})
# Ceph's monitors tell where the data is.
_LEARN_HOSTS = frozenset({"rbd"})
_ALL_PORTS = 0
_UNIX = "unix"


@dataclass(frozen=True)
class Peer:
    """A host that QEMU sends to; a port of 0 means all of them, `any` TCP and UDP."""

    what: str
    protocol: Literal["tcp", "udp", "any"]
    host: str
    port: int


def peers(domain: Domain) -> tuple[Peer, ...]:
    """Every host of the XML that QEMU itself sends to, each once.

    Not what a NIC of the type `user` reaches: that may be anything.
    """
    found = [peer for volume in domain.volumes for peer in _of_volume(volume)]
    found += [peer for line in domain.lines for peer in _of_line(line)]
    found += [peer for nic in domain.nics for peer in _of_nic(nic)]
    return tuple(dict.fromkeys(peer for peer in found if peer.host))


def reaches_anything(domain: Domain) -> bool:
    """Whether QEMU sends what the guest sends, as its own."""
    return any(nic.kind == "user" for nic in domain.nics)


def learners(domain: Domain) -> tuple[str, ...]:
    """The protocols of the domain's disks that also lead to hosts which no XML names."""
    return tuple(sorted({volume.protocol for volume in domain.volumes} & _LEARN_HOSTS))


def listeners(domain: Domain) -> tuple[tuple[str, int], ...]:
    """The hosts and TCP ports at which QEMU listens for something else than viewers."""
    lines = [
        (line.host, line.service)
        for line in domain.lines
        if (line.kind, line.mode) == ("tcp", "bind")
    ]
    nics = [(nic.address, nic.port) for nic in domain.nics if nic.kind == "server"]
    written = dict.fromkeys([*lines, *nics])
    return tuple((host, int(port)) for host, port in written if port.isdecimal())


def _of_volume(volume: Volume) -> Iterator[Peer]:
    what = f"{volume.protocol} disk"
    for host in volume.hosts:
        if host.transport == _UNIX:
            continue
        if volume.protocol in _CHANGE_PORTS:
            yield Peer(what, "any", host.name, _ALL_PORTS)
        else:
            default = _DEFAULT_PORTS.get(volume.protocol, (_ALL_PORTS,))
            ports = (int(host.port),) if host.port.isdecimal() else default
            yield from (Peer(what, "tcp", host.name, port) for port in ports)


def _of_line(line: Line) -> Iterator[Peer]:
    if line.kind in ("tcp", "udp") and line.mode == "connect":
        port = int(line.service) if line.service.isdecimal() else _ALL_PORTS
        yield Peer("line", "tcp" if line.kind == "tcp" else "udp", line.host, port)


def _of_nic(nic: Nic) -> Iterator[Peer]:
    if nic.kind in ("client", "mcast", "udp") and nic.port.isdecimal():
        yield Peer("NIC", "tcp" if nic.kind == "client" else "udp", nic.address, int(nic.port))
