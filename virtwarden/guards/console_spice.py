# SPDX-License-Identifier: GPL-2.0-or-later
"""What SPICE cannot do of that which the policy asks of a console."""

from __future__ import annotations

from virtwarden.domain.model import Display
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case
from virtwarden.guards.displays import has_port, listens_nowhere, without
from virtwarden.words import shown


def review(case: Case, display: Display) -> list[Refusal]:
    """Why viewers may not reach a SPICE display as its XML says; empty where libvirt shows it."""
    if listens_nowhere(display):
        return []
    rules, name = case.rules, shown(case.domain.name)
    by_libvirt = f"virt-warden enrol --console libvirt {name}, which needs no port"
    as_vnc = f"or {case.edit}: {without(case, display)}; put <graphics type='vnc'/> there"
    refusals = []
    if not has_port(display) and rules.tls == "required":
        refusals.append(
            case.refusal(
                "SPICE has no TLS at a Unix socket",
                where=rules.where("console.tls"),
                fix=f"<listen type='none'/> in its place, or an address: {case.edit}; or"
                ' tls = "off" under [domain.console] for it',
            )
        )
    if display.draws_by_gl and has_port(display):
        refusals.append(
            case.refusal(
                "QEMU shows a SPICE display with <gl> at no TCP port",
                fix=f"{by_libvirt}; or remove <gl>: {case.edit}",
            )
        )
    if rules.client_certificates == "required":
        refusals.append(
            case.refusal(
                "SPICE asks viewers for no certificate",
                where=rules.where("console.client_certificates"),
                fix=f'{by_libvirt}; or client_certificates = "off" under [domain.console] for it;'
                f" {as_vnc}",
            )
        )
    if rules.sasl == "kerberos":
        refusals.append(
            case.refusal(
                "SPICE lets in whoever has a Kerberos ticket of the realm, not operators alone",
                where=rules.where("console.sasl"),
                fix=f'{by_libvirt}; or sasl = "tickets" under [domain.console] for it; {as_vnc}',
            )
        )
    return refusals
