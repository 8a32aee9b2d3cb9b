# SPDX-License-Identifier: GPL-2.0-or-later
"""Each VM: whether the kernel denied it something lately, which an honest VM does not ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from virtwarden.audit.denials import Denial
from virtwarden.audit.events import denied
from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.model import Domain
from virtwarden.errors import WardenError

_DAYS = 7
_SHOWN = 3

ENDED = Check(
    "vm.ended",
    Severity.HIGH,
    f"The kernel ended its QEMU for no forbidden system call in the last {_DAYS} days",
    f"The kernel ended its QEMU for a forbidden system call in the last {_DAYS} days",
    "QEMU never makes these calls: an attacker who runs code in it does.",
    "find out what the guest runs before you start it again: virt-warden log --event denied",
)
DENIED = Check(
    "vm.denied",
    Severity.LOW,
    f"The kernel denied its QEMU nothing in the last {_DAYS} days",
    f"The kernel denied its QEMU something in the last {_DAYS} days",
    "Either the VM needs something that it was not given, or an attacker who runs code in its QEMU"
    " asks for it.",
    "virt-warden log --event denied; if it is nothing to worry about, write a waiver",
)


def checks(domains: Sequence[Domain]) -> Iterator[Item]:
    """Look at what the systemd journal has of these domains."""
    try:
        found = denied(datetime.now().astimezone() - timedelta(days=_DAYS))
    except (WardenError, OSError) as error:
        for domain in domains:
            yield ENDED.unknown(str(error), domain.name)
            yield DENIED.unknown(str(error), domain.name)
        return
    for domain in domains:
        yield from judge(domain, found)


def judge(domain: Domain, found: Sequence[Denial]) -> Iterator[Item]:
    """The items of one domain, from the denials of all."""
    own = [denial for denial in found if denial.domain.uuid == domain.uuid]
    ended = [denial for denial in own if denial.has_ended]
    others = [denial for denial in own if not denial.has_ended]
    for check, lately in ((ENDED, ended), (DENIED, others)):
        yield check.judged(not lately, _seen(lately), domain.name)


def _seen(lately: Sequence[Denial]) -> str:
    if not lately:
        return "no audit record of it in the systemd journal"
    last = [f"{each.when:%Y-%m-%d %H:%M} {each.by}: {each.what}" for each in lately[-_SHOWN:]]
    return f"{len(lately)}, the last: {'; '.join(last)}"
