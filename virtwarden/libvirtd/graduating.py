# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes domains out of what installation found, so that they are enforcing as any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import libvirt

from virtwarden import log
from virtwarden.errors import HostError, WardenError
from virtwarden.libvirtd import enrolling
from virtwarden.libvirtd.connection import find, inactive_xml, persistent
from virtwarden.nextstart import foresee, try_owners
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Rules, load
from virtwarden.policy.found import pattern, patterns, without
from virtwarden.system import files
from virtwarden.words import shown

Warn = Callable[[str], None]

_MODE = 0o644


@dataclass(frozen=True)
class Graduation:
    """What came of one domain: an outcome, in words that follow its name, or what is in the way."""

    name: str
    outcome: str
    obstacles: tuple[WardenError, ...] = ()


def remaining(paths: Paths, connection: libvirt.virConnect) -> list[str]:
    """The domains that are permissive since the installation, and entries whose domain is gone."""
    policy = load(paths)
    names = [domain.name() for domain in persistent(connection)]
    there = [name for name in names if policy.rules_for(name).is_permissive_by(paths.found)]
    return [*there, *stale(paths, names)]


def stale(paths: Paths, names: list[str]) -> list[str]:
    """The entries that match none of these domains. Raises PolicyError."""
    found = dict.fromkeys(patterns(_text(paths), paths.found))
    return [match for match in found if not any(fnmatchcase(name, match) for name in names)]


def graduate(paths: Paths, warn: Warn, connection: libvirt.virConnect, name: str) -> Graduation:
    """Make a domain enforcing, and enrol it, where nothing would then refuse its start.

    Raises WardenError, and leaves the file as it was, where the file does not name this domain by
    itself, or was edited so that a domain cannot be taken out of it.
    """
    try:
        domain = find(connection, name)
    except HostError:
        return _forget(paths, name)
    name = domain.name()
    rules = load(paths).rules_for(name)
    if rules.mode is Mode.ENFORCING:
        return Graduation(name, "is enforcing already")
    _must_be_found(paths, rules, name)
    xml = inactive_xml(domain)
    obstacles = (*foresee(paths, rules, xml).reasons, *try_owners(rules, xml))
    if obstacles:
        return Graduation(name, "stays permissive", obstacles)
    former = _take_out(paths, pattern(name))
    try:
        policy = load(paths, store=True)
        _must_be_enforcing(policy.rules_for(name), name)
        enrolling.enrol(paths, policy, warn, None, connection, domain)
    except BaseException:
        files.write_atomically(paths.found, former.encode(), _MODE, durable=True)
        raise
    log.event(log.Level.NOTICE, "graduated", domain=name, uuid=domain.UUIDString())
    when = ", from its next start on" if domain.isActive() else ""
    return Graduation(name, f"is enforcing{when}")


def _forget(paths: Paths, name: str) -> Graduation:
    """Remove the entry of a domain that is gone: another of its name is a new domain."""
    match = next((m for m in patterns(_text(paths), paths.found) if m in (name, pattern(name))), "")
    if not match:
        raise HostError(f"there is no domain {name}", fix="see which there are: virsh list --all")
    _take_out(paths, match)
    load(paths, store=True)
    return Graduation(name, "is no domain any more; its entry is removed")


def _must_be_found(paths: Paths, rules: Rules, name: str) -> None:
    where = rules.where("mode")
    if not rules.is_permissive_by(paths.found):
        raise HostError(
            f"it is {rules.mode.value} by what you wrote, not by what installation found",
            where=where,
            fix=f"edit that line, then: virt-warden explain {shown(name)}",
        )
    if pattern(name) not in patterns(_text(paths), paths.found):
        raise HostError(
            "the entry was edited by hand and is not for this domain alone",
            where=where,
            fix=f"edit it so that it does not match {shown(name)}, then: virt-warden check",
        )


def _must_be_enforcing(rules: Rules, name: str) -> None:
    if rules.mode is not Mode.ENFORCING:
        raise HostError(
            f"without its entry it would be {rules.mode.value} all the same",
            where=rules.where("mode"),
            fix=f"edit that line, then: virt-warden graduate {shown(name)}",
        )


def _take_out(paths: Paths, match: str) -> str:
    """Gives the file's former text."""
    with files.locked(paths.policy_dir):
        former = _text(paths)
        text = without(former, match, paths.found)
        if text:
            files.write_atomically(paths.found, text.encode(), _MODE, durable=True)
        else:
            paths.found.unlink()
    return former


def _text(paths: Paths) -> str:
    return paths.found.read_text() if paths.found.exists() else ""
