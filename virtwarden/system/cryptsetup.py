# SPDX-License-Identifier: GPL-2.0-or-later
"""LUKS containers, with cryptsetup(8). It gets a key through a pipe, never as an argument."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass

from virtwarden.errors import CommandError, HostError
from virtwarden.system.cutoff import cut_off
from virtwarden.system.keys import Secret
from virtwarden.system.run import output, run

CRYPTSETUP = "/usr/sbin/cryptsetup"

# cryptsetup(8), "RETURN CODES"
_NO_PERMISSION = 2
_NO_MEMORY = 3
_BUSY = 5
# Argon2 takes two seconds on the machine that formatted the container. This one may be slower.
_KEY_SECONDS = 120
_NEW_KEY = ("--batch-mode", "--pbkdf=argon2id")
_CLOSE_SECONDS = 5
_BETWEEN_CLOSES_SECONDS = 0.2


@dataclass(frozen=True)
class Header:
    """What a container's header says; `pbkdfs` are those of its key slots, in order."""

    version: str
    uuid: str
    cipher: str
    key_bits: int
    pbkdfs: tuple[str, ...]
    tokens: tuple[str, ...] = ()


def open_container(
    container: str,
    name: str,
    key: Secret,
    *,
    readonly: bool = False,
    discard: bool = False,
    inherited: Collection[int] = (),
) -> None:
    """Have the kernel decrypt a container as /dev/mapper/NAME.

    cryptsetup gets the `inherited` descriptors, so that it holds a lock on one of them while it
    works, even if this process dies. Raises HostError, in an admin's words, where the container
    does not open.
    """
    options = [*(["--readonly"] if readonly else []), *(["--allow-discards"] if discard else [])]
    command = (CRYPTSETUP, "open", "--type", "luks", "--key-file=-", *options, container, name)
    _with_key(container, command, key, inherited)


def test(container: str, key: Secret) -> None:
    """Check that a key opens a container. Raises HostError where it does not."""
    command = (CRYPTSETUP, "open", "--type", "luks", "--test-passphrase", "--key-file=-", container)
    _with_key(container, command, key)


def format_container(container: str, key: Secret) -> None:
    """Make a file or block device an empty LUKS2 container, with one key; what it held is lost.

    Sectors have 512 bytes, whatever the disk below has: then an encrypted disk keeps its size.
    Raises HostError.
    """
    command = (CRYPTSETUP, "luksFormat", *_NEW_KEY, "--type=luks2", "--sector-size=512")
    _with_key(container, (*command, "--key-file=-", container), key)


def add_key(container: str, key: Secret, another: Secret) -> None:
    """Add a second key to a container that the first key opens. Raises HostError."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(another.reveal())
        command = (CRYPTSETUP, "luksAddKey", *_NEW_KEY, "--key-file=-", container)
        _with_key(container, (*command, f"/dev/fd/{reader}"), key, [reader])
    finally:
        os.close(reader)


def close(name: str) -> str:
    """Close /dev/mapper/NAME, and forget its key; harmless where it is not open.

    Tries again for some seconds where a process still has it open. Then it is emptied under the
    process, and a sentence tells of that. Where that could cost data, raises HostError; the kernel
    closes it when the last process does.
    """
    deadline = time.monotonic() + _CLOSE_SECONDS
    while True:
        try:
            run(CRYPTSETUP, "close", name)
        except CommandError as error:
            if error.code != _BUSY:
                raise HostError(
                    f"/dev/mapper/{name} does not close: {error.said}",
                    fix=f"see what it is now: cryptsetup status {name}",
                ) from None
        else:
            return ""
        if time.monotonic() > deadline:
            break
        # No event tells that the last process has closed a device.
        time.sleep(_BETWEEN_CLOSES_SECONDS)
    left = cut_off(f"/dev/mapper/{name}")
    if left is not None:
        who = ", ".join(f"pid {each.pid}, uid {each.uid}, {each.program}" for each in left)
        return (
            f"/dev/mapper/{name} is closed, though somebody still had it open"
            f" ({who or 'no process shows it'}), who reads and writes nothing there any more"
        )
    run(CRYPTSETUP, "close", "--deferred", name)
    raise HostError(
        f"/dev/mapper/{name} is still open, and in use",
        fix=f"see what holds it (dmsetup ls --tree; fuser -v /dev/mapper/{name}) and end that",
    )


def header(container: str) -> Header:
    """What the header of a container says. Raises HostError where there is no LUKS header."""
    try:
        return _header_of_luks2(container)
    except CommandError:
        pass
    try:
        return _header_of_luks1(container)
    except CommandError as error:
        raise _explained(container, error) from None


def _header_of_luks2(container: str) -> Header:
    said = json.loads(run(CRYPTSETUP, "luksDump", "--dump-json-metadata", container))
    slots = [slot for _, slot in sorted(said["keyslots"].items(), key=lambda item: int(item[0]))]
    segment = next(iter(said["segments"].values()))
    return Header(
        version="LUKS2",
        uuid=run(CRYPTSETUP, "luksUUID", container).strip(),
        cipher=segment["encryption"],
        key_bits=8 * slots[0]["key_size"] if slots else 0,
        pbkdfs=tuple(slot["kdf"]["type"] for slot in slots),
        tokens=tuple(token["type"] for token in said["tokens"].values()),
    )


def _header_of_luks1(container: str) -> Header:
    told: dict[str, str] = {}
    enabled = 0
    for line in run(CRYPTSETUP, "luksDump", container).splitlines():
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
        enabled += name.startswith("Key Slot") and value.strip() == "ENABLED"
    return Header(
        version="LUKS1",
        uuid=told["UUID"],
        cipher=f"{told['Cipher name']}-{told['Cipher mode']}",
        key_bits=int(told["MK bits"]),
        pbkdfs=("pbkdf2",) * enabled,
    )


def _with_key(
    container: str, command: tuple[str, ...], key: Secret, inherited: Collection[int] = ()
) -> None:
    try:
        output(*command, stdin=key.reveal(), timeout=_KEY_SECONDS, inherited=inherited)
    except CommandError as error:
        raise _explained(container, error) from None


def _explained(container: str, error: CommandError) -> HostError:
    """The error in an admin's words, by cryptsetup's exit code."""
    where = f"LUKS container {container}"
    if error.code == _NO_PERMISSION:
        return HostError(
            "wrong key",
            where=where,
            fix="see whether it is the right one: cryptsetup open --test-passphrase --key-file"
            f" KEYFILE {container}",
        )
    if error.code == _NO_MEMORY:
        return HostError(
            "too little memory is free to unlock it",
            where=where,
            fix=f"free some, or let the key slot need less: cryptsetup luksConvertKey {container}",
        )
    return HostError(
        f"it does not open: {error.said}",
        where=where,
        fix=f"cryptsetup luksDump {container}; where its header is damaged: cryptsetup"
        " luksHeaderRestore, with the backup that you made",
    )
