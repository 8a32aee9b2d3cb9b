# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of a disk image of any format, as the guest sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from virtwarden.errors import HostError

_QEMU_NBD = "/usr/bin/qemu-nbd"
# QEMU rounds the size of a disk up to a multiple of this.
SECTOR_BYTES = 512


@dataclass(frozen=True)
class Layer:
    """One image of a chain, which begins with the guest's own image."""

    path: str
    format: str
    is_device: bool


class Blocks(Protocol):
    """A disk's bytes, from 0 to its size, which is a whole number of sectors."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes within the disk's size. Raises HostError where they cannot be read."""


class _Raw(Blocks):
    def __init__(self, handle: int, path: str) -> None:
        self._handle = handle
        self._path = path
        self._end = os.lseek(handle, 0, os.SEEK_END)
        self.size = -(-self._end // SECTOR_BYTES) * SECTOR_BYTES

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes. Where the file ends within its last sector, the guest sees zeros."""
        content = b""
        while offset + len(content) < min(offset + length, self._end):
            try:
                piece = os.pread(self._handle, length - len(content), offset + len(content))
            except OSError as error:
                raise HostError(f"{self._path} cannot be read: {error.strerror}") from None
            if not piece:
                raise HostError(f"{self._path} became shorter while it was read")
            content += piece
        return content.ljust(length, b"\0")


class _Served(Blocks):
    def __init__(self, server: Any) -> None:
        self._server = server
        self.size = int(server.get_size())

    def read(self, offset: int, length: int) -> bytes:
        try:
            return bytes(self._server.pread(length, offset))
        except Exception as error:  # noqa: BLE001 - libnbd has an error class of its own
            raise HostError(f"qemu-nbd does not read the disk: {error}") from None


@contextmanager
def opened(chain: Sequence[Layer]) -> Iterator[Blocks]:
    """A disk, for reading. Its base images come from `chain`, never from an image's header.

    Raises HostError where it cannot be opened.
    """
    top = chain[0]
    if top.format == "raw":
        handle = os.open(top.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield _Raw(handle, top.path)
        finally:
            os.close(handle)
        return
    with _served(chain) as server:
        yield _Served(server)


@contextmanager
def _served(chain: Sequence[Layer]) -> Iterator[Any]:
    """A libnbd(3) connection to its own qemu-nbd(8), which ends with it."""
    try:
        import nbd
    except ImportError:
        raise HostError(
            f"{chain[0].path} is of format {chain[0].format}, and nothing is here to read that",
            fix="apt install python3-libnbd qemu-utils",
        ) from None
    server = nbd.NBD()
    command = [_QEMU_NBD, "--read-only", "--cache=none", "--aio=threads"]
    try:
        server.connect_systemd_socket_activation([*command, _named(chain)])
    except nbd.Error as error:
        raise HostError(f"qemu-nbd does not open {chain[0].path}: {error}") from None
    try:
        yield server
    finally:
        server.shutdown()


def _named(chain: Sequence[Layer]) -> str:
    """The chain as one "json:" name (qemu(1)) that leaves QEMU nothing to look up."""
    below: dict[str, Any] | None = None
    for layer in reversed(chain):
        file = {"driver": "host_device" if layer.is_device else "file", "filename": layer.path}
        node: dict[str, Any] = {"driver": layer.format, "file": file}
        if layer.format != "raw":
            node["backing"] = below
        below = node
    return f"json:{json.dumps(below)}"
