# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy itself: whether what it says comes true; `virt-warden check` says the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.audit.unmet import unmet
from virtwarden.domain.model import Domain
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


def checks(policy: Policy, domains: Sequence[Domain]) -> Iterator[Item]:
    """Look for what the host does not keep; `domains` are those that the policy manages."""
    sentences = dict.fromkeys(unmet(policy, domains))
    yield from map(KEPT.bad, sentences)
    if not sentences:
        yield KEPT.good(f"all of it, for {len(domains)} managed domains")
