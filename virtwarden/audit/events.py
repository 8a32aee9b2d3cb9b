# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the events of virt-warden.log from the systemd journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from virtwarden import log
from virtwarden.errors import HostError


def entries(domain: str | None, events: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The events of a domain, by name or UUID, or of all domains; the oldest first.

    Gives only these `events`, or all where there are none. Raises HostError where nothing can read
    the journal.
    """
    try:
        from systemd import journal
    except ImportError:
        raise HostError(
            "the journal cannot be read",
            fix="apt install python3-systemd; or: grep virt-warden /var/log/auth.log",
        ) from None
    reader = journal.Reader()
    reader.this_machine()
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
