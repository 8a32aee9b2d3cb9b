# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of a disk image of any format, as the guest sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from virtwarden.errors import HostError
from virtwarden.system import qcow2, storagedaemon
from virtwarden.system.storagedaemon import Layer

__all__ = ["SECTOR_BYTES", "Blocks", "Layer", "opened"]

# QEMU rounds the size of a disk up to a multiple of this.
SECTOR_BYTES = 512


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
            raise HostError(f"QEMU does not read the disk: {error}") from None


@contextmanager
def opened(chain: Sequence[Layer]) -> Iterator[Blocks]:
    """A disk, for reading. Its base images come from `chain`, never from an image's header.

    Raises HostError where it cannot be opened.
    """
    top = chain[0]
    if top.format == "raw":
        with _read_only(top.path) as handle:
            yield _Raw(handle, top.path)
        return
    with _served(chain) as server:
        yield _Served(server)


@contextmanager
def _served(chain: Sequence[Layer]) -> Iterator[Any]:
    """A libnbd(3) connection to a QEMU of its own, which ends with it."""
    try:
        import nbd
    except ImportError:
        raise HostError(
            f"{chain[0].path} is of format {chain[0].format}, and nothing is here to read that",
            fix="apt install python3-libnbd qemu-utils qemu-system-common",
        ) from None
    with ExitStack() as stack:
        handles = [stack.enter_context(_read_only(layer.path)) for layer in chain]
        connect, name = stack.enter_context(storagedaemon.serving(chain, handles))
        server = nbd.NBD()
        server.set_export_name(name)
        try:
            with connect() as connected:
                server.connect_socket(os.dup(connected))
        except nbd.Error as error:
            raise HostError(
                f"QEMU does not open {chain[0].path}: {error}",
                fix="see what its header names, which the VM may have forged: qemu-img info -U"
                f" -f {chain[0].format} {chain[0].path}",
            ) from None
        try:
            _must_be_whole(chain, handles)
            yield server
        finally:
            server.shutdown()


@contextmanager
def _read_only(path: str) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _must_be_whole(chain: Sequence[Layer], handles: Sequence[int]) -> None:
    """Check, now that QEMU has opened the chain, that no image had it open another file.

    Raises HostError.
    """
    for layer, handle in zip(chain, handles, strict=True):
        if layer.format == "qcow2" and qcow2.read_open(handle, layer.path).has_data_file:
            raise HostError("its data lies in another file", where=layer.path)
