"""Undo what is left of domains that do not run, without catching one that is just starting.

Whether a domain runs, libvirt knows; and libvirt does not answer for a domain whose hook is at
work. So it is never asked while a domain's journal is held: its hook would wait for us, libvirt for
the hook, and we for libvirt. What is undone is instead what lay there before the question, or
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from virtwarden.changes import Scope, journal
from virtwarden.paths import Paths


def recover(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str] | None:
    """Undo what the last run left, where `rests` says that the domain does not run.

    Gives a sentence for each thing that was left alone, and None where nothing was to be undone,
    or the domain runs or is just starting. Raises JournalError where something cannot be undone.
    """
    before = journal.state(paths, domain)
    if not before[Scope.RUN] or not rests():
        return None
    with journal.locked(paths, domain):
        if journal.state(paths, domain) != before:
            return None
        return journal.undo(paths, domain, Scope.RUN)


def recovered(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str]:
    """Recover a domain, and say what came of it, a line each. Raises as `recover` does."""
    done = len(journal.records(paths, domain))
    reports = recover(paths, domain, rests)
    if reports is None:
        return []
    lines = [f"{domain}: left alone: {report}" for report in reports]
    return [*lines, f"{domain}: {done} changes undone"] if done else lines


def forget(paths: Paths, domain: str, rests: Callable[[], bool]) -> list[str] | None:
    """Undo all that was ever done for a domain, its user included; its uid stays spent.

    Answers and raises as `recover` does.
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
