# SPDX-License-Identifier: GPL-2.0-or-later
"""What virt-warden.service does with a domain: it enrols, unenrols, recovers or forgets it.

Nothing here remembers the state of a domain. Each look finds out again what there is to do, so
that an event that is lost, or comes twice, does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import libvirt

from virtwarden import log, recovery
from virtwarden.changes import journal
from virtwarden.domain.model import read
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml, remember, unenrolled
from virtwarden.errors import HostError, PolicyError, WardenError
from virtwarden.libvirtd.connection import inactive_xml, known, rests
from virtwarden.libvirtd.copies import unenrol_copies
from virtwarden.nextstart import foresee
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, load
from virtwarden.service.definitions import Definitions, Outcome
from virtwarden.system import users

_POLICY = ""
"""Whom a complaint about the policy is about; a domain's is about its UUID."""


class Enroller:
    """Enrols and forgets domains, one at a time, over one connection to libvirt."""

    def __init__(
        self, paths: Paths, connection: libvirt.virConnect, definitions: Definitions
    ) -> None:
        self._paths = paths
        self._connection = connection
        self._definitions = definitions
        self._complaints: dict[str, str] = {}

    @property
    def unfinished(self) -> list[str]:
        """The UUIDs of the domains whose last `see_to` failed."""
        return [uuid for uuid in self._complaints if uuid != _POLICY]

    def see_to_all(self) -> None:
        """See to every domain that libvirt has, and to every domain that virt-warden remembers."""
        self._definitions.forget()
        there = [domain.UUIDString() for domain in self._connection.listAllDomains()]
        for uuid in dict.fromkeys([*there, *journal.known_domains(self._paths)]):
            self.see_to(uuid)
        log.event(log.Level.NOTICE, "all-seen-to", domains=len(there))

    def see_to(self, uuid: str) -> None:
        """Enrol a domain that the policy manages, unenrol one that it does not, forget one that
        is gone, and undo what is left of one that does not run.

        Logs an error once, until it is gone or another error comes. Where the connection to
        libvirt is lost, raises the error of the call that failed.
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
        """Log a complaint, unless it is the last one that was logged about the same thing."""
        if self._complaints.get(about) != str(reason):
            self._complaints[about] = str(reason)
            log.event(log.Level.ERROR, what, **fields, reason=reason)

    def _keep(self, policy: Policy, domain: libvirt.virDomain) -> None:
        uuid, managed = domain.UUIDString(), policy.manages(domain.name())
        xml = inactive_xml(domain)
        # Our own define comes back as an event. We skip it, or this would go on for ever where
        # libvirt does not keep what we write.
        if managed:
            remember(self._paths, xml)  # 0.1.0 did not, when it gave the images to the VM's user
        if not self._definitions.is_made(uuid, xml):
            self._have_enrolled(policy, domain, xml)
        if managed:
            self._report(uuid, recovery.recover(self._paths, uuid, lambda: self._rests(uuid)))
        else:
            self._forget(uuid, lambda: self._rests(uuid))

    def _have_enrolled(self, policy: Policy, domain: libvirt.virDomain, xml: bytes) -> None:
        name, uuid = domain.name(), domain.UUIDString()
        if not policy.manages(name):
            former = unenrolled(xml, self._paths)
            if former is not None:
                remember(self._paths, xml)
            if former is not None and self._define(domain, xml, former):
                log.event(log.Level.NOTICE, "unenrolled", domain=name, uuid=uuid)
                self._report(uuid, unenrol_copies(domain, self._paths))
            return
        rules = policy.rules_for(name)
        if rules.mode is Mode.PERMISSIVE:
            foreseen = foresee(self._paths, rules, xml)
            if foreseen.may_lack_access:
                self._leave_its_user(domain, xml, foreseen.reasons[0])
        weak = passwords.objection(xml, rules)
        if weak is not None and rules.mode is Mode.ENFORCING:
            raise weak
        enrolled = enrol_xml(xml, rules.user_prefix, self._paths, via=rules.via)
        if self._define(domain, xml, enrolled):
            holds = "from its next start on" if domain.isActive() else "now"
            bases = ",".join(base.path for disk in read(enrolled).disks for base in disk.layers)
            fields = {"domain": name, "uuid": uuid, "holds": holds, "bases": bases}
            log.event(log.Level.NOTICE, "enrolled", **fields)

    def _leave_its_user(
        self, domain: libvirt.virDomain, xml: bytes, reason: WardenError
    ) -> NoReturn:
        """Have a permissive domain start as libvirt's user, since its own might fail to open all.

        Always raises HostError, which says so.
        """
        former = unenrolled(xml, self._paths)
        if former is not None:
            remember(self._paths, xml)
            if self._define(domain, xml, former):
                fields = {"domain": domain.name(), "uuid": domain.UUIDString()}
                log.event(log.Level.NOTICE, "unenrolled", **fields)
                self._report(domain.UUIDString(), unenrol_copies(domain, self._paths))
                self._definitions.forget()  # once it is set right, it is to be enrolled again
        raise HostError(
            f"it is permissive, and in enforcing mode it would be refused: {reason.what}",
            where=reason.where,
            fix=reason.fix,
        )

    def _define(self, domain: libvirt.virDomain, xml: bytes, wanted: bytes) -> bool:
        """Have libvirt keep another XML; whether it does now. Raises HostError."""
        return self._definitions.replace(domain, xml, wanted) is Outcome.DONE

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
