# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: records each change of a domain before it is made. Only this calls apply and undo.

`prepare` and `release` run in different processes, and each can be killed. So what must be undone
is data on the disk, not a stack in memory. A journal is a file of JSON lines: first a header, then
one record for each change, in order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtwarden.changes import KINDS, Before, Change, Scope, values
from virtwarden.errors import JournalError
from virtwarden.paths import Paths
from virtwarden.system import files

_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """One change, and the state before it."""

    change: Change
    before: Before

    def line(self) -> str:
        """The record as a line of the journal."""
        return json.dumps({**_entry(self.change), "before": self.before}) + "\n"


@contextmanager
def locked(paths: Paths, domain: str) -> Iterator[None]:
    """Lock a domain's journals, so that a hook and `virt-warden recover` wait for each other."""
    with files.locked(paths.domain_state(domain)):
        yield


def perform(paths: Paths, domain: str, plan: Iterable[Change]) -> None:
    """Make each change of a plan, in order; record each one before it is made.

    Raises the error of the first change that fails; the records of those before it stay.
    """
    with ExitStack() as open_journals:
        handles: dict[Scope, int] = {}
        for change in plan:
            if change.scope not in handles:
                journal = _opened(paths, domain, change.scope)
                handles[change.scope] = open_journals.enter_context(journal)
            record = Record(change, change.capture(paths))
            _append(handles[change.scope], record.line())
            if change.durable:
                os.fsync(handles[change.scope])
            change.apply(paths, record.before)


@contextmanager
def _opened(paths: Paths, domain: str, scope: Scope) -> Iterator[int]:
    journal = _file(paths, domain, scope)
    handle = os.open(
        journal, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        size = os.fstat(handle).st_size
        # An incomplete last line was never acted upon; nothing may be appended to it.
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)
        if os.fstat(handle).st_size == 0:
            _append(handle, _header(domain))
            files.sync_directory(journal.parent)
        yield handle
    finally:
        os.close(handle)


def undo(paths: Paths, domain: str, scope: Scope = Scope.RUN) -> list[str]:
    """Undo all changes of a journal, the latest first, and remove it.

    Gives a sentence for each object that was not restored because it is no longer the captured one.
    If one undo fails, the others still run; its record stays for the next `undo`, and JournalError
    is raised at the end.
    """
    reports: list[str] = []
    failed: list[Record] = []
    reasons: list[str] = []
    for record in reversed(records(paths, domain, scope)):
        try:
            report = record.change.undo(paths, record.before)
        except Exception as error:  # noqa: BLE001 - a bug in one must not keep the others from it
            failed.insert(0, record)
            reasons.append(f"{record.change.describe()}: {error}")
        else:
            reports += [report] if report else []
    _write_back(paths, domain, scope, failed)
    if failed:
        raise JournalError(
            f"{len(failed)} changes could not be undone, the first: {reasons[0]}",
            fix=f"virt-warden recover {domain}",
        )
    return reports


def records(paths: Paths, domain: str, scope: Scope = Scope.RUN) -> list[Record]:
    """The records of a journal, in the order in which the changes were made; empty without one.

    An incomplete last line is ignored: its change was never made. Raises JournalError if the
    journal cannot be read.
    """
    journal = _file(paths, domain, scope)
    try:
        content = journal.read_bytes()
    except FileNotFoundError:
        return []
    try:
        whole = content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
        header, *entries = [json.loads(line) for line in whole] or [{"format": _FORMAT}]
        if header["format"] != _FORMAT:
            raise JournalError(
                f"{journal} has format {header['format']}, this virt-warden knows {_FORMAT}",
                fix="install the version that wrote it, stop the domain, upgrade again",
            )
        return [_record(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(
            f"{journal} cannot be read: {error!r}",
            fix=f"look at what it says was done, undo that by hand, then: rm {journal}",
        ) from None


def state(paths: Paths, domain: str) -> dict[Scope, tuple[int, ...]]:
    """The state of a domain's journals. Two equal values: nobody wrote to them in between."""
    found: dict[Scope, tuple[int, ...]] = {}
    for scope in Scope:
        try:
            file = _file(paths, domain, scope).stat()
        except FileNotFoundError:
            found[scope] = ()
        else:
            found[scope] = (file.st_ino, file.st_size, file.st_ctime_ns)
    return found


def entries(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Changes as data for JSON, for another process to make them; `planned` reads it."""
    return [_entry(change) for change in changes]


def planned(written: Iterable[dict[str, Any]]) -> list[Change]:
    """The changes that `entries` wrote."""
    return [_change(entry) for entry in written]


def known_domains(paths: Paths) -> list[str]:
    """The UUIDs of the domains that have, or ever had, a journal."""
    try:
        return sorted(entry.name for entry in (paths.state / "domains").iterdir())
    except FileNotFoundError:
        return []


def _file(paths: Paths, domain: str, scope: Scope) -> Path:
    return paths.domain_state(domain) / f"{scope.value}.journal"


def _header(domain: str) -> str:
    return json.dumps({"format": _FORMAT, "domain": domain}) + "\n"


def _append(handle: int, line: str) -> None:
    content = line.encode()
    try:
        written = os.write(handle, content)
    except OSError as error:
        raise JournalError(
            f"the journal cannot be written: {error.strerror}", fix="df -h /var/lib/virt-warden"
        ) from None
    if written != len(content):
        raise JournalError("the journal's disk is full", fix="df -h /var/lib/virt-warden")


def _record(entry: dict[str, Any]) -> Record:
    return Record(_change(entry), entry["before"])


def _entry(change: Change) -> dict[str, Any]:
    return {"kind": type(change).__name__, "change": values(change)}


def _change(entry: dict[str, Any]) -> Change:
    arguments = {name: _frozen(value) for name, value in entry["change"].items()}
    return KINDS[entry["kind"]](**arguments)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _write_back(paths: Paths, domain: str, scope: Scope, left: list[Record]) -> None:
    journal = _file(paths, domain, scope)
    if left:
        content = _header(domain) + "".join(record.line() for record in left)
        files.write_atomically(journal, content.encode(), 0o600, durable=True)
    else:
        files.discard(journal)
