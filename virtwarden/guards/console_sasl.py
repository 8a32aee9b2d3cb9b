# SPDX-License-Identifier: GPL-2.0-or-later
"""Viewers who are asked by SASL: what speaks against it, and what QEMU needs for it."""

from __future__ import annotations

import stat

from virtwarden.changes import Change, GrantAccess, MakeDirectory, WriteFile
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.guards.displays import has_consoles
from virtwarden.system import sasl

_READ = 4


def review(case: Case) -> list[Refusal]:
    """Why viewers cannot be asked so; empty where they can, or need not be."""
    if case.op is not Op.PREPARE or case.rules.sasl == "off" or not has_consoles(case, "vnc"):
        return []
    rules = case.rules
    where = rules.where("console.sasl")
    if rules.tls != "required":
        fix = 'set tls = "required" or sasl = "off" under [console]'
        return [case.refusal("sasl needs tls", where=where, fix=fix)]
    packages = case.facts.lacking_for_sasl(rules.sasl)
    if packages:
        fix = f'apt install {packages}, or set sasl = "off" under [console]'
        return [case.refusal("sasl does not work on this host", where=where, fix=fix)]
    return _review_keytab(case) if rules.sasl == "kerberos" else []


def _review_keytab(case: Case) -> list[Refusal]:
    rules = case.rules
    where = rules.where("console.keytab")
    found = case.facts.look(rules.keytab)
    if found.leaf is None or not stat.S_ISREG(found.leaf.mode) or found.symlink:
        fix = f"kadmin: ktadd -k {rules.keytab} vnc/HOST; or name the file that is there"
        return [case.refusal(f"{rules.keytab} is not a keytab", where=where, fix=fix)]
    if found.leaf.uid != 0 or found.leaf.mode & stat.S_IRWXO:
        fix = f"chown root:root {rules.keytab}; chmod 600 {rules.keytab}"
        return [case.refusal(f"{rules.keytab} can be read by others", where=where, fix=fix)]
    if rules.client_certificates != "required":
        return [
            case.refusal(
                "an escaped guest can read the keytab and log in as anybody at each console that"
                " asks only for Kerberos",
                where=rules.where("console.client_certificates"),
                fix='client_certificates = "required" beside it, or sasl = "tickets"',
            )
        ]
    if not rules.principals:
        fix = 'name them, "alice" or, of another realm, "alice@EXAMPLE.ORG", not a group'
        where = rules.where("console.operators")
        return [
            case.refusal(
                "operators names nobody who can log in with Kerberos", where=where, fix=fix
            )
        ]
    return []


def plan(case: Case) -> list[Change]:
    """What QEMU asks viewers with: a database for tickets, in which none is yet, or a keytab."""
    rules = case.rules
    if not rules.asks_by_sasl or not has_consoles(case, "vnc"):
        return []
    directory = f"{case.cell}/sasl"
    content = sasl.configuration(directory, rules.sasl, rules.keytab)
    changes: list[Change] = [
        MakeDirectory(directory, case.user),
        WriteFile(f"{directory}/{sasl.CONFIGURATION}", content, case.user),
    ]
    if rules.sasl == "tickets":
        return [*changes, WriteFile(f"{directory}/{sasl.DATABASE}", "", case.user)]
    leaf = case.facts.look(rules.keytab).leaf
    if leaf is None:
        return changes
    device, number = leaf.identity
    return [*changes, GrantAccess(rules.keytab, device, number, case.user, _READ)]
