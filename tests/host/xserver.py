# SPDX-License-Identifier: GPL-2.0-or-later
"""An X server without a screen of its own (Xvfb), and what a person would see on it."""

from __future__ import annotations

import os
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCREEN = "1600x1200x24"
_PATIENCE_SECONDS = 60
_BETWEEN_LOOKS_SECONDS = 0.2
# X11/XWDFile.h: numbers of 32 bits, and an entry for each colour.
_HEADER = struct.Struct(">25I")
_COLOUR_BYTES = 12
_BYTES_OF_A_PIXEL = 4


@dataclass(frozen=True)
class Picture:
    """Rows of pixels, each three bytes: red, green, blue."""

    width: int
    rows: tuple[bytes, ...]

    @property
    def is_something(self) -> bool:
        """Whether it has more than one colour."""
        return len({row[at : at + 3] for row in self.rows for at in range(0, len(row), 3)}) > 1

    def shows(self, other: Picture) -> bool:
        """Whether the other picture is somewhere in this one, pixel by pixel."""
        # The search begins with a row that is unlike the rest.
        first = max(range(len(other.rows)), key=lambda y: len(zlib.compress(other.rows[y])))
        for y in range(first, len(self.rows) - len(other.rows) + first + 1):
            left = self.rows[y].find(other.rows[first])
            while left >= 0:
                if left % 3 == 0 and self._has_at(left, y - first, other):
                    return True
                left = self.rows[y].find(other.rows[first], left + 1)
        return False

    def _has_at(self, left: int, top: int, other: Picture) -> bool:
        end = left + 3 * other.width
        pairs = zip(self.rows[top:], other.rows, strict=False)
        return all(mine[left:end] == its for mine, its in pairs)


def from_png(content: bytes) -> Picture:
    """A picture as `virsh screenshot` writes it: PNG (RFC 2083), 8 bits a colour."""
    chunks = dict(_chunks(content))
    width, height, depth, colours = struct.unpack_from("!IIBB", chunks[b"IHDR"])
    assert (depth, colours) == (8, 2)
    scanned = zlib.decompress(chunks[b"IDAT"])
    rows: list[bytes] = []
    for at in range(0, height * (3 * width + 1), 3 * width + 1):
        above = rows[-1] if rows else bytes(3 * width)
        rows.append(_unfiltered(scanned[at], scanned[at + 1 : at + 1 + 3 * width], above))
    return Picture(width, tuple(rows))


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's kind and content; several of image data as the last of them."""
    data, at = b"", 8
    while at < len(content):
        length, kind = struct.unpack_from("!I4s", content, at)
        body = content[at + 8 : at + 8 + length]
        data += body if kind == b"IDAT" else b""
        yield kind, data if kind == b"IDAT" else body
        at += length + 12


def _unfiltered(kind: int, scanned: bytes, above: bytes) -> bytes:
    """A row without its filter (RFC 2083, 6)."""
    row = bytearray(scanned)
    for at in range(len(row)):
        left, up = row[at - 3] if at >= 3 else 0, above[at]
        corner = above[at - 3] if at >= 3 else 0
        guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]
        row[at] = (row[at] + guess) & 255
    return bytes(row)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


@dataclass(frozen=True)
class XServer:
    """One that runs: its display's name, and the file that is its screen."""

    display: str
    screen: Path

    def picture(self) -> Picture:
        """What is on it now."""
        content = self.screen.read_bytes()
        header = _HEADER.unpack_from(content)
        size, width, height, line, colours = (header[at] for at in (0, 4, 5, 12, 19))
        rows = []
        for y in range(height):
            begin = size + colours * _COLOUR_BYTES + y * line
            row = content[begin : begin + width * _BYTES_OF_A_PIXEL]
            colour = bytearray(3 * width)
            colour[0::3], colour[1::3], colour[2::3] = row[2::4], row[1::4], row[0::4]
            rows.append(bytes(colour))
        return Picture(width, tuple(rows))

    def comes_to_show(self, picture: Picture, seconds: float = _PATIENCE_SECONDS) -> bool:
        """Whether it shows this within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.picture().shows(picture):
                return True
            time.sleep(_BETWEEN_LOOKS_SECONDS)
        return False

    @contextmanager
    def running(
        self, who: str, home: Path, command: Sequence[str], typed: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Run a program with windows, as this user; `typed` is what it asks the environment for."""
        become = ("setpriv", f"--reuid={who}", f"--regid={who}", "--init-groups", "--")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DISPLAY": self.display,
            "GDK_BACKEND": "x11",
            # Without these GTK waits for services of a desktop.
            "NO_AT_BRIDGE": "1",
            "GSETTINGS_BACKEND": "memory",
            **(typed or {}),
        }
        program = subprocess.Popen(
            [*become, *command],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            program.kill()
            program.wait()


@contextmanager
def x_server(directory: Path) -> Iterator[XServer]:
    """Run an X server, with its screen in a file of this directory."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", _SCREEN, "-fbdir", str(directory)],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as said:
            number = said.readline().strip()
        assert number, "Xvfb does not start"
        yield XServer(f":{number}", directory / "Xvfb_screen0")
    finally:
        server.kill()
        server.wait()
