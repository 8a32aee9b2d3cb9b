# SPDX-License-Identifier: GPL-2.0-or-later
"""This process, which becomes QEMU: its user, and what QEMU inherits from it."""

from __future__ import annotations

# signal wraps it in a module that takes long to import.
import _signal  # type: ignore[import-not-found]  # typeshed has only signal
import posix as os

from kernel import CapabilitySets, capget, failure, packed, prctl, setrlimit, syscall
from refusal import Refusal
from texts import is_number, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from argv import Option
    from ticket import Ticket

# The kernel's words: <linux/prctl.h>, <linux/capability.h>, <linux/close_range.h>,
# <linux/resource.h>
PR_SET_NO_NEW_PRIVS = 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522
NR_CLOSE_RANGE, CLOSE_RANGE_CLOEXEC = 436, 4
RLIMIT_CORE = 4
LAST_DESCRIPTOR = 0xFFFFFFFF

# libvirt's words.
DESCRIPTOR_KEYS = words_of("fd fds vhostfd vhostfds")
ENVIRONMENT = words_of("""
    HOME KRB5RCACHENAME LC_ALL LOGNAME PATH SASL_CONF_PATH SDL_AUDIODRIVER TMPDIR TZ USER
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME""")


def check_identity(
    ticket: Ticket, uids: set[int], gids: set[int], groups: set[int], capabilities: int
) -> Iterator[Refusal]:
    """The process has the ids of the VM's own user, and no other."""
    fix = f"'virt-warden enrol {{name}}' gives it the label {ticket['user']} again"
    if uids != {ticket["uid"]}:
        yield Refusal(f"it runs as uid {sorted(uids)}, not as {ticket['uid']}", fix)
    if gids != {ticket["gid"]}:
        yield Refusal(f"it runs as gid {sorted(gids)}, not as {ticket['gid']}", fix)
    if foreign := groups - {ticket["gid"], *ticket["groups"]}:
        yield Refusal(f"it is in groups {sorted(foreign)}, which are not the VM's", fix)
    if capabilities:
        yield Refusal(f"it has capabilities ({capabilities:#x})", fix)


def capabilities() -> int:
    """Every capability that this process has, could take or could hand on; 0 rules out ambient."""
    sets = CapabilitySets()
    if capget(packed(4, LINUX_CAPABILITY_VERSION_3, 0), sets) != 0:
        raise failure("capget")
    low, high = (int(sets[at] | sets[at + 1] | sets[at + 2]) & 0xFFFFFFFF for at in (0, 3))
    return low | high << 32


def tighten_environment(ticket: Ticket, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that libvirt sets for QEMU by itself; with passthrough also its <qemu:env>."""
    kept = {key: given[key] for key in given if key in ENVIRONMENT or ticket["passthrough"]}
    sasl = ticket["sasl"]
    ours = {"SASL_CONF_PATH": sasl["dir"]} if sasl else {}
    if sasl and sasl["names"] is not None:
        # The cache against replay (krb5.conf(5)) would be a file in /var/tmp. Within TLS nobody
        # sees what could be replayed.
        ours["KRB5RCACHENAME"] = "none:"
    return kept | ours


def named_descriptors(options: list[Option]) -> set[int]:
    """The descriptors that the command line names: `fd=30`, `vhostfds=31:32`, `fd:33`."""
    named = {0, 1, 2}
    for option in options:
        texts = [text for at, text in option.texts if at.rpartition(".")[2] in DESCRIPTOR_KEYS]
        if option.value.startswith("fd:"):
            texts.append(option.value[3:])
        for text in texts:
            if all(map(is_number, numbers := text.split(":"))):
                named.update(map(int, numbers))
    return named


def tighten_descriptors(ticket: Ticket, options: list[Option]) -> None:
    """Make QEMU inherit the descriptors that its command line names, and no others.

    A saved guest's memory comes through a descriptor that libvirt names later, in the monitor.
    """
    deferred = any((option.name, option.value) == ("incoming", "defer") for option in options)
    if ticket["passthrough"] or deferred:
        return
    last = -1
    for number in [*sorted(named_descriptors(options)), LAST_DESCRIPTOR]:
        if number > last + 1:
            close_on_exec(last + 1, number - 1)
        last = number


def close_on_exec(first: int, last: int) -> None:
    """close_range(2); a kernel that does not know it leaves them open, as libvirt did."""
    syscall(NR_CLOSE_RANGE, first, last, CLOSE_RANGE_CLOEXEC)


def tighten_process() -> None:
    """QEMU executes nothing that gains a privilege; cores and new files are not for others."""
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise failure("PR_SET_NO_NEW_PRIVS")
    if setrlimit(RLIMIT_CORE, packed(8, 0, 0)) != 0:
        raise failure("RLIMIT_CORE")
    os.umask(0o077)


def execute(
    program: str, words: list[str], environment: Mapping[str, str] | Mapping[bytes, bytes]
) -> NoReturn:
    """Become another program, with every descriptor that libvirt passed. Raises OSError."""
    for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them; exec keeps that
        _signal.signal(ignored, _signal.SIG_DFL)
    os.execve(program, [program, *words], environment)
