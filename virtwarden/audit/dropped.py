# SPDX-License-Identifier: GPL-2.0-or-later
"""Each VM: whether its guest lately sent what it may not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from virtwarden import gate
from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.model import Domain
from virtwarden.drops import Drops
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.words import shown

_DAY_SECONDS = 24 * 60 * 60

DROPPED = Check(
    "vm.dropped",
    Severity.MEDIUM,
    "No frame of its guest was dropped in the last 24 hours",
    "Frames of its guest were dropped in the last 24 hours",
    "Its guest sends under another's name, or what the policy keeps from it. An attacker in the"
    " guest does; so does a guest whose addresses or VLANs the policy does not know.",
    "virt-warden network drops",
)


def checks(paths: Paths, domains: Sequence[Domain]) -> Iterator[Item]:
    """Look at what the filters counted for these domains since the host booted."""
    try:
        found = gate.look_at_drops(paths)
    except (WardenError, OSError, ValueError) as error:
        for domain in domains:
            yield DROPPED.unknown(str(error), domain.name)
        return
    for domain in domains:
        yield judge(domain, found, time.time())


def judge(domain: Domain, found: Sequence[Drops], now: float) -> Item:
    """The item of one domain, from the drops of all; `now` is in seconds since the epoch."""
    lately = [
        each for each in found if each.domain == domain.uuid and now - each.last < _DAY_SECONDS
    ]
    if not lately:
        return DROPPED.good("nothing was dropped", domain.name)
    seen = "; ".join(f"{each.promise}: {each.frames} frames from {each.nic}" for each in lately)
    last = f"{datetime.fromtimestamp(lately[0].last).astimezone():%Y-%m-%d %H:%M}"
    return DROPPED.bad(
        f"since the host booted, the last at {last}: {seen}",
        domain.name,
        fix="find out what the guest sends: virt-warden network drops --follow"
        f" {shown(domain.name)}; where it is"
        " honest, let the policy know its addresses: docs/network.md",
    )
