# SPDX-License-Identifier: GPL-2.0-or-later
"""What the header of a qcow2 image says, read without QEMU.

QEMU opens other files that a header names, which a guest may have written. This only reads bytes.
Reference: docs/interop/qcow2.txt in QEMU's source.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from virtwarden.errors import HostError
from virtwarden.system import filesystems

_MAGIC = b"QFI\xfb"
_FIXED_BYTES, _V2_BYTES, _V3_BYTES = 104, 72, 104
_DATA_FILE = 1 << 2
_BACKING_FORMAT, _END = 0xE2792ACA, 0
# QEMU takes no longer name, and no extension beyond the first cluster.
_NAME_BYTES, _EXTENSION_BYTES, _EXTENSIONS = 1023, 64, 64


@dataclass(frozen=True)
class Header:
    """A header; whoever wrote the image can have written anything into it."""

    untrusted_base: str
    untrusted_format: str
    snapshots: int
    has_data_file: bool


def read(path: str) -> Header:
    """The header of an image. Raises HostError where it is not that of a qcow2 image."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise filesystems.unreadable(path, error) from None
    try:
        return read_open(handle, path)
    finally:
        os.close(handle)


def read_open(handle: int, path: str) -> Header:
    """The same of an open file."""
    start = os.pread(handle, _FIXED_BYTES, 0)
    if len(start) < _V2_BYTES or not start.startswith(_MAGIC):
        raise HostError(f"{path} is no qcow2 image", fix=f"qemu-img info {path}")
    version, offset, length = struct.unpack(">IQI", start[4:20])
    (snapshots,) = struct.unpack(">I", start[60:64])
    features, header_bytes = 0, _V2_BYTES
    if version > 2 and len(start) >= _V3_BYTES:
        (features,) = struct.unpack(">Q", start[72:80])
        (header_bytes,) = struct.unpack(">I", start[100:104])
    name = b""
    if offset and length:
        if length > _NAME_BYTES or offset > 2**31:
            raise HostError(f"{path} names a base in a way that QEMU does not")
        name = os.pread(handle, length, offset)
    return Header(
        name.decode(errors="surrogateescape"),
        _backing_format(handle, min(header_bytes, 2**16)),
        snapshots,
        bool(features & _DATA_FILE),
    )


def _backing_format(handle: int, place: int) -> str:
    for _ in range(_EXTENSIONS):
        head = os.pread(handle, 8, place)
        if len(head) < 8:
            break
        kind, length = struct.unpack(">II", head)
        if kind == _END or length > 2**21:
            break
        if kind == _BACKING_FORMAT:
            name = os.pread(handle, min(length, _EXTENSION_BYTES), place + 8)
            return name.decode(errors="replace")
        place += 8 + -(-length // 8) * 8
    return ""
