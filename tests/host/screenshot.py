# SPDX-License-Identifier: GPL-2.0-or-later
"""What a viewer sees, as a picture.

    python3 -B -m tests.host -- python3 -B -m tests.host.screenshot docs/console.png

starts a VM under guard, has `virt-warden console` give a ticket, and looks by what it says.
"""

from __future__ import annotations

import configparser
import struct
import sys
import tempfile
import zlib
from pathlib import Path

from tests.host import vnc
from tests.host.command import run
from tests.host.consoled import console_service
from tests.host.domain import Vnc, domain_xml
from tests.host.install import install
from tests.host.libvirt import libvirtd

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUE_COLOUR = 2


def png(width: int, height: int, rgb: bytes) -> bytes:
    """A picture as a PNG file (RFC 2083)."""
    header = struct.pack("!IIBBBBB", width, height, 8, _TRUE_COLOUR, 0, 0, 0)
    rows = (rgb[3 * width * row : 3 * width * (row + 1)] for row in range(height))
    # Each row is led by its filter: none.
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack("!I", len(content)) + checked + struct.pack("!I", zlib.crc32(checked))


def seen(viewer_file: Path) -> tuple[int, int, bytes]:
    """What a viewer sees who has nothing but the file that a ticket came with."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(viewer_file)
    given = parser["virt-viewer"]
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca:
        ca.write(given["ca"].replace("\\n", "\n"))
        ca.flush()
        address = given["host"], int(given["port"])
        return vnc.screen(*address, ca.name, given["password"], given["host"])


def _take(picture: Path) -> None:
    install()
    with libvirtd() as libvirt, console_service(), tempfile.TemporaryDirectory() as directory:
        libvirt.define(domain_xml("web01", vnc=Vnc()))
        run("virt-warden", "enrol", "web01")
        libvirt.start("web01")
        run("virt-warden", "console", "web01", "--out", directory)
        picture.write_bytes(png(*seen(Path(directory) / "web01.vv")))


if __name__ == "__main__":
    _take(Path(sys.argv[1]))
