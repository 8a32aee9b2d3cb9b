# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts together a domain, its rules and the host, for a command."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import libvirt

from virtwarden import lifecycle
from virtwarden.changes import CreateUser
from virtwarden.domain.model import read
from virtwarden.enrolment import adopting
from virtwarden.errors import JournalError, WardenError
from virtwarden.guards.base import Case, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.libvirtd.connection import inactive_xml
from virtwarden.paths import Paths
from virtwarden.policy import Policy
from virtwarden.system.users import Account


def running_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it runs."""
    xml = str(domain.XMLDesc(0)).encode()
    return _case(HostFacts(paths), policy, xml, Op.STARTED)


def next_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it would be at its next start."""
    xml = inactive_xml(domain)
    return _case(_FactsBeforeStart(paths, read(xml).uuid), policy, xml, Op.PREPARE)


def at_start(case: Case) -> Case:
    """The same domain after libvirt made its taps and chose its ports, under stand-in names.

    It assumes that the domain's user and taps exist: at that step of a start they do.
    """
    domain = replace(
        case.domain,
        nics=tuple(
            replace(nic, tap=nic.tap or _stand_in(place))
            for place, nic in enumerate(case.domain.nics)
        ),
        displays=tuple(
            replace(display, port="0" if display.port in ("", "-1") else display.port)
            for display in case.domain.displays
        ),
    )
    bridges = {nic.tap: nic.bridge for nic in domain.nics}
    facts = _FactsAtStart(case.paths, case.domain.uuid, bridges)
    return replace(case, op=Op.START, domain=domain, facts=facts)


def _stand_in(place: int) -> str:
    return f"its-tap-{place}" if place else "its-tap"


@dataclass(frozen=True)
class _FactsBeforeStart(HostFacts):
    """This host without what a start undoes first: the group of a user that was only begun."""

    domain: str

    def group_id(self, name: str) -> int | None:
        found = super().group_id(name)
        return None if found is not None and self._is_undone(name, found) else found

    def _is_undone(self, name: str, gid: int) -> bool:
        with suppress(JournalError):  # then the start undoes nothing
            return any(
                isinstance(record.change, CreateUser)
                and (record.change.name, record.before["uid"]) == (name, gid)
                for record in lifecycle.half_made(self.paths, self.domain)
            )
        return False


@dataclass(frozen=True)
class _FactsAtStart(HostFacts):
    """This host, with what `prepare` and libvirt will have made by then."""

    domain: str
    bridges: Mapping[str, str]

    def account(self, name: str) -> Account | None:
        return super().account(name) or Account(name, uid=0, gid=0, domain=self.domain)

    def is_tap(self, device: str) -> bool:
        return bool(device)

    def bridge_of(self, interface: str) -> str:
        return self.bridges.get(interface, "")


def _case(facts: HostFacts, policy: Policy, xml: bytes, op: Op) -> Case:
    domain, adopted = read(xml), False
    rules = policy.rules_for(domain.name)
    with suppress(WardenError):  # then it is looked at as it is
        domain, adopted = adopting.as_started(xml, rules, facts.paths)
    return Case(op, domain, rules, facts, facts.paths, adopted)
