# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's device mapper, as the kernel shows it: the maps, and the devices below each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system.blockstack import Identity, behind_loop, number_of

NODES = Path("/dev/mapper")


@dataclass(frozen=True)
class Map:
    """One device of the device mapper, open as /dev/mapper/NAME.

    `uuid` tells its kind: cryptsetup's begin with CRYPT- and name the type and the container.
    """

    name: str
    uuid: str
    number: int
    readonly: bool
    below: tuple[Identity, ...]

    @property
    def node(self) -> str:
        """The path that stands in a domain's XML."""
        return str(NODES / self.name)


def maps(devices: Path) -> tuple[Map, ...]:
    """All maps of the host; `devices` is /sys/block."""
    return tuple(_maps(devices))


def find(devices: Path, name: str) -> Map | None:
    """The map of this name, or None."""
    return next((found for found in _maps(devices) if found.name == name), None)


def _maps(devices: Path) -> Iterator[Map]:
    for device in sorted(devices.glob("dm-*")):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            yield Map(
                name=_text(device / "dm" / "name"),
                uuid=_text(device / "dm" / "uuid"),
                number=number_of(device),
                readonly=_text(device / "ro") == "1",
                below=tuple(_identity(slave) for slave in sorted((device / "slaves").iterdir())),
            )


def _identity(device: Path) -> Identity:
    if (device / "loop").is_dir():
        with suppress(OSError):  # the loop device was released meanwhile
            return behind_loop(device.name)
    return number_of(device), 0


def _text(path: Path) -> str:
    return path.read_text().strip()
