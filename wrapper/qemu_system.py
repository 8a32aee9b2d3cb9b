# SPDX-License-Identifier: GPL-2.0-or-later
"""The <emulator> of an enrolled domain: checks what the hook left, tightens it, becomes QEMU.

libvirt executes this in QEMU's place, through its entry script emulator.py, as the VM's own user.
Its imports run as that user before every guest, and every import delays every start. So it imports
only the files beside it and a few modules of the standard library. It uses no regular expressions,
which take longer to import and compile than everything else takes to run. Confined by AppArmor it
can read the ticket and execute QEMU, and little else. So it asks the kernel with system calls, and
never reads /proc.

The ticket is root's word on what was reviewed. Without a ticket that only root can have written,
nothing starts. It must name every host file that the domain's XML names or that libvirt derives
from it, except the domain's own (hostfiles.is_own). It must also name the MAC of every NIC, except
those that are assigned as host devices.
"""

from __future__ import annotations

# stat and os wrap these in modules that take up to a third as long to import as Python takes to
# start.
import _stat as stat
import posix as os
import sys

from argv import guest_names, guest_uuid, is_probe, parse_argv
from calls import insist_on_filter, limit_calls, without_off
from consoles import tighten_argv
from landlock import confine
from process import (
    capabilities,
    check_identity,
    execute,
    tighten_descriptors,
    tighten_environment,
    tighten_process,
)
from refusal import AGAIN, ENROL, HOOK, LESS, RESTART, Refusal, say
from review import check_argv
from texts import ENCODING
from ticket import AS_IT_IS, OWN_USER_IF_IT_CAN, awaited, parse_ticket, read_ticket

TYPE_CHECKING = False  # importing typing to learn the same costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from ticket import Ticket

QEMUS = "/usr/bin"
NO_QEMU = "reinstall its package, or give {name} another <emulator>"
OWN_DIRECTORY = __file__.rpartition("/")[0] or "/"


def judge(ticket: Ticket, violations: Iterable[Refusal]) -> None:
    """Raise the first refusal, or only report each of them where the mode is permissive."""
    for refusal in violations:
        if ticket["mode"] == "enforcing":
            raise refusal
        say(ticket["name"], "would refuse", refusal, refusal.fix)


def is_ours(found: os.stat_result) -> bool:
    """Whether a file, under whichever name it was found, is one of the wrapper's."""
    for name in os.listdir(OWN_DIRECTORY):
        try:
            one = os.stat(f"{OWN_DIRECTORY}/{name}")
        except FileNotFoundError:  # an upgrade has just renamed it
            continue
        if (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
            return True
    return False


def check_emulator(emulator: str) -> None:
    """Refuse a program that another user than root could have written, or that is this one."""
    try:
        found = os.stat(emulator)
    except OSError as error:
        raise Refusal(f"{emulator} cannot be executed: {error.strerror}", NO_QEMU) from None
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refusal(f"{emulator} is not root's alone to write", NO_QEMU)
    if is_ours(found):
        raise Refusal(f"{emulator} is this wrapper again", ENROL)


def check_is_closed(emulator: str) -> list[Refusal]:
    """Whoever made the user namespace of a QEMU that can read its program traces it; ptrace(2).

    The service has seen to it that this user cannot (HideProgram in virtwarden/changes).
    """
    what = f"it could read {emulator}, so other processes of libvirt's user could change its memory"
    return [Refusal(what, AGAIN)] if os.access(emulator, os.R_OK) else []


def become(emulator: str, words: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute QEMU, with every descriptor that libvirt passed: taps, monitor, logs."""
    try:
        execute(emulator, words, environment)
    except OSError as error:
        raise Refusal(f"{emulator} cannot be executed: {error.strerror}", NO_QEMU) from None


def become_plain(emulator: str, words: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute a QEMU that no ticket is about."""
    check_emulator(emulator)
    become(emulator, words, environment)


def adopted_ticket(name: str, uuid: str, emulator: str, said: str) -> Ticket | None:
    """The ticket, once root has made this process the VM's own user; None: start as libvirt's.

    In its user namespace it cannot tell root from others: who may have written QEMU is looked at
    before, and the ticket comes from root itself.
    """
    from adoption import become_own_user  # enrolled domains need none of it

    if said == AS_IT_IS:
        return None
    check_emulator(emulator)
    try:
        ticket = parse_ticket(become_own_user(), uuid)
    except Refusal as refusal:
        if said != OWN_USER_IF_IT_CAN:
            raise
        say(name, "starts without its own user", refusal, refusal.fix)
        return None
    if ticket["emulator"] != emulator:
        raise Refusal(f"its ticket names {ticket['emulator']}, not {emulator}", HOOK)
    say(name, "adopts", LESS, RESTART)
    return ticket


def own_ticket(uuid: str) -> Ticket:
    """The ticket of a domain that is enrolled."""
    ticket = read_ticket(uuid)
    check_emulator(ticket["emulator"])
    return ticket


def main(argv: list[str]) -> NoReturn:
    """Become QEMU, or say in one line why not."""
    name = "DOMAIN"
    try:
        given = {k.decode(*ENCODING): v.decode(*ENCODING) for k, v in os.environ.items()}
        options = parse_argv(argv[1:])
        name = (guest_names(options) or [name])[0]
        plain = f"{QEMUS}/{argv[0].rpartition('/')[2]}"
        if is_probe(options):
            become_plain(plain, argv[1:], given)
        uuid = guest_uuid(options)
        said = awaited(uuid)
        ticket = adopted_ticket(name, uuid, plain, said) if said else own_ticket(uuid)
        if ticket is None:
            become_plain(plain, argv[1:], given)
        if ticket["mode"] == "disabled":
            become(ticket["emulator"], argv[1:], given)
        ids = {*os.getresuid()}, {*os.getresgid()}, {*os.getgroups()}
        judge(ticket, check_identity(ticket, *ids, capabilities()))
        judge(ticket, check_is_closed(ticket["emulator"]) if said else ())
        judge(ticket, check_argv(ticket, options))
        options = without_off(ticket, options)
        words = tighten_argv(ticket, options) + insist_on_filter(options)
        environment = tighten_environment(ticket, given)
        tighten_descriptors(ticket, options)
        tighten_process()
        confine(ticket, options)
        limit_calls(ticket, options)
        become(ticket["emulator"], words, environment)
    except Refusal as refusal:
        say(name, "refuses", refusal, refusal.fix)
    except Exception as error:  # noqa: BLE001 - fail closed, with a line and never a traceback
        say(name, "refuses", f"internal error: {error!r}", AGAIN)
    sys.exit(1)
