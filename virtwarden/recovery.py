# SPDX-License-Identifier: GPL-2.0-or-later
"""Undo what a crash left of domains that do not run, but never of one that is just starting.

Only libvirt knows whether a domain runs, and it does not answer for a domain whose hook is working.
So libvirt is never asked while a domain's journal is locked: the hook would wait for the lock,
libvirt for the hook, and we for libvirt. Instead the journal's state is noted before the question,
and the journal is undone only if that state is the same afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from virtwarden.changes import Scope, journal
from virtwarden.paths import Paths


def recover(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str] | None:
    """Undo what the last run left, if `rests` says that the domain does not run.

    Gives a sentence for each object that was not restored because somebody changed it. Gives None
    if there was nothing to undo, or if the domain runs or is starting. Raises JournalError if
    something cannot be undone.
    """
    before = journal.state(paths, domain)
    if not before[Scope.RUN] or not rests():
        return None
    with journal.locked(paths, domain):
        if journal.state(paths, domain) != before:
            return None
        return journal.undo(paths, domain, Scope.RUN)


def recovered(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str]:
    """Recover a domain. Gives the result, line by line. Raises as `recover` does."""
    done = len(journal.records(paths, domain))
    reports = recover(paths, domain, rests)
    if reports is None:
        return []
    lines = [f"{domain}: left alone: {report}" for report in reports]
    return [*lines, f"{domain}: {done} changes undone"] if done else lines


def forget(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str] | None:
    """Undo all changes for a domain, also its user; its uid stays in the ledger.

    Gives and raises what `recover` does.
    """
    before = journal.state(paths, domain)
    if not paths.domain_state(domain).exists() or not rests():
        return None
    with journal.locked(paths, domain):
        if journal.state(paths, domain) != before:
            return None
        reports = journal.undo(paths, domain, Scope.RUN)
        reports += journal.undo(paths, domain, Scope.ENROLMENT)
        paths.domain_state(domain).rmdir()
        return reports
