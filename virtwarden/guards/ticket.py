# SPDX-License-Identifier: GPL-2.0-or-later
"""The start ticket: what was reviewed and what the wrapper must do. Only root can write it.

The wrapper, which imports nothing of this package, reads it: wrapper/ticket.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from virtwarden.domain.model import Display
from virtwarden.domain.outside import outside
from virtwarden.domain.uses import granted_paths
from virtwarden.guards import calls, confinement
from virtwarden.paths import Paths
from virtwarden.pki import consoles
from virtwarden.policy import Mode
from virtwarden.system.users import Account

if TYPE_CHECKING:
    from virtwarden.guards.base import Case

_FORMAT = 1
_EMULATORS = "/usr/bin"


def wrapper_path(paths: Paths, arch: str) -> str:
    """The `<emulator>` of an enrolled domain of this architecture."""
    return str(paths.wrapper_dir / f"qemu-system-{_qemu_arch(arch)}")


def emulator_path(arch: str) -> str:
    """The QEMU that the wrapper of this architecture becomes."""
    return f"{_EMULATORS}/qemu-system-{_qemu_arch(arch)}"


def _qemu_arch(arch: str) -> str:
    """libvirt says i686 where QEMU says i386."""
    return {"i686": "i386", "armv7l": "arm"}.get(arch, arch)


def render(case: Case, account: Account) -> str:
    """The ticket of a domain whose QEMU will run as this user."""
    domain, rules = case.domain, case.rules
    return json.dumps(
        {
            "version": _FORMAT,
            "mode": rules.mode.value,
            "uuid": domain.uuid,
            "name": domain.name,
            "user": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "groups": list(case.facts.groups_of(account)),
            "emulator": emulator_path(domain.arch),
            "files": sorted(granted_paths(domain, rules)),
            "outside": sorted(outside(domain)),
            # A PCI device that is a NIC has its address without QEMU.
            "macs": [nic.mac.lower() for nic in domain.nics if nic.kind != "hostdev"],
            "vnc": [end for display in domain.displays for end in _endpoints(display)],
            "tls_dir": _tls_directory(case),
            "password": rules.password == "required",
            "sasl": _sasl(case),
            "display": rules.display == "on",
            "client_certificates": rules.client_certificates == "required",
            "static_passwords": rules.static_passwords == "allow",
            "passthrough": "qemu-commandline" in rules.exceptions,
            "spice": "spice" in rules.exceptions,
            "landlock": confinement.landlock_rules(case, emulator_path(domain.arch)),
            "system_calls": calls.entry(case),
        }
    )


def _tls_directory(case: Case) -> str | None:
    """In permissive mode a certificate that could not be made must not keep QEMU from starting."""
    directory = f"{case.cell}/tls"
    last_made = f"{directory}/{consoles.LAST_FILE}"
    if case.rules.tls != "required":
        return None
    if case.rules.mode is Mode.PERMISSIVE and case.facts.look(last_made).leaf is None:
        return None
    return directory


def _sasl(case: Case) -> dict[str, Any] | None:
    """QEMU's SASL configuration, and the principals that may log in (None: all)."""
    if not case.rules.asks_by_sasl:
        return None
    return {
        "dir": f"{case.cell}/sasl",
        "names": list(case.rules.principals) if case.rules.sasl == "kerberos" else None,
    }


def _endpoints(display: Display) -> list[dict[str, Any]]:
    if display.kind != "vnc":
        return []
    sockets = [listen.socket for listen in display.listens if listen.kind == "socket"]
    if display.socket or sockets:
        return [{"socket": display.socket or sockets[0]}]
    if any(listen.kind == "none" for listen in display.listens):
        return []
    addresses = [listen.address for listen in display.listens] or [display.address]
    return [{"listen": address, "port": int(display.port)} for address in addresses[:1]]
