# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the host a domain may use, in the words of `allow`: a kind and a name, `usb 046d:c52b`.

Each kind has one form of a name, so that the words of an XML and of a policy can be compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """How the name of such a thing is written."""

    pattern: str
    example: str
    is_device: bool = False


_PATH = r"/.+"
KINDS: Mapping[str, Kind] = {
    "usb": Kind(r"[0-9a-f]{4}:[0-9a-f]{4}|[0-9]{3}/[0-9]{3}", "usb 046d:c52b", is_device=True),
    "pci": Kind(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", "pci 0000:65:00.0", is_device=True),
    "mdev": Kind(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "mdev 4b20d080-1b54-4048-85b3-a6a62d165c01",
        is_device=True,
    ),
    "scsi": Kind(r"\S+", "scsi 2:0:0:1", is_device=True),
    "evdev": Kind(_PATH, "evdev /dev/input/event3", is_device=True),
    "render-node": Kind(r"/dev/dri/.+", "render-node /dev/dri/renderD128", is_device=True),
    "device": Kind(r"/dev/.+", "device /dev/ttyS0", is_device=True),
    "shmem": Kind(r"[^/]+", "shmem my-memory", is_device=True),
    "serial-tcp": Kind(r"\S+:\w+", "serial-tcp 192.0.2.5:4555", is_device=True),
    "serial-udp": Kind(r"\S+:\w+", "serial-udp 192.0.2.5:4555", is_device=True),
    "vhost-user": Kind(_PATH, "vhost-user /run/vhost.sock"),
    "unix-socket": Kind(_PATH, "unix-socket /run/serial.sock"),
    "program": Kind(_PATH, "program /usr/local/bin/tap-up"),
    "file": Kind(_PATH, "file /srv/serial.pipe"),
    "element": Kind(r"[^/\s]+( [^/\s]+)?", "element audio alsa", is_device=True),
}
"""`is_device`: the exception `host-devices` of version 0.1 still allows it without its name."""

BROAD_EXCEPTION = "host-devices"


def word(kind: str, name: str) -> str:
    """What allows one thing."""
    return f"{kind} {name}"


def wrong_with(written: str) -> str:
    """What is wrong with a word of `allow`; empty where it is well-formed."""
    kind, _, name = written.partition(" ")
    if kind not in KINDS:
        import difflib  # imported here: no start needs it

        near = difflib.get_close_matches(kind, KINDS, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"there is no kind {kind!r}; {meant}the kinds: {', '.join(KINDS)}"
    known = KINDS[kind]
    if not re.fullmatch(known.pattern, name) or name != name.strip() or _strays(kind, name):
        return f'it must be written like "{known.example}"'
    return ""


def is_well_formed(written: str) -> bool:
    """Whether a policy could say this word."""
    return written.isprintable() and not wrong_with(written)


def _strays(kind: str, name: str) -> bool:
    """Whether a path has . or .. or // in it: the XML names one file, and this one another."""
    return name.startswith("/") and os.path.normpath(name.removeprefix("/")) != name[1:]
