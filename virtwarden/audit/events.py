# SPDX-License-Identifier: GPL-2.0-or-later
"""The events of virt-warden.log, read out of the systemd journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from virtwarden import log
from virtwarden.errors import HostError


def entries(domain: str | None, events: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Those of a domain, by name or UUID, or of all; of these events, or of any. The oldest first.

    Raises HostError where there is nothing to read the journal with.
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
    # Whoever may write to the journal may call itself virt-warden: only root's word is shown.
    reader.add_match(_UID=0)
    if domain is not None:
        reader.add_conjunction()
        reader.add_match(DOMAIN_NAME=domain)
        reader.add_disjunction()
        reader.add_match(DOMAIN_UUID=domain)
    return iter(reader)
