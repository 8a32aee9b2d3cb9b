# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of a guard: it reviews a domain, plans changes, and checks its promise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from glob import escape
from typing import Protocol

from virtwarden.changes import Change
from virtwarden.domain.model import Display, Domain
from virtwarden.errors import Refusal
from virtwarden.guards.facts import Facts
from virtwarden.paths import Paths
from virtwarden.policy import Rules
from virtwarden.system.process import Process
from virtwarden.system.users import Account
from virtwarden.words import printable, shown, toml

SUPPLEMENTARY_GROUPS = ("kvm",)
_SHORT_NAME = 20


class Op(Enum):
    """The steps at which guards act; https://libvirt.org/hooks.html."""

    PREPARE = "prepare"
    """Nothing exists yet: no tap, no VNC port."""
    AHEAD = "ahead"
    """Nothing exists yet, and libvirt no longer waits for `prepare`: `plan` gives what it will give
    at `start` and knows already. `review` and `verify` are not asked."""
    START = "start"
    """Tap and VNC port are known, QEMU does not run yet."""
    ADOPT = "adopt"
    """libvirt has given the domain's files to its own user, and has executed the wrapper as that
    user. Only where nobody enrolled the domain; `plan` is asked at `start`, the others not."""
    STARTED = "started"
    """QEMU runs, and so do the guest's CPUs."""


@dataclass(frozen=True)
class Case:
    """One domain at one step of its start, with its rules."""

    op: Op
    domain: Domain
    rules: Rules
    facts: Facts
    paths: Paths
    adopted: bool = False
    """Nobody enrolled the domain: it gets its user when libvirt has executed the wrapper."""
    closed: tuple[Display, ...] = ()
    """The displays of an adopted domain as libvirt has them, whose port QEMU does not open."""

    @property
    def user(self) -> str:
        """The user that the domain's static DAC label names, or an empty string."""
        for label in self.domain.labels:
            if (label.model, label.kind) == ("dac", "static"):
                return label.label.partition(":")[0]
        return ""

    @property
    def account(self) -> Account | None:
        """The domain's own user, once it is there."""
        account = self.facts.account(self.user) if self.user else None
        return account if account and account.domain == self.domain.uuid else None

    @property
    def vm_groups(self) -> frozenset[int]:
        """The groups that VMs' users share. Their members are not trusted."""
        found = (self.facts.group_id(name) for name in SUPPLEMENTARY_GROUPS)
        return frozenset(number for number in found if number is not None)

    @property
    def short_name(self) -> str:
        """By which libvirt calls a running domain; domain_conf.c, virDomainDefGetShortName."""
        return f"{self.domain.id}-{self.domain.name[:_SHORT_NAME]}"

    @property
    def cell(self) -> str:
        """The domain's directory under /run."""
        return str(self.paths.cell(self.domain.uuid))

    @property
    def enrol(self) -> str:
        """The command that makes the domain's XML what virt-warden needs."""
        if self.facts.is_defined(self.domain.name):
            return f"virt-warden enrol {shown(self.domain.name)}"
        return "virsh create what this prints: virt-warden enrol --xml FILE"

    @property
    def entry(self) -> str:
        """Where the policy says what is for this domain alone."""
        return f"in a [[domain]] with match = {toml(escape(printable(self.domain.name)))}"

    def setting(self, key: str, value: str | list[str], section: str = "") -> str:
        """A line of the policy, and where to write it for this domain alone."""
        under = f"under [domain.{section}], " if section else ""
        return f"{key} = {toml(value)} {under}{self.entry}"

    @property
    def edit(self) -> str:
        """The command that edits the domain's XML."""
        if self.facts.is_defined(self.domain.name):
            return f"virsh edit {shown(self.domain.name)}"
        return "edit the file that it is created from"

    def refusal(self, what: str, *, fix: str, where: str = "") -> Refusal:
        """A refusal of this domain."""
        return Refusal(what, where=where, fix=fix)


class Guard(Protocol):
    """One protection: a module with these three functions, none of which alters anything."""

    NAME: str

    def review(self, case: Case) -> list[Refusal]:
        """Why this domain may not start; empty if it may."""

    def plan(self, case: Case) -> list[Change]:
        """The changes for this step, in order. Called only if `review` gave no refusal."""

    def verify(self, case: Case, process: Process) -> list[str]:
        """The running process's breaches, a sentence each; empty if there are none."""
