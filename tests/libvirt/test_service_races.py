# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that define, edit and undefine domains while the service enrols them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import libvirt
import pytest

from tests.host.domain import Vnc, domain_xml
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import Warden, until
from virtwarden.domain.model import read

# As long as the service needs to notice and to enrol, in which the worst moment lies.
_WORST_SECONDS = 0.03
_ROUNDS = 60


@pytest.fixture
def connection(service: Service) -> Iterator[libvirt.virConnect]:
    opened = libvirt.open("qemu:///system")
    yield opened
    opened.close()


def _is_there(connection: libvirt.virConnect, name: str) -> bool:
    return name in [domain.name() for domain in connection.listAllDomains()]


def _inactive(connection: libvirt.virConnect, name: str) -> bytes:
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE
    return str(connection.lookupByName(name).XMLDesc(flags)).encode()


def test_a_domain_that_is_undefined_stays_undefined(
    warden: Warden, connection: libvirt.virConnect, syslog: Syslog
) -> None:
    chance = random.Random(17)  # noqa: S311
    names = [f"gone{number}" for number in range(_ROUNDS)]
    for name in names:
        domain = connection.defineXML(domain_xml(name))
        time.sleep(chance.random() * _WORST_SECONDS)  # the moment itself is what is tried
        domain.undefine()
    warden.libvirt.define(domain_xml("barrier"))
    syslog.wait_for("event=enrolled domain=barrier ", timeout=60)
    until(lambda: not [name for name in names if _is_there(connection, name)])


def test_an_edit_is_kept_or_told_as_lost_and_always_enrolled(
    warden: Warden, connection: libvirt.virConnect, syslog: Syslog
) -> None:
    chance = random.Random(18)  # noqa: S311
    names = [f"edited{number}" for number in range(_ROUNDS)]
    for name in names:
        connection.defineXML(domain_xml(name))
        time.sleep(chance.random() * _WORST_SECONDS)  # as above
        connection.defineXML(domain_xml(name, vnc=Vnc()))
    warden.libvirt.define(domain_xml("barrier"))
    syslog.wait_for("event=enrolled domain=barrier ", timeout=60)
    until(lambda: all(read(_inactive(connection, name)).enrolment for name in names))
    lost = [name for name in names if not read(_inactive(connection, name)).displays]
    told = [line for line in syslog.lines() if "event=overwritten" in line]
    assert len(lost) <= len(told)
    for name in lost:
        assert any(f"domain={name} " in line for line in told)
