# SPDX-License-Identifier: GPL-2.0-or-later
"""What virt-warden.service does with a domain: it enrols it, or forgets it, as its state asks for.

Nothing here remembers what a domain was: each look finds out anew what is to be done, so that an
event that was missed, or came twice, does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import libvirt

from virtwarden import log, recovery
from virtwarden.changes import journal
from virtwarden.domain.model import read
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml, unenrolled
from virtwarden.errors import HostError, PolicyError, WardenError
from virtwarden.libvirtd.connection import define, inactive_xml, known, rests
from virtwarden.libvirtd.copies import unenrol_copies
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, load
from virtwarden.system import users

_POLICY = ""
"""Whom a complaint about the policy is about; a domain's is about its UUID."""


class Enroller:
    """Sees to domains, one at a time, over one connection to libvirt."""

    def __init__(self, paths: Paths, connection: libvirt.virConnect) -> None:
        self._paths = paths
        self._connection = connection
        self._complaints: dict[str, str] = {}
        self._made: dict[str, bytes] = {}

    @property
    def unfinished(self) -> list[str]:
        """The UUIDs of the domains that something kept from being seen to."""
        return [uuid for uuid in self._complaints if uuid != _POLICY]

    def see_to_all(self) -> None:
        """See to every domain that libvirt has, and to those that it had."""
        self._made.clear()
        there = [domain.UUIDString() for domain in self._connection.listAllDomains()]
        for uuid in dict.fromkeys([*there, *journal.known_domains(self._paths)]):
            self.see_to(uuid)
        log.event(log.Level.NOTICE, "all-seen-to", domains=len(there))

    def see_to(self, uuid: str) -> None:
        """Enrol a domain that the policy manages, unenrol one that it does not, forget one that
        is gone, and undo what is left of one that does not run.

        What is in the way is logged once, until it is gone or another thing is. Raises
        what is raised where libvirt is not there any more.
        """
        try:
            policy = load(self._paths, store=True)
        except PolicyError as error:
            self._log(_POLICY, "broken-policy", reason=error)
            return
        self._complaints.pop(_POLICY, None)
        name = ""
        try:
            domain = known(self._connection, uuid)
            if domain is None:
                self._forget(uuid, lambda: known(self._connection, uuid) is None)
            elif domain.isPersistent():
                name = domain.name()
                self._keep(policy, domain)
        except (WardenError, OSError, libvirt.libvirtError) as error:
            if not self._connection.isAlive():
                raise
            self._log(uuid, "not-enrolled", domain=name, uuid=uuid, reason=error)
        else:
            self._complaints.pop(uuid, None)

    def _log(self, about: str, what: str, *, reason: object, **fields: object) -> None:
        """Complain of something that was not complained of just so before."""
        if self._complaints.get(about) != str(reason):
            self._complaints[about] = str(reason)
            log.event(log.Level.ERROR, what, **fields, reason=reason)

    def _keep(self, policy: Policy, domain: libvirt.virDomain) -> None:
        uuid, managed = domain.UUIDString(), policy.manages(domain.name())
        xml = inactive_xml(domain)
        # What came out of our own define is not looked at again: it comes back as an event, and
        # would for ever, should libvirt not keep what we write.
        if self._made.get(uuid) != _digest(xml):
            self._have_enrolled(policy, domain, xml)
        if managed:
            self._report(uuid, recovery.recover(self._paths, uuid, lambda: self._rests(uuid)))
        else:
            self._forget(uuid, lambda: self._rests(uuid))

    def _have_enrolled(self, policy: Policy, domain: libvirt.virDomain, xml: bytes) -> None:
        name, uuid = domain.name(), domain.UUIDString()
        if not policy.manages(name):
            former = unenrolled(xml, self._paths)
            if former is not None and self._define(domain, xml, former):
                log.event(log.Level.NOTICE, "unenrolled", domain=name, uuid=uuid)
                self._report(uuid, unenrol_copies(domain, self._paths))
            return
        rules = policy.rules_for(name)
        weak = passwords.objection(xml, rules)
        if weak is not None and rules.mode is Mode.ENFORCING:
            raise weak
        enrolled = enrol_xml(xml, rules.user_prefix, self._paths)
        if self._define(domain, xml, enrolled):
            holds = "from its next start on" if domain.isActive() else "now"
            bases = ",".join(base.path for disk in read(enrolled).disks for base in disk.layers)
            fields = {"domain": name, "uuid": uuid, "holds": holds, "bases": bases}
            log.event(log.Level.NOTICE, "enrolled", **fields)

    def _define(self, domain: libvirt.virDomain, xml: bytes, wanted: bytes) -> bool:
        """Have libvirt keep another XML; whether there was any need to.

        Where somebody else defined the domain just now, it is left to the event that tells of it.
        """
        if read(wanted) == read(xml) or inactive_xml(domain) != xml:
            return False
        define(self._connection, wanted)
        made = inactive_xml(domain)
        self._made[domain.UUIDString()] = _digest(made)
        if read(made) != read(wanted):
            raise HostError(
                "libvirt changes what enrolment writes into its XML",
                fix=f"see what differs: virsh dumpxml --inactive {domain.UUIDString()}",
            )
        return True

    def _forget(self, uuid: str, is_gone: Callable[[], bool]) -> None:
        own = users.account_of(uuid) if self._paths.domain_state(uuid).exists() else None
        reports = recovery.forget(self._paths, uuid, is_gone)
        self._report(uuid, reports)
        if reports is not None:
            user = own.name if own else ""
            log.event(log.Level.NOTICE, "forgotten", uuid=uuid, user=user)

    def _report(self, uuid: str, reports: list[str] | None) -> None:
        for report in reports or ():
            log.event(log.Level.WARNING, "left-alone", uuid=uuid, reason=report)

    def _rests(self, uuid: str) -> bool:
        return rests(self._connection, uuid)


def _digest(xml: bytes) -> bytes:
    return hashlib.sha256(xml).digest()
