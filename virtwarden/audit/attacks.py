# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the kernel denied something to a VM's processes of late: a guest under attack shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from virtwarden.audit.denials import Entry
from virtwarden.audit.events import denied
from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.model import Domain
from virtwarden.errors import HostError

DAYS = 7
_SHOWN = 3
DENIED = Check(
    "vm.denied",
    Severity.MEDIUM,
    "The kernel denied nothing to its QEMU",
    "The kernel denied something to its QEMU",
    "Code of a guest that took QEMU over tries what QEMU never does. AppArmor, SELinux, Landlock"
    " and seccomp deny it, and the kernel logs it.",
    "virt-warden log --event denied NAME shows when and what; stop the VM if you cannot explain it",
)


def checks(domains: Iterable[Domain]) -> list[Item]:
    """An item for each domain, from the journal of the last days."""
    listed = [*domains]
    try:
        found = [*denied(None, datetime.now(UTC) - timedelta(days=DAYS))]
    except (HostError, OSError) as error:
        return [DENIED.unknown(str(error), domain.name) for domain in listed]
    return [
        _item(domain, [entry for entry in found if entry["DOMAIN_UUID"] == domain.uuid])
        for domain in listed
    ]


def _item(domain: Domain, found: Sequence[Entry]) -> Item:
    if not found:
        return DENIED.good(f"nothing in {DAYS} days", domain.name)
    counted = Counter(f"{e['VIRT_WARDEN_BY']}: {e['VIRT_WARDEN_WHAT']}" for e in found)
    most = [f"{what} ({number} times)" for what, number in counted.most_common(_SHOWN)]
    more = len(counted) - len(most)
    seen = "; ".join(most) + (f"; and {more} more" if more > 0 else "")
    return DENIED.bad(f"in {DAYS} days: {seen}", domain.name)
