# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger: every uid that a domain's user ever had, so that no uid is given twice.

It is there twice: below /var/lib, and as a copy with a checksum below /etc, near the accounts. One
of them restores the other. Where both have lost entries, as the accounts show, no uid is given.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system import files, users
from virtwarden.system.run import run

# A line has a uid, the user's name and the domain's UUID. A crash may have cut off its end.
_LINE = re.compile(rb"(\d{1,10})( [!-~]*){0,2}")
_WHOLE_LINE = re.compile(rb"\d{1,10} [!-~]+ [!-~]+")
# Before the copy's content: how many lines it has, and their SHA-256.
_TITLE = re.compile(rb"virt-warden ledger, \d+ lines, sha256 [0-9a-f]{64}\n")
_SEARCH_SECONDS = 1800
# All local file systems, each without those mounted below it. Files may go meanwhile.
_SEARCH = r"""
df --local --output=target 2>/dev/null | sed 1d | sort -u | tr '\n' '\0' |
    xargs -0 -I{} find {} -xdev -ignore_readdir_race \
        \( -uid "+$1" -uid "-$2" -o -gid "+$1" -gid "-$2" \) -printf '%U\n%G\n' 2>/dev/null |
    sort -nu
"""


@dataclass(frozen=True)
class Ledger:
    """The two files, and who is told when one of them was restored from the other."""

    path: Path
    copy: Path
    report: Callable[[str], None]

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The ledger's descriptor, with its lock: of two starts, one waits for the other."""
        files.private_directory(self.path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def take(self, uid_range: tuple[int, int], name: str, domain: str) -> int:
        """A uid from the range that no user has or ever had, now written to both files.

        Raises HostError where the range is used up, or where both files have lost entries.
        """
        with self.locked() as handle:
            content = self._checked(handle)
            uid = _next_uid(_uids(content), uid_range)
            torn = bool(content) and not content.endswith(b"\n")
            line = (b"\n" if torn else b"") + f"{uid} {name} {domain}\n".encode()
            _append(handle, line)
            _write_copy(self.copy, content + line)
        return uid

    def has(self, uid: int) -> bool:
        """Whether a VM's user ever had this uid, by either file; its user may be long gone."""
        texts = (files.read_if_there(self.path).encode(), _untrusted_copy(self.copy))
        return any(uid in _uids(text) for text in texts)

    def check(self) -> None:
        """Restore one of the files from the other, if there is one. Raises HostError as `take`."""
        if self.path.exists() or self.copy.exists():
            with self.locked() as handle:
                self._checked(handle)

    def rebuild(self, owners: Iterable[int]) -> tuple[int, ...]:
        """Write both again, with all that is left of them, the VMs' users, and uids that own files.

        Gives the uids that they did not have.
        """
        with self.locked() as handle:
            texts = (_read(handle), _untrusted_copy(self.copy))
            lines = [line for text in texts for line in _kept(text)]
            names = {account.uid: account for account in users.of_domains()}
            missing = sorted({*names, *owners} - _uids(b"".join(lines)))
            for uid in missing:
                account = names.get(uid)
                who = f"{account.name} {account.domain}" if account else "- -"
                lines.append(f"{uid} {who}\n".encode())
            self._write_both(handle, lines)
        return tuple(missing)

    def _checked(self, handle: int) -> bytes:
        """The ledger's content, once it and its copy are whole."""
        content = _read(handle)
        copied = _read_copy(self.copy)
        is_damaged = copied is None and self.copy.exists()
        if copied is not None and not (content.startswith(copied) and _is_valid(content)):
            content = self._write_both(handle, [*_kept(copied), *_kept(content)])
            self.report(f"{self.path} had lost entries; it is restored from {self.copy}")
        elif not _is_valid(content) or (is_damaged and not content):
            raise self._doubt(f"neither it nor its copy {self.copy} can be read")
        known = _uids(content)
        for account in users.of_domains():
            if account.uid not in known:
                lost = f"uid {account.uid} of {account.name}"
                raise self._doubt(f"neither it nor its copy {self.copy} has {lost}")
        if content and copied is None:
            _write_copy(self.copy, content)
            if is_damaged:
                self.report(f"{self.copy} was damaged; it is restored from {self.path}")
        return content

    def _write_both(self, handle: int, lines: Iterable[bytes]) -> bytes:
        """Each line once. The ledger is written in place, since the lock is on this file.

        The copy is written before: a crash leaves at least that.
        """
        content = b"".join(dict.fromkeys(lines))
        _write_copy(self.copy, content)
        os.ftruncate(handle, 0)
        _append(handle, content)
        return content

    def _doubt(self, why: str) -> HostError:
        return HostError(
            f"the ledger of used uids has lost entries: {why}; a used uid could be given again",
            where=str(self.path),
            fix="virt-warden recover --ledger",
        )


def owners_on_disk(uid_range: tuple[int, int]) -> frozenset[int]:
    """Which uids and gids of the range own a file on a local file system.

    It reads all of them, which takes minutes. Raises CommandError where half an hour is too short.
    """
    lowest, highest = uid_range
    limits = (str(lowest - 1), str(highest + 1))
    found = run("/bin/sh", "-c", _SEARCH, "sh", *limits, timeout=_SEARCH_SECONDS)
    numbers = {int(line) for line in found.split()}
    return frozenset(number for number in numbers if lowest <= number <= highest)


def _next_uid(used: Iterable[int], uid_range: tuple[int, int]) -> int:
    lowest, highest = uid_range
    uid = max((uid for uid in used if lowest <= uid <= highest), default=lowest - 1) + 1
    while uid <= highest and _is_taken(uid):
        uid += 1
    if uid > highest:
        raise HostError(
            f"no uid is left between {lowest} and {highest}, and none is ever used twice",
            fix="widen [identity] uid_range in /etc/virt-warden/policy.toml",
        )
    return uid


def _is_taken(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        pass
    else:
        return True
    try:
        grp.getgrgid(number)
    except KeyError:
        return False
    return True


def _read(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)


def _append(handle: int, content: bytes) -> None:
    if os.write(handle, content) != len(content):
        raise HostError("the ledger's disk is full", fix="df -h /var/lib/virt-warden")
    os.fsync(handle)


def _untrusted_copy(copy: Path) -> bytes:
    try:
        return copy.read_bytes()
    except FileNotFoundError:
        return b""


def _read_copy(copy: Path) -> bytes | None:
    """The ledger that was copied; None where the copy is missing or damaged."""
    untrusted_text = _untrusted_copy(copy)
    title = _TITLE.match(untrusted_text)
    if title is None:
        return None
    content = untrusted_text[title.end() :]
    whole = title[0] == _title(content)
    return content if whole and _is_valid(content) else None


def _write_copy(copy: Path, content: bytes) -> None:
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write_atomically(copy, _title(content) + content, 0o600, durable=True)


def _title(content: bytes) -> bytes:
    import hashlib  # OpenSSL with it, only for a domain's first start

    checksum = hashlib.sha256(content).hexdigest()
    return f"virt-warden ledger, {len(content.splitlines())} lines, sha256 {checksum}\n".encode()


def _is_valid(content: bytes) -> bool:
    return all(map(_LINE.fullmatch, content.splitlines()))


def _kept(content: bytes) -> list[bytes]:
    """The whole lines in a content that may be damaged."""
    return [line + b"\n" for line in content.splitlines() if _WHOLE_LINE.fullmatch(line)]


def _uids(content: bytes) -> set[int]:
    return {int(found[1]) for found in map(_LINE.fullmatch, content.splitlines()) if found}
