# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that a domain's QEMU may make: the filters that the wrapper sets before it.

seccomp(2). QEMU's own filter, which libvirt asks for, lists what is forbidden; these list what is
allowed. They hold without AppArmor, SELinux and Landlock, and nobody can take them off a process.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtwarden.errors import Refusal
from virtwarden.guards.callgroups import Needs, allowed, narrowed, silenced, streamless, tried
from virtwarden.guards.displays import has_port
from virtwarden.policy import Mode
from virtwarden.policy.allowances import BROAD_EXCEPTION
from virtwarden.system import seccomp
from virtwarden.system.process import Process
from virtwarden.system.seccomp import Action

if TYPE_CHECKING:
    from virtwarden.guards.base import Case

_KEY = "system_calls"
# QEMU sets one, and libvirt asks it to.
_OF_QEMU = 1


def is_filtered(case: Case) -> bool:
    """Whether filters are wanted for the domain, to refuse calls or to log them."""
    return case.rules.system_calls != "off" and case.rules.mode is not Mode.DISABLED


def needs_of(case: Case) -> Needs:
    """What the domain's QEMU does that not every QEMU does."""
    domain, rules = case.domain, case.rules
    if "qemu-commandline" in rules.exceptions:
        # Nobody knows what the admin's own arguments need.
        return Needs(**dict.fromkeys((field.name for field in fields(Needs)), True))
    has_consoles = rules.display == "on" and any(map(has_port, domain.displays))
    return Needs(
        streams=has_consoles or domain.speaks_tcp or bool(rules.tcp_bind or rules.tcp_connect),
        connects=domain.connects or domain.speaks_tcp or _may_send(case),
        datagrams=domain.speaks_udp,
        # libusb hears of what is plugged in.
        events=any(word.startswith("usb ") for word in rules.allow)
        or BROAD_EXCEPTION in rules.exceptions,
        shares=domain.shares_by_9p,
        io_uring=domain.uses_io_uring,
        hashes=domain.hashes_frames,
    )


def _may_send(case: Case) -> bool:
    """Whether the policy has QEMU connect to more than its XML names, as to copy a disk away."""
    rules = case.rules
    return bool(rules.tcp_connect or rules.hosts) or rules.host_network == "allow"


def review(case: Case) -> list[Refusal]:
    """The refusal of a domain whose filters cannot be compiled."""
    if not is_filtered(case) or case.facts.compiles_calls():
        return []
    return [
        case.refusal(
            "the filter of its system calls cannot be compiled without libseccomp",
            where=case.rules.where(_KEY),
            fix=f'apt install {seccomp.PACKAGE}, or system_calls = "off"',
        )
    ]


def entry(case: Case) -> dict[str, Any] | None:
    """The ticket's entry: the filters in the order in which to set them; None for none.

    `log`: the kernel logs what a filter refuses. `incoming`: it is also for a QEMU that takes in a
    guest's state, which may come over TCP.
    """
    if not is_filtered(case) or not case.facts.compiles_calls():
        return None
    is_enforced = case.rules.system_calls == "enforce" and case.rules.mode is Mode.ENFORCING
    return {
        "call": seccomp.call_number(),
        "filters": [
            {"code": code.hex(), "log": log, "incoming": incoming}
            for code, log, incoming in _filters(needs_of(case), is_enforced=is_enforced)
        ],
    }


@lru_cache
def _filters(needs: Needs, *, is_enforced: bool) -> tuple[tuple[bytes, bool, bool], ...]:
    """The code of each filter, whether it logs, and whether it is for what comes in, too.

    Of several verdicts the kernel takes the strictest, and of equal ones that of the last filter.
    """
    deny = Action.DENY if is_enforced else Action.LOG
    rest = () if is_enforced else tried(needs)
    default = Action.MISSING if is_enforced else Action.LOG
    kept = (r for r in allowed(needs) if is_enforced or r.action is Action.ALLOW)
    found = [
        (seccomp.compiled(default, (*kept, *rest)), True, True),
        (seccomp.compiled(Action.ALLOW, narrowed(needs, deny)), True, True),
    ]
    if not needs.streams:
        found.append((seccomp.compiled(Action.ALLOW, streamless(deny)), True, False))
    if is_enforced:
        found.append((seccomp.compiled(Action.ALLOW, silenced(needs)), False, True))
    return tuple(found)


def verify(case: Case, process: Process) -> list[str]:
    """The breaches of a running domain; its ticket says which filters its QEMU was given."""
    promised, found = _promised(case, process), process.seccomp_filters
    if promised is None or found is None or found >= promised:
        return []
    filters = f"it has {found} of {promised} seccomp filters"
    return [f"QEMU can make system calls that it does not need: {filters}"]


def has_filters(case: Case) -> bool:
    """Whether a running domain was given filters, as its ticket says: the wrapper obeys it."""
    return _given(case) is not None


def _given(case: Case) -> Any:
    try:
        ticket = json.loads((Path(case.cell) / "ticket.json").read_bytes())
    except FileNotFoundError:
        return None
    return ticket.get(_KEY)


def _promised(case: Case, process: Process) -> int | None:
    """How many filters QEMU has, its own counted; None where we set none."""
    given = _given(case)
    if given is None:
        return None
    takes_in = "-incoming" in process.arguments
    return _OF_QEMU + sum(bool(each["incoming"] or not takes_in) for each in given["filters"])
