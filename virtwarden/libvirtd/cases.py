# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts together a domain, its rules and the host, for a command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import libvirt

from virtwarden.domain.model import Domain, read
from virtwarden.enrolment import adopting
from virtwarden.errors import WardenError
from virtwarden.guards.base import Case, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.libvirtd.connection import inactive_xml
from virtwarden.nextstart import case_before_start
from virtwarden.paths import Paths
from virtwarden.policy import Policy, Rules
from virtwarden.system.users import Account


def running_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it runs."""
    xml = str(domain.XMLDesc(0)).encode()
    written = read(xml)
    rules = policy.rules_for(written.name)
    found, adopted = _as_started(paths, rules, xml, written, runs=True)
    closed = adopting.closed_displays(written, found) if adopted else ()
    return Case(Op.STARTED, found, rules, HostFacts(paths), paths, adopted, closed)


def next_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it would be at its next start."""
    xml = inactive_xml(domain)
    written = read(xml)
    rules = policy.rules_for(written.name)
    found, adopted = _as_started(paths, rules, xml, written, runs=False)
    return replace(case_before_start(paths, rules, found), adopted=adopted)


def _as_started(
    paths: Paths, rules: Rules, xml: bytes, domain: Domain, *, runs: bool
) -> tuple[Domain, bool]:
    """As `adopting.as_started`; a domain that cannot be adopted is looked at as it is."""
    try:
        return adopting.as_started(xml, domain, rules, paths, runs=runs)
    except WardenError:
        return domain, False


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
