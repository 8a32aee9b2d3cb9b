"""A domain, the rules that hold for it and the host, put together for a command."""

from __future__ import annotations

from dataclasses import replace

import libvirt

from virtwarden.cli.connection import inactive_xml
from virtwarden.domain import Domain, read
from virtwarden.facts import HostFacts
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def running_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it runs."""
    xml = str(domain.XMLDesc(0)).encode()
    return _case(paths, policy, read(xml), Op.STARTED)


def next_case(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Case:
    """The domain as it would be at its next start."""
    return _case(paths, policy, read(inactive_xml(domain)), Op.PREPARE)


def at_start(case: Case) -> Case:
    """The same domain when libvirt has made its taps and chosen its ports, under stand-in names."""
    domain = replace(
        case.domain,
        nics=tuple(replace(nic, tap=nic.tap or "its-tap") for nic in case.domain.nics),
        displays=tuple(
            replace(display, port="0" if display.port in ("", "-1") else display.port)
            for display in case.domain.displays
        ),
    )
    return replace(case, op=Op.START, domain=domain)


def _case(paths: Paths, policy: Policy, domain: Domain, op: Op) -> Case:
    return Case(op, domain, policy.rules_for(domain.name), HostFacts(paths), paths)
