# SPDX-License-Identifier: GPL-2.0-or-later
"""Which endpoints of the network and devices of the host a domain's XML names.

Each is a text, in the words in which the wrapper says what it finds on QEMU's command line
(wrapper/outside.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.domain.model import Domain, Line, Nic, Volume

# Where the XML names none: libvirt's own choice, virStorageSourceNetworkDefaultPort.
_DEFAULT_PORTS = {
    "ftp": "21",
    "ftps": "990",
    "gluster": "24007",
    "http": "80",
    "https": "443",
    "iscsi": "3260",
    "nbd": "10809",
    "ssh": "22",
}
_UNIX = "unix"
_WAYS_OF_LINES = {
    ("tcp", "bind"): "listen",
    ("tcp", "connect"): "tcp",
    ("udp", "bind"): "from",
    ("udp", "connect"): "udp",
}
_WAYS_OF_NICS = {"client": "tcp", "mcast": "mcast", "server": "listen", "udp": "udp"}


def outside(domain: Domain) -> frozenset[str]:
    """Everything outside of this host, and every device of it, that QEMU's command line may name.

    Not what a guard compares by itself: files, consoles, NICs on a bridge.
    """
    return frozenset([*_endpoints(domain), *_devices(domain)])


def _endpoints(domain: Domain) -> Iterator[str]:
    for volume in domain.volumes:
        yield from _of_volume(volume)
    for line in domain.lines:
        yield from _of_line(line)
    for nic in domain.nics:
        yield from _of_nic(nic)


def _of_volume(volume: Volume) -> Iterator[str]:
    for host in volume.hosts:
        if host.transport != _UNIX:
            port = host.port or _DEFAULT_PORTS.get(volume.protocol, "")
            yield from _place(volume.protocol, host.name, port)


def _of_line(line: Line) -> Iterator[str]:
    way = _WAYS_OF_LINES.get((line.kind, line.mode))
    if way:
        yield from _place(way, line.host, line.service)


def _of_nic(nic: Nic) -> Iterator[str]:
    way = _WAYS_OF_NICS.get(nic.kind)
    if way:
        yield from _place(way, nic.address, nic.port)
        yield from _place("from", nic.local_address, nic.local_port)


def _place(way: str, host: str, port: str) -> Iterator[str]:
    port = "" if port == "0" else port
    if host or port:
        yield f"{way} {host} port {port}" if port else f"{way} {host}"


def _devices(domain: Domain) -> Iterator[str]:
    for kind, found in (
        ("pci", map(str, domain.pci_devices)),
        ("usb", map(str, domain.usb_devices)),
        ("mdev", domain.mediated_devices),
        ("scsi", domain.scsi_hosts),
        ("vsock", domain.vsocks),
        ("sound", domain.sound_servers),
    ):
        yield from (f"{kind} {each}" for each in found if each)
