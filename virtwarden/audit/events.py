# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the events of virt-warden.log, and what the kernel denied, from the systemd journal."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from virtwarden import log
from virtwarden.audit.denials import EVENT, Entry, Owners, denials, told
from virtwarden.errors import HostError

NAMES = sorted([*log.EVENTS, EVENT])


def entries(domain: str | None, events: Iterable[str]) -> Iterator[Entry]:
    """The events of a domain, by name or UUID, or of all domains; the oldest first.

    Gives only these of NAMES, or all where there are none. Raises HostError where nothing can read
    the journal.
    """
    wanted = {*events} or {*NAMES}
    found = []
    if logged := wanted & log.EVENTS.keys():
        found.append(_logged(domain, logged))
    if EVENT in wanted:
        found.append(denied(domain))
    return heapq.merge(*found, key=lambda entry: entry["__REALTIME_TIMESTAMP"])


def denied(domain: str | None, since: datetime | None = None) -> Iterator[Entry]:
    """What the kernel denied to a domain's processes, or to all domains', as events.

    Raises as `entries` does.
    """
    owners = Owners.of(_logged(None, ["verified"]))
    reader = _reader()
    if since is not None:
        reader.seek_realtime(since)
    for transport in ("kernel", "audit"):
        reader.add_match(_TRANSPORT=transport)
    for entry, denial in denials(iter(reader)):
        owner = owners.of_denial(denial)
        if owner is not None and domain in (None, owner.name, owner.uuid):
            yield told(entry, denial, owner)


def _logged(domain: str | None, events: Iterable[str]) -> Iterator[Entry]:
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
