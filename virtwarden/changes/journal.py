"""What was done for a domain, written down before it is done: the only caller of apply and undo.

`prepare` and `release` are different processes, and either may be killed: what must be undone is
data on the disk, never a stack that unwinds. A journal is JSON lines: first what it is, then a
record for each change, in order.
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
    """One change, and what was there before it."""

    change: Change
    before: Before

    def line(self) -> str:
        """As it stands in the journal."""
        written = {"kind": type(self.change).__name__, "before": self.before}
        return json.dumps({**written, "change": values(self.change)}) + "\n"


@contextmanager
def locked(paths: Paths, domain: str) -> Iterator[None]:
    """Hold a domain's journals alone; a hook and a `virt-warden recover` take their turns."""
    with files.locked(paths.domain_state(domain)):
        yield


def perform(paths: Paths, domain: str, plan: Iterable[Change]) -> None:
    """Do each change of a plan, in order, each written down before it is done.

    Raises what the first change that fails raises; what was done until then stays written down.
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
        # What a crash cut off was never acted upon, and must not be appended to.
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)
        if os.fstat(handle).st_size == 0:
            _append(handle, _header(domain))
            files.sync_directory(journal.parent)
        yield handle
    finally:
        os.close(handle)


def undo(paths: Paths, domain: str, scope: Scope = Scope.RUN) -> list[str]:
    """Undo all that a journal holds, the latest first, and remove it.

    Gives a sentence for each thing that was left alone because it is no longer what it was.
    Where an undo fails, the others still come; its record stays for the next `undo`, and
    JournalError says so at the end.
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
    """What a journal holds, in the order in which it was done; empty where there is none.

    A last line that was cut off by a crash was never acted upon and is left out.
    Raises JournalError where a journal cannot be understood.
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
    """What tells whether a domain's journals were written to between two looks at them."""
    found: dict[Scope, tuple[int, ...]] = {}
    for scope in Scope:
        try:
            file = _file(paths, domain, scope).stat()
        except FileNotFoundError:
            found[scope] = ()
        else:
            found[scope] = (file.st_ino, file.st_size, file.st_ctime_ns)
    return found


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
    arguments = {name: _frozen(value) for name, value in entry["change"].items()}
    return Record(KINDS[entry["kind"]](**arguments), entry["before"])


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _write_back(paths: Paths, domain: str, scope: Scope, left: list[Record]) -> None:
    journal = _file(paths, domain, scope)
    if left:
        content = _header(domain) + "".join(record.line() for record in left)
        files.write_atomically(journal, content.encode(), 0o600, durable=True)
    else:
        files.discard(journal)
