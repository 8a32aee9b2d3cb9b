# SPDX-License-Identifier: GPL-2.0-or-later
"""Which endpoints of the network and devices of the host a command line names.

Each is a text, in the same words as in the ticket (virtwarden/domain/outside.py): `nbd HOST port
PORT`, `listen ADDRESS port PORT`, `pci 0000:01:00.0`.
"""

from __future__ import annotations

from argv import NETWORK_DRIVERS
from hostfiles import MEDIATED, USB
from refusal import XML, Refusal
from texts import words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from argv import Option
    from ticket import Ticket

# Which way a `-netdev socket` goes, by its key: who connects, and who is connected to.
_SOCKET_KEYS = {
    "connect": "tcp",
    "listen": "listen",
    "localaddr": "from",
    "mcast": "mcast",
    "udp": "udp",
}
OUTSIDE = words_of("audiodev blockdev chardev device netdev")
_SOUND_KEYS = ("dev", "server", "server-name")


def check_outside(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Every endpoint and every device of the host is one that the reviewed XML names."""
    if ticket["outside"] is None:
        return
    for option in options:
        if option.name in OUTSIDE and option.is_ambiguous:
            yield Refusal(f"a key stands twice in -{option.name} {option.value!r}", XML)
        for named in outside(option):
            if named not in ticket["outside"]:
                yield Refusal(f"-{option.name} leads to {named!r}, which was not reviewed", XML)


def outside(option: Option) -> Iterator[str]:
    """What an option names of the network and of the host's devices."""
    if option.name == "blockdev":
        for node in objects(option.tree):
            yield from of_volume(node)
    elif option.name == "chardev":
        yield from of_chardev(option.tree)
    elif option.name == "netdev":
        for key, way in _SOCKET_KEYS.items():
            yield from address(way, said(option.tree, key))
    elif option.name == "audiodev":
        for node in objects(option.tree):
            yield from (f"sound {said(node, key)}" for key in _SOUND_KEYS if said(node, key))
    elif option.name == "device":
        yield from of_device(option.tree)


def objects(node: Any) -> Iterator[Mapping[str, Any]]:
    """The object itself and all objects in it."""
    if isinstance(node, list):
        for item in node:
            yield from objects(item)
    elif isinstance(node, dict):
        yield node
        for value in node.values():
            yield from objects(value)


def said(node: Mapping[str, Any], key: str) -> str:
    value = node.get(key, "")
    return value if isinstance(value, str) else str(value)


def of_volume(node: Mapping[str, Any]) -> Iterator[str]:
    driver = said(node, "driver")
    if driver == "nvme":
        yield f"pci {said(node, 'device')}"
    if driver not in NETWORK_DRIVERS:
        return
    for server in objects(node.get("server")):
        yield from place(driver, said(server, "host"), said(server, "port"))
    yield from address(driver, said(node, "portal"))
    if "url" in node:
        authority = said(node, "url").partition("://")[2].partition("/")[0]
        yield from address(driver, authority)


def of_chardev(node: Mapping[str, Any]) -> Iterator[str]:
    far = said(node, "host"), said(node, "port")
    if said(node, "backend") == "udp":
        yield from place("udp", *far)
        yield from place("from", said(node, "localaddr"), said(node, "localport"))
    else:
        listens = said(node, "server")
        way = {"": "tcp", "off": "tcp", "on": "listen"}.get(listens, f"server={listens}")
        yield from place(way, *far)


def of_device(node: Mapping[str, Any]) -> Iterator[str]:
    for key, kind in (("host", "pci"), ("wwpn", "scsi"), ("guest-cid", "vsock")):
        if key in node:
            yield f"{kind} {said(node, key)}"
    if "sysfsdev" in node:
        yield f"mdev {said(node, 'sysfsdev').removeprefix(MEDIATED)}"
    if "hostdevice" in node:
        yield usb(*said(node, "hostdevice").removeprefix(USB).partition("/")[::2])
    if "hostbus" in node or "hostaddr" in node:
        yield usb(said(node, "hostbus"), said(node, "hostaddr"))


def usb(bus: str, device: str) -> str:
    """As libvirt's XML has them: without the zeros that begin the numbers in a path."""
    return f"usb {bus.lstrip('0') or '0'} {device.lstrip('0') or '0'}"


def address(way: str, text: str) -> Iterator[str]:
    """Of `HOST:PORT`, `[HOST]:PORT`, `:PORT` or `HOST`."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, ""
    yield from place(way, host.removeprefix("[").removesuffix("]"), port)


def place(way: str, host: str, port: str) -> Iterator[str]:
    port = "" if port == "0" else port
    if host or port:
        yield f"{way} {host} port {port}" if port else f"{way} {host}"
