# SPDX-License-Identifier: GPL-2.0-or-later
"""The start ticket: what was reviewed and what the wrapper must do. Only root can write it.

The wrapper, which imports nothing of this package, reads it: wrapper/ticket.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from virtwarden.domain.model import Display, Domain
from virtwarden.domain.outside import outside
from virtwarden.guards import calls, confinement
from virtwarden.guards.displays import listens_nowhere
from virtwarden.paths import Paths
from virtwarden.pki import consoles
from virtwarden.policy import Mode
from virtwarden.system.users import Account

if TYPE_CHECKING:
    from virtwarden.guards.base import Case

_FORMAT = 1
EMULATORS = "/usr/bin"


def wrapper_path(paths: Paths, arch: str) -> str:
    """The `<emulator>` of an enrolled domain of this architecture."""
    return str(paths.wrapper_dir / f"qemu-system-{_qemu_arch(arch)}")


def emulator_path(arch: str) -> str:
    """The QEMU that the wrapper of this architecture becomes."""
    return f"{EMULATORS}/qemu-system-{_qemu_arch(arch)}"


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
            "files": sorted(confinement.granted(case)),
            "memory": list(case.facts.memory_directories()) if domain.backs_memory else [],
            "outside": sorted(outside(domain)),
            # A PCI device that is a NIC has its address without QEMU.
            "macs": [nic.mac.lower() for nic in domain.nics if nic.kind != "hostdev"],
            "vnc": [e for d in domain.displays if d.kind == "vnc" for e in _endpoints(d, d.port)],
            "tls_dir": _tls_directory(case),
            "password": rules.password == "required",
            "sasl": _sasl(case),
            "display": rules.display == "on",
            "client_certificates": rules.client_certificates == "required",
            "static_passwords": rules.static_passwords == "allow",
            "passthrough": "qemu-commandline" in rules.exceptions,
            "spice": _spice(domain),
            "closed": [
                e for d in case.closed for port in (d.port, d.tls_port) for e in _endpoints(d, port)
            ],
            "landlock": confinement.landlock_rules(case, emulator_path(domain.arch)),
            "system_calls": calls.entry(case),
        }
    )


def closed_ports(paths: Paths, uuid: str) -> frozenset[int]:
    """The ports of a running domain's consoles that libvirt knows and QEMU did not open."""
    try:
        found = json.loads((paths.cell(uuid) / "ticket.json").read_text())
    except (OSError, ValueError):
        return frozenset()
    return frozenset(place["port"] for place in found.get("closed", ()))


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


def _spice(domain: Domain) -> list[dict[str, Any]] | Literal[False]:
    """Where SPICE may listen; False where there is no SPICE display."""
    found = [display for display in domain.displays if display.kind == "spice"]
    if not found:
        return False
    return [e for d in found for port in (d.port, d.tls_port) for e in _endpoints(d, port)]


def _endpoints(display: Display, port: str) -> list[dict[str, Any]]:
    sockets = [listen.socket for listen in display.listens if listen.kind == "socket"]
    if display.socket or sockets:
        return [{"socket": display.socket or sockets[0]}]
    if listens_nowhere(display) or not port.isdecimal() or not int(port):
        return []
    addresses = [listen.address for listen in display.listens] or [display.address]
    return [{"listen": address, "port": int(port)} for address in addresses[:1]]
