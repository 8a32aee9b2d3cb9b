# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of encrypted disks: where each comes from, and how to get it without leaving a trace.

A key is only ever in this process's memory and in pipes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtwarden.errors import CommandError, HostError
from virtwarden.system import files
from virtwarden.system.files import Found
from virtwarden.system.run import output

_CLEVIS = "/usr/bin/clevis"
_SYSTEMD_CREDS = "/usr/bin/systemd-creds"
_ASK_PASSWORD = "/usr/bin/systemd-ask-password"
# The end of systemd-ask-password's last line where nobody answers.
_TIME_IS_UP = os.strerror(errno.ETIME)

HEADER = "header"
"""The value of a clevis source whose container says itself how it is unlocked."""

# The capacity of a pipe (pipe(7)): it takes a whole key at once.
LIMIT_BYTES = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# A TPM2 or a Tang server takes a second or two. This is the limit for one that does not answer.
_UNSEAL_SECONDS = 30
_GRACE_SECONDS = 5


class Secret:
    """Bytes that appear as stars wherever they are printed, formatted or logged."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes, for the one pipe or call that needs them."""
        return self._value

    def __repr__(self) -> str:
        return "********"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not stored")


@dataclass(frozen=True)
class Place:
    """Where a key is: the kind and the value of a key source in the policy, and what it opens.

    `purpose` tells a person who has to type the key which disk it is for.
    """

    kind: str
    value: str | int
    container: str
    purpose: str

    def __str__(self) -> str:
        """The key source as it stands in the policy."""
        return f"key.{self.kind} = {self.value if self.kind == 'ask' else repr(self.value)}"

    @property
    def file(self) -> str:
        """The file without which there is no key, or an empty string where none is needed."""
        return "" if self.kind == "ask" or self.value == HEADER else str(self.value)


def fetch(place: Place) -> Secret:
    """The key itself. Raises HostError where it is missing, empty or not kept safely."""
    key = _FETCHERS[place.kind](place)
    if not key:
        raise HostError("the key is empty", where=str(place))
    return Secret(key)


def complaint(place: Place, found: Found) -> HostError | None:
    """What is wrong with the file of a key, as files.look found it; None where nothing is.

    Only root may read a key in the clear. Anyone may read a key that only this host, a Tang server
    or a TPM2 can decrypt. Only root may be able to replace either.
    """
    where = f"key file {found.path}"
    if found.symlink:
        return HostError(f"{found.symlink} is a symlink", where=where, fix=f"name {found.real}")
    if found.leaf is None:
        return HostError("it is not there", where=where, fix=f"put the key there: {place}")
    if not stat.S_ISREG(found.leaf.mode):
        return HostError("it is not a regular file", where=where, fix=f"ls -l {found.path}")
    if place.kind == "file" and found.leaf.mode & _OTHERS:
        return HostError(
            f"users other than root can read it (mode {found.leaf.permissions:04o})",
            where=where,
            fix=f"chmod 0400 {found.path}, and change the key where somebody may have read it",
        )
    for step in (*found.directories, found.leaf):
        if step.uid != 0 or (step.mode & (stat.S_IWGRP | stat.S_IWOTH) and not _is_sticky(step)):
            return HostError(
                f"users other than root can replace it, through {step.path}",
                where=where,
                fix=f"see who wrote it, then: chown root {step.path}; chmod go-w {step.path}",
            )
    return None


def _is_sticky(step: files.Inode) -> bool:
    """Whether it is a directory from which only root can remove root's files (inode(7))."""
    return stat.S_ISDIR(step.mode) and bool(step.mode & stat.S_ISVTX)


def _from_credential(place: Place) -> bytes:
    _read(place)
    try:
        return output(_SYSTEMD_CREDS, "decrypt", place.file, "-", timeout=_UNSEAL_SECONDS)
    except CommandError as error:
        raise HostError(
            f"the credential cannot be decrypted: {error.what}",
            where=str(place),
            fix=f"systemd-creds decrypt {place.file} - | wc -c; a credential is for this host and"
            " for the name of its file alone",
        ) from None


def _from_clevis(place: Place) -> bytes:
    if place.value == HEADER:
        return _from_header(place)
    try:
        return output(_CLEVIS, "decrypt", stdin=_read(place), timeout=_UNSEAL_SECONDS)
    except CommandError as error:
        raise _clevis_failed(place, error, f"clevis decrypt < {place.file} | wc -c") from None


def _from_header(place: Place) -> bytes:
    """The key from the first binding in the container's header whose server or TPM2 answers."""
    by_hand = f"clevis luks list -d {place.container}"
    try:
        listed = output(_CLEVIS, "luks", "list", "-d", place.container).decode(errors="replace")
    except CommandError as error:
        raise _clevis_failed(place, error, by_hand) from None
    failure = CommandError("no binding is in its header", code=0, said="")
    for line in listed.splitlines():
        slot = line.partition(":")[0].strip()
        try:
            return output(
                *(_CLEVIS, "luks", "pass", "-d", place.container, "-s", slot),
                timeout=_UNSEAL_SECONDS,
            )
        except CommandError as error:
            failure = error
    raise _clevis_failed(place, failure, by_hand) from None


def _clevis_failed(place: Place, error: CommandError, by_hand: str) -> HostError:
    return HostError(
        f"clevis does not give the key: {error.what}",
        where=str(place),
        fix=f"see whether the Tang server or the TPM2 answers: {by_hand}",
    )


def _from_person(place: Place) -> bytes:
    seconds = int(place.value)
    try:
        return output(
            _ASK_PASSWORD,
            *("--no-tty", f"--timeout={seconds}", "--icon=drive-harddisk", "-n"),
            f"--id=virt-warden:{place.container}",
            "".join(letter if letter.isprintable() else "?" for letter in place.purpose),
            timeout=seconds + _GRACE_SECONDS,
        )
    except CommandError as error:
        nobody = error.said.endswith(_TIME_IS_UP)
        raise HostError(
            f"nobody gave the passphrase within {seconds} s" if nobody else error.what,
            where=str(place),
            fix="start it again, and answer in a terminal: systemd-tty-ask-password-agent",
        ) from None


def _read(place: Place) -> bytes:
    """The content of the key's file: exactly the file that `complaint` accepted.

    Raises HostError where there is a complaint, or where the file is gone, replaced or too large.
    """
    found = files.look(place.file)
    wrong = complaint(place, found)
    if wrong is not None:
        raise wrong
    if found.leaf is None:
        raise HostError(f"{place.file} is gone")
    with (
        files.held(place.file, *found.leaf.identity) as handle,
        files.by_descriptor(handle).open("rb") as file,
    ):
        content = file.read(LIMIT_BYTES + 1)
    if len(content) > LIMIT_BYTES:
        raise HostError(
            f"it is larger than {LIMIT_BYTES // 1024} KiB", where=f"key file {found.path}"
        )
    return content


_FETCHERS: Mapping[str, Callable[[Place], bytes]] = {
    "file": _read,
    "credential": _from_credential,
    "clevis": _from_clevis,
    "ask": _from_person,
}
