# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads from the systemd journal: the events of virt-warden.log, and what the kernel denied."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from virtwarden import log
from virtwarden.audit import denials
from virtwarden.audit.denials import Denial
from virtwarden.errors import HostError

DENIED = "denied"
"""The event that the kernel logs, not virt-warden: it has no MESSAGE_ID."""
_TIME = "__REALTIME_TIMESTAMP"


def entries(domain: str | None, events: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The events of a domain, by name or UUID, or of all domains; the oldest first.

    Gives only these `events`, or all where there are none. Raises HostError where nothing can read
    the journal.
    """
    ours = [event for event in events if event != DENIED]
    sources: list[Iterable[Mapping[str, Any]]] = []
    if ours or not events:
        sources.append(_logged(domain, ours))
    if DENIED in events or not events:
        sources.append(_entry(denial) for denial in denied() if _is_of(denial, domain))
    return heapq.merge(*sources, key=lambda entry: entry[_TIME])


def denied(since: datetime | None = None) -> list[Denial]:
    """What the kernel denied to domains, the oldest first. Raises HostError as `entries` does."""
    known = denials.ran(_logged(None, ["verified"]))
    reader = _reader()
    reader.add_match(_TRANSPORT="kernel")
    reader.add_disjunction()
    reader.add_match(_TRANSPORT="audit")
    if since is not None:
        reader.seek_realtime(since)
    found = [record for record in map(denials.record, reader) if record is not None]
    return list(denials.denials(found, known))


def _logged(domain: str | None, events: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    reader = _reader()
    for event in events:
        reader.add_match(MESSAGE_ID=log.EVENTS[event])
    reader.add_match(SYSLOG_IDENTIFIER=log.IDENTIFIER)
    # Any writer of the journal may call itself virt-warden, so only root's entries count.
    reader.add_match(_UID=0)
    if domain is not None:
        reader.add_conjunction()
        reader.add_match(DOMAIN_NAME=domain)
        reader.add_disjunction()
        reader.add_match(DOMAIN_UUID=domain)
    return iter(reader)


def _reader() -> Any:
    try:
        from systemd import journal
    except ImportError:
        raise HostError(
            "the journal cannot be read",
            fix="apt install python3-systemd; or: grep virt-warden /var/log/auth.log",
        ) from None
    reader = journal.Reader()
    reader.this_machine()
    return reader


def _is_of(denial: Denial, domain: str | None) -> bool:
    return domain is None or domain in (denial.domain.name, denial.domain.uuid)


def _entry(denial: Denial) -> Mapping[str, Any]:
    """A denial in the form of an event."""
    return {
        _TIME: denial.when,
        "DOMAIN_NAME": denial.domain.name or "-",
        "DOMAIN_UUID": denial.domain.uuid,
        "VIRT_WARDEN_EVENT": DENIED,
        "VIRT_WARDEN_BY": denial.by,
        "VIRT_WARDEN_WHAT": denial.what,
        "VIRT_WARDEN_PID": denial.pid,
        "MESSAGE": denial.text,
    }
