"""A disk in the clear on its way into a LUKS container, in steps that a kill cannot undo.

What was reached is on the disk before the next step begins. Until the copy is compared with the
former disk, byte for byte, nothing of that disk, and nothing in the domain's XML, is altered.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from lxml import etree

from virtwarden.changes import journal
from virtwarden.domain.model import parse
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.blocks import Blocks, Layer

_CHUNK_BYTES = 4 * 1024 * 1024
_CHECKPOINT_BYTES = 64 * _CHUNK_BYTES
_STATE = "state.json"
# linux/fs.h: what the kernel keeps of a block device is let go, so that it is read from the disk.
_BLKFLSBUF = 0x1261

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done."""


class Phase(StrEnum):
    """How far a disk has come."""

    FORMATTING = "formatting"
    """The container is being made: it holds nothing yet."""
    COPYING = "copying"
    """The disk is copied, up to `offset`."""
    SWITCHING = "switching"
    """The copy is the same as the disk: the domain's XML is about to name it."""
    DONE = "done"
    """The domain has the container; the former disk is still there, in the clear."""


@dataclass(frozen=True)
class Adoption:
    """One disk; `chain` are the images that it was made of, the guest's own first."""

    domain: str
    name: str
    target: str
    chain: tuple[Layer, ...]
    number: int
    size: int
    container: str
    phase: Phase = Phase.FORMATTING
    offset: int = 0
    digest: str = ""

    @property
    def source(self) -> str:
        """The former disk."""
        return self.chain[0].path


def workplace(paths: Paths) -> Paths:
    """Where adoptions have their journals: apart from the domains', which others undo meanwhile."""
    return replace(paths, state=paths.state / "adoptions")


def key(domain: str, target: str) -> str:
    """The name under which one disk's journal is kept."""
    return f"{domain}-{target}"


@contextmanager
def at_work(paths: Paths, name: str) -> Iterator[None]:
    """Have one disk to ourselves, with what a killed run left undone first, and ours at the end.

    Raises HostError where another command is at work on it.
    """
    work = workplace(paths)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(work.domain_state(name), wait=False))
        except BlockingIOError:
            raise HostError(
                "another virt-warden luks adopt is at work on this disk",
                fix="wait until it is done; see it: pgrep -af 'luks adopt'",
            ) from None
        journal.undo(work, name)
        try:
            yield
        finally:
            journal.undo(work, name)
            with suppress(OSError):  # unfinished, it stays
                work.domain_state(name).rmdir()


def recover(paths: Paths) -> Iterator[str]:
    """Undo what killed runs left, and say what; a run that is at work is let be."""
    work = workplace(paths)
    for name in journal.known_domains(work):
        done = len(journal.records(work, name))
        if done:
            with suppress(HostError), at_work(paths, name):
                yield f"{name}: {done} changes undone"


def load(paths: Paths, domain: str, target: str) -> Adoption | None:
    """What was reached with a disk, or None where nothing was begun."""
    return _read(_file(paths, domain, target))


def _read(file: Path) -> Adoption | None:
    try:
        said = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    said["chain"] = tuple(Layer(**layer) for layer in said["chain"])
    return Adoption(**{**said, "phase": Phase(said["phase"])})


def store(paths: Paths, adoption: Adoption) -> Adoption:
    """Write down what was reached, for good, before the next step."""
    file = _file(paths, adoption.domain, adoption.target)
    files.private_directory(file.parent)
    files.write_atomically(file, json.dumps(asdict(adoption)).encode(), 0o600, durable=True)
    return adoption


def forget(paths: Paths, adoption: Adoption) -> None:
    """The disk is done with, or was given up."""
    _file(paths, adoption.domain, adoption.target).unlink(missing_ok=True)


def unfinished(paths: Paths, domain: str) -> tuple[Adoption, ...]:
    """A domain's disks that are on their way, or whose former disk is still in the clear."""
    found = sorted((workplace(paths).state / "domains").glob(f"{domain}-*/{_STATE}"))
    return tuple(adoption for adoption in map(_read, found) if adoption is not None)


def _file(paths: Paths, domain: str, target: str) -> Path:
    return workplace(paths).domain_state(key(domain, target)) / _STATE


def copy(
    paths: Paths, adoption: Adoption, source: Blocks, node: str, progress: Progress
) -> Adoption:
    """Copy the disk from where a former run left off, then see whether it is the same.

    Raises HostError where either cannot be read or written, or where they differ: somebody wrote
    to the disk meanwhile, and the copy begins anew at the next call.
    """
    handle = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        adoption = _copy(paths, adoption, source, handle, progress)
        fcntl.ioctl(handle, _BLKFLSBUF)
        digest = _compare(source, handle, adoption.size, progress)
    finally:
        os.close(handle)
    if not digest:
        store(paths, replace(adoption, offset=0))
        raise HostError(
            "the copy is not the same as the disk: something wrote to the disk meanwhile",
            where=adoption.source,
            fix=f"see what (fuser -v {adoption.source}), then again:"
            f" virt-warden luks adopt {adoption.name} {adoption.target}",
        )
    return store(paths, replace(adoption, phase=Phase.SWITCHING, digest=digest))


def _copy(
    paths: Paths, adoption: Adoption, source: Blocks, handle: int, progress: Progress
) -> Adoption:
    offset = adoption.offset
    while offset < adoption.size:
        chunk = source.read(offset, min(_CHUNK_BYTES, adoption.size - offset))
        _write(handle, chunk, offset)
        offset += len(chunk)
        progress(offset, 2 * adoption.size)
        if offset % _CHECKPOINT_BYTES == 0 or offset == adoption.size:
            os.fsync(handle)
            adoption = store(paths, replace(adoption, offset=offset))
    return adoption


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
    """What a disk holds: its SHA-256, as `copy` has it."""
    whole = hashlib.sha256()
    for offset, chunk in _chunks(source, source.size):
        whole.update(chunk)
        progress(offset + len(chunk), source.size)
    return whole.hexdigest()


def _chunks(source: Blocks, size: int) -> Iterator[tuple[int, bytes]]:
    """So much of a disk, piece by piece, each with its place."""
    for offset in range(0, size, _CHUNK_BYTES):
        yield offset, source.read(offset, min(_CHUNK_BYTES, size - offset))


def moved(xml: bytes, target: str, node: str) -> bytes:
    """The domain's XML with one disk in its open container, and all else as it was."""
    root = parse(xml)
    (disk,) = (
        disk
        for disk in root.iterfind("devices/disk")
        if disk.find(f"target[@dev='{target}']") is not None
    )
    for name in ("source", "backingStore", "encryption"):
        for element in disk.findall(name):
            disk.remove(element)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    driver.set("type", "raw")
    for element in driver.findall("metadata_cache"):  # of qcow2 alone
        driver.remove(element)
    disk.set("type", "block")
    driver.addnext(etree.Element("source", dev=node))
    return bytes(etree.tostring(root, encoding="utf-8"))
