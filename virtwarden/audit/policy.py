"""The policy itself: whether what it says comes true; `virt-warden check` tells the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.audit.unmet import unmet
from virtwarden.domain.model import Domain
from virtwarden.policy import Policy

KEPT = Check(
    "host.policy.kept",
    Severity.MEDIUM,
    "What the policy says comes true on this host",
    "What this host cannot do keeps nobody out, and an entry that a slip in a name leaves without"
    " its domain, disk or NIC leaves those as free as before.",
    "mend the line, or what is said to be missing; then see: virt-warden check",
)


def checks(policy: Policy, domains: Sequence[Domain]) -> Iterator[Item]:
    """Look for what is not kept; `domains` are those that the policy manages."""
    sentences = dict.fromkeys(unmet(policy, domains))
    yield from map(KEPT.bad, sentences)
    if not sentences:
        yield KEPT.good(f"all of it, for {len(domains)} managed domains")
