# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new LUKS container needs: room, a key and a recovery passphrase."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from virtwarden.changes.claims import Claim
from virtwarden.errors import HostError
from virtwarden.system import credentials, cryptsetup, files, keys
from virtwarden.system.blockstack import identity
from virtwarden.system.keys import HEADER, Place, Secret
from virtwarden.system.mapper import Map

# cryptsetup(8), luksFormat: LUKS2 keeps this much for itself at the beginning of a container.
HEADER_BYTES = 16 * 1024 * 1024
# The alphabet of systemd's recovery keys: it is the same on every keyboard.
_MODHEX = "cbdefghijklnrtuv"
_GROUPS, _GROUP_LETTERS = 8, 8
_KEY_LETTERS = 64


def recovery_passphrase() -> Secret:
    """A passphrase of 256 bits that a person can type."""
    groups = (
        "".join(secrets.choice(_MODHEX) for _ in range(_GROUP_LETTERS)) for _ in range(_GROUPS)
    )
    return Secret("-".join(groups).encode())


def new_key(place: Place, asks: Callable[[str], Secret]) -> Secret | None:
    """The key for a new container: the one in its place, or a new one that is written there.

    None where clevis is to put a key into the container's own header, which does not exist yet.
    Raises HostError where it can neither get nor make a key.
    """
    if place.value == HEADER:
        return None
    if place.kind == "ask":
        return asks(place.purpose)
    path = Path(place.file)
    if not path.exists():
        key = secrets.token_hex(_KEY_LETTERS // 2)
        if place.kind == "file":
            files.private_directory(path.parent)
            files.write_atomically(path, key.encode(), 0o400, durable=True)
        elif place.kind == "credential":
            files.private_directory(path.parent)
            credentials.seal(path, path.name, key)
    return keys.fetch(place)


def make_room(path: str, usable: int) -> None:
    """Make a file for a container of so many usable bytes, where no file is. Raises HostError."""
    found = files.look(path)
    if found.symlink:
        raise HostError(f"{found.symlink} is a symlink", where=path, fix=f"name {found.real}")
    if found.leaf is None:
        _allocate(Path(path), usable + HEADER_BYTES)


def must_fit(path: str, usable: int, *, blank: bool = True) -> None:
    """Raise HostError where a container of so many usable bytes does not fit into what is there.

    With `blank`, what is there must begin with zeros, as far as a new container overwrites it at
    once.
    """
    needed = usable + HEADER_BYTES
    found = files.look(path)
    if found.leaf is None:
        return
    if not (stat.S_ISREG(found.leaf.mode) or stat.S_ISBLK(found.leaf.mode)):
        raise HostError("it is not a file or block device", where=path)
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        begins_with = file.read(HEADER_BYTES)
    if size < needed:
        raise HostError(
            f"it has {size} bytes, and {needed} are needed", where=path, fix=_larger(path, needed)
        )
    if blank and begins_with.strip(b"\0"):
        raise HostError(
            "it is not empty, and its content would be lost",
            where=path,
            fix=f"see what it is (wipefs {path}; lsblk -f {path}); where it is not needed any more:"
            f" blkdiscard -z {path}, or rm",
        )


def _allocate(path: Path, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        fix = f"make the directory: mkdir -p {path.parent}"
        raise HostError(f"it cannot be made: {error.strerror}", where=str(path), fix=fix) from None
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        path.unlink()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise HostError(
            f"there is no room for {size} bytes: {error.strerror}",
            where=str(path),
            fix=f"see what is free (df -h {path.parent}), or name another place in the policy",
        ) from None
    finally:
        os.close(handle)


def _larger(path: str, needed: int) -> str:
    if path.startswith("/dev/"):
        return f"lvextend -L {needed}b {path}, or another volume"
    return f"remove it, and it is made again: rm {path}"


def must_be_unused(path: str, maps: Iterable[Map], claims: Iterable[Claim]) -> None:
    """Raise HostError where a container is open, or a running domain uses it."""
    leaf = files.look(path).leaf
    if leaf is None:
        return
    for found in maps:
        if identity(leaf) in found.below:
            raise HostError(
                f"it is open as {found.node}", where=path, fix=f"cryptsetup close {found.name}"
            )
    for claim in claims:
        raise HostError(
            f"running domain {claim.name} uses it", where=path, fix=f"virsh shutdown {claim.name}"
        )


def encrypt(path: str, key: Secret | None, recovery: Secret) -> None:
    """Make it an empty container that both keys open. Raises HostError."""
    cryptsetup.format_container(path, key or recovery)
    if key is not None:
        cryptsetup.add_key(path, key, recovery)
        cryptsetup.test(path, key)
    cryptsetup.test(path, recovery)
