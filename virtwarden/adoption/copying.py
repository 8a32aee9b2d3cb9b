# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies a disk into its open container, and compares the two."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

from virtwarden.errors import HostError
from virtwarden.luks import adoption
from virtwarden.luks.adoption import Adoption, Phase
from virtwarden.luks.dialogue import Progress
from virtwarden.paths import Paths
from virtwarden.system.blocks import Blocks

_CHUNK_BYTES = 4 * 1024 * 1024
_CHECKPOINT_BYTES = 64 * _CHUNK_BYTES
# linux/fs.h: it drops what the kernel has cached of a block device, so that reads reach the disk.
_BLKFLSBUF = 0x1261


def copy(paths: Paths, state: Adoption, source: Blocks, node: str, progress: Progress) -> Adoption:
    """Copy the disk from where a former run left off, then check that the copy is the same.

    Raises HostError where it cannot read or write one of them, or where they differ. A difference
    means that somebody wrote to the disk meanwhile: the next call starts the copy again.
    """
    handle = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        state = _copy(paths, state, source, handle, progress)
        fcntl.ioctl(handle, _BLKFLSBUF)
        digest = _compare(source, handle, state.size, progress)
    finally:
        os.close(handle)
    if not digest:
        adoption.store(paths, replace(state, offset=0))
        raise HostError(
            "the copy differs from the disk: something wrote to the disk meanwhile",
            where=state.source,
            fix=f"see what (fuser -v {state.source}), then again:"
            f" virt-warden luks adopt {state.name} {state.target}",
        )
    return adoption.store(paths, replace(state, phase=Phase.SWITCHING, digest=digest))


def _copy(
    paths: Paths, state: Adoption, source: Blocks, handle: int, progress: Progress
) -> Adoption:
    offset = state.offset
    while offset < state.size:
        chunk = source.read(offset, min(_CHUNK_BYTES, state.size - offset))
        _write(handle, chunk, offset)
        offset += len(chunk)
        progress(offset, 2 * state.size)
        if offset % _CHECKPOINT_BYTES == 0 or offset == state.size:
            os.fsync(handle)
            state = adoption.store(paths, replace(state, offset=offset))
    return state


def _write(handle: int, chunk: bytes, offset: int) -> None:
    written = 0
    while written < len(chunk):
        written += os.pwrite(handle, chunk[written:], offset + written)


def _compare(source: Blocks, handle: int, size: int, progress: Progress) -> str:
    """The digest of both, or an empty string where they differ."""
    there, here = hashlib.sha256(), hashlib.sha256()
    for offset, chunk in _chunks(source, size):
        there.update(chunk)
        here.update(os.pread(handle, len(chunk), offset))
        progress(size + offset + len(chunk), 2 * size)
    return there.hexdigest() if there.digest() == here.digest() else ""


def digest(source: Blocks, progress: Progress) -> str:
    """The SHA-256 of what a disk holds, as `copy` makes it."""
    whole = hashlib.sha256()
    for offset, chunk in _chunks(source, source.size):
        whole.update(chunk)
        progress(offset + len(chunk), source.size)
    return whole.hexdigest()


def _chunks(source: Blocks, size: int) -> Iterator[tuple[int, bytes]]:
    """So much of a disk, piece by piece, each with its place."""
    for offset in range(0, size, _CHUNK_BYTES):
        yield offset, source.read(offset, min(_CHUNK_BYTES, size - offset))
