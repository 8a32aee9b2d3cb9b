# SPDX-License-Identifier: GPL-2.0-or-later
"""Enrols domains when an admin asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import libvirt

from virtwarden.domain.model import from_tree, parse, read
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.errors import HostError, WardenError
from virtwarden.guards.displays import GUARDED
from virtwarden.libvirtd.connection import define, inactive_xml
from virtwarden.nextstart import foresee, try_owners
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Via
from virtwarden.words import shown

Warn = Callable[[str], None]


def enrol(
    paths: Paths,
    policy: Policy,
    warn: Warn,
    via: Via | None,
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
) -> str:
    """Make libvirt store the domain enrolled; gives the outcome, in words that follow its name.

    They name all that its next start would be refused for. `via` is how viewers reach its console
    from now on, whatever the policy says.

    Raises HostError where the policy does not manage the domain, or is enforced and has something
    against a password in its XML.
    """
    _must_be_managed(policy, domain.name())
    former = inactive_xml(domain)
    rules = policy.rules_for(domain.name())
    if rules.mode is Mode.PERMISSIVE:
        foreseen = foresee(paths, rules, former)
        if foreseen.may_lack_access:
            return (
                "is permissive, and its own user might not be able to open all that it needs, so it"
                f" is not enrolled and starts as before:{_listed(foreseen.reasons)}"
            )
    _must_have_no_weak_password(policy, warn, former)
    xml = enrol_xml(former, rules.user_prefix, paths, via=rules.via, chosen_via=via)
    _must_be_possible(via, xml)
    if read(xml) == read(former) and via is None:
        return f"is enrolled already{_obstacles(paths, policy, domain)}"
    define(connection, xml)
    obstacles = _obstacles(paths, policy, domain)
    when = "from its next start on" if domain.isActive() or obstacles else "it can be started"
    based = "".join(
        f"; disk {disk.target} is based on {', '.join(layer.path for layer in disk.layers)}"
        for disk in read(xml).disks
        if disk.layers
    )
    return f"is enrolled: {when}{based}{obstacles}"


def _obstacles(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> str:
    """Why the next start would be refused, a line each; empty where it would not."""
    rules = policy.rules_for(domain.name())
    if rules.mode is not Mode.ENFORCING:
        return ""
    xml = inactive_xml(domain)
    found = (*foresee(paths, rules, xml).reasons, *try_owners(rules, xml))
    if not found:
        return ""
    return f"; that start would be refused:{_listed(found)}"


def _listed(reasons: Iterable[WardenError]) -> str:
    return "".join(f"\n  - {reason}" for reason in reasons)


def enrolled(
    paths: Paths, policy: Policy, warn: Warn, via: Via | None, untrusted_xml: bytes
) -> bytes:
    """Enrol the XML of a domain that libvirt may not know. Raises as `enrol` does."""
    rules = policy.rules_for(from_tree(parse(untrusted_xml)).name)
    made = enrol_xml(untrusted_xml, rules.user_prefix, paths, via=rules.via, chosen_via=via)
    _must_be_possible(via, made)
    _must_be_managed(policy, read(made).name)
    _must_have_no_weak_password(policy, warn, made)
    return made


def _must_be_possible(via: Via | None, xml: bytes) -> None:
    """Refuse to leave a console at an address of a network where libvirt alone should show it."""
    domain = read(xml)
    reached = [a for d in domain.displays if d.kind in GUARDED for a in d.addresses]
    if via == "libvirt" and reached:
        raise HostError(
            f"its console listens on {', '.join(filter(None, reached)) or 'an unknown address'},"
            " not on loopback",
            fix=f"virsh edit {shown(domain.name)}: <listen type='none'/> in place of that",
        )


def _must_be_managed(policy: Policy, name: str) -> None:
    if not policy.manages(name):
        raise HostError(
            f"the policy does not manage {name}",
            fix="add it to `managed` in /etc/virt-warden/policy.toml",
        )


def _must_have_no_weak_password(policy: Policy, warn: Warn, xml: bytes) -> None:
    """Refuse a weak password where the mode is enforcing, and only warn of it otherwise."""
    name = read(xml).name
    rules = policy.rules_for(name)
    error = passwords.objection(xml, rules)
    if error is None:
        return
    if rules.mode is Mode.ENFORCING:
        raise error
    warn(f"{name}: {error}")
