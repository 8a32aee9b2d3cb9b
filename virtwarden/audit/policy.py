# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy itself: whether what it says comes true; `virt-warden check` says the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.audit.unmet import unmet
from virtwarden.domain.model import Domain
from virtwarden.libvirtd.graduating import stale
from virtwarden.paths import Paths
from virtwarden.policy import Policy

KEPT = Check(
    "host.policy.kept",
    Severity.MEDIUM,
    "This host can do what the policy says",
    "This host cannot do all that the policy says",
    "What the host cannot do protects nobody. An entry with a mistake in a name protects no domain,"
    " disk or NIC.",
    "correct the line, or add what is missing; then: virt-warden check",
)

FOUND = Check(
    "host.policy.found",
    Severity.HIGH,
    "No domain is permissive since the installation",
    "Domains are permissive since the installation",
    "What enforcing mode would refuse of them is only logged. A new domain of the same name would"
    " be permissive too.",
    "virt-warden check tells what to do for each; then: virt-warden graduate --all",
)


def checks(paths: Paths, policy: Policy, domains: Sequence[Domain]) -> Iterator[Item]:
    """Look for what the host does not keep; `domains` are those that the policy manages."""
    sentences = dict.fromkeys(unmet(policy, domains))
    yield from map(KEPT.bad, sentences)
    if not sentences:
        yield KEPT.good(f"all of it, for {len(domains)} managed domains")
    yield _found(paths, policy, domains)


def _found(paths: Paths, policy: Policy, domains: Sequence[Domain]) -> Item:
    names = [domain.name for domain in domains]
    there = [name for name in names if policy.rules_for(name).is_permissive_by(paths.found)]
    gone = [f"{match} (no such managed domain)" for match in stale(paths, names)]
    return FOUND.judged(not [*there, *gone], ", ".join([*there, *gone]) or "none is")
