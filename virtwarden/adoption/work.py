# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on one disk at a time, and what a killed run left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from virtwarden.changes import journal
from virtwarden.errors import HostError
from virtwarden.luks.adoption import workplace
from virtwarden.paths import Paths
from virtwarden.system import files


@contextmanager
def at_work(paths: Paths, name: str) -> Iterator[None]:
    """Lock one disk. Undo first what a killed run left behind, and at the end what this run did.

    Raises HostError where another command works on the disk.
    """
    work = workplace(paths)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(work.domain_state(name), wait=False))
        except BlockingIOError:
            raise HostError(
                "another virt-warden luks adopt is working on this disk",
                fix="wait until it is done; see it: pgrep -af 'luks adopt'",
            ) from None
        journal.undo(work, name)
        try:
            yield
        finally:
            journal.undo(work, name)
            with suppress(OSError):  # the directory stays where work is unfinished
                work.domain_state(name).rmdir()


def recover(paths: Paths) -> Iterator[str]:
    """Undo what killed runs left behind, and say what; leave a run that is still at work."""
    work = workplace(paths)
    for name in journal.known_domains(work):
        done = len(journal.records(work, name))
        if done:
            with suppress(HostError), at_work(paths, name):
                yield f"{name}: {done} changes undone"
