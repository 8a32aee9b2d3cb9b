# SPDX-License-Identifier: GPL-2.0-or-later
"""Who writes into the policy what a refusal says, word for word, gets a domain that starts."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xmls
from fake_host import FakeHost, case_of, policy

from virtwarden.guards import network, reach, sandbox, storage, zones
from virtwarden.guards.base import Case

_ZONE = '[zones.dmz]\nbridges = ["br-dmz"]\nvlan = 10\n'
_TWO_ZONES = f'{_ZONE}[zones.lan]\nbridges = ["br-dmz"]\nvlan = 20\n'
_LINE = re.compile(
    r'(\S+ = (?:"[^"]*"|\[[^\]]*\])) (?:under \[(\S+)\], )?in a \[\[domain\]\] with (.*)'
)
_NIC = (
    "<interface type='{}'><mac address='52:54:00:00:00:01'/><source bridge='br-dmz'/></interface>"
)
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_ARGUMENTS = f"<commandline xmlns='{_QEMU}'><arg value='-s'/></commandline>"
_RBD = (
    "<disk type='network'><source protocol='rbd' name='a/b'><host name='192.0.2.1'/></source>"
    "<backingStore/><target dev='vda'/></disk>"
)

CASES: dict[str, tuple[ModuleType, str, str]] = {
    "untapped": (network, xmls.domain(_NIC.format("user")), ""),
    "shared directories": (
        storage,
        xmls.domain("<filesystem><source dir='/srv'/><target dir='a'/></filesystem>"),
        "",
    ),
    "emulator": (sandbox, xmls.domain(emulator="/usr/local/bin/qemu"), ""),
    "arguments": (sandbox, xmls.domain(extra=_ARGUMENTS), ""),
    "both": (sandbox, xmls.domain(extra=_ARGUMENTS, emulator="/usr/local/bin/qemu"), ""),
    "transient": (sandbox, xmls.domain(xmls.disk(inside="<transient/>")), ""),
    "zone": (zones, xmls.domain(_NIC.format("bridge")), _ZONE),
    "zone of a NIC": (
        zones,
        xmls.domain(_NIC.format("bridge")),
        f'{_TWO_ZONES}[[domain]]\nmatch = "*"\nzone = ["dmz", "lan"]\n',
    ),
    "hosts": (reach, xmls.domain(_RBD), ""),
}


def _against(guard: ModuleType, xml: str, text: str, directory: Path) -> list[str]:
    host = FakeHost(vlan_aware=("br-dmz",))
    found: Case = case_of(xml, policy(text, directory).rules_for("web01"), host)
    return [str(refusal) for refusal in guard.review(found)]


def _written(line: str) -> str:
    told: Any = _LINE.search(line)
    setting, section, match = told.groups()
    match = re.sub(r"; or .*| \(.*", "", match)
    return f"[[domain]]\n{match}\n{f'[domain.{section[7:]}]' if section else ''}\n{setting}\n"


@pytest.mark.parametrize("name", CASES)
def test_what_a_refusal_says_lets_the_domain_start(name: str, tmp_path: Path) -> None:
    guard, xml, before = CASES[name]
    text = f'managed = ["*"]\n{before}'
    lines = _against(guard, xml, text, tmp_path)
    assert lines
    for line in lines:
        text += _written(line)
    assert _against(guard, xml, text, tmp_path) == []
