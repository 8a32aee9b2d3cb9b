# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox: with landlock(7), QEMU reaches only what its domain needs."""

from __future__ import annotations

import _ctypes
import _stat as stat
import posix as os

from hostfiles import SHARED_DIRECTORIES, certificate_directories, is_made_for, opened_files
from kernel import failure, packed, syscall
from refusal import Refusal, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argv import Option
    from ticket import Ticket

# The kernel's words: <linux/landlock.h>
NR_LANDLOCK_CREATE_RULESET, NR_LANDLOCK_ADD_RULE, NR_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH, LANDLOCK_RULE_NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV
# REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, REFER
CHANGE = WRITE | 0x27B0
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2
# From this ABI on the kernel logs what it denies, if told so for the program executed afterwards.
ABI_WITH_LOG, LOG_NEW_EXEC_ON = 7, 2
# What each ABI of Landlock handles: rights on files, on TCP ports, and what is scoped.
LANDLOCK = {
    1: (0x1FFF, 0, 0),
    2: (0x3FFF, 0, 0),
    3: (0x7FFF, 0, 0),
    4: (0x7FFF, BIND_TCP | CONNECT_TCP, 0),
    5: (0xFFFF, BIND_TCP | CONNECT_TCP, 0),
    6: (0xFFFF, BIND_TCP | CONNECT_TCP, SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL),
}
LANDLOCKED = (
    'boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in lsm=, or set sandbox = "auto" or'
    ' "off" in the policy'
)


def confine(ticket: Ticket, options: list[Option]) -> None:
    """From here on this process, and the QEMU that it becomes, reaches only what this domain needs.

    landlock(7). Where the kernel knows fewer rights than we do, it enforces those that it knows.
    """
    wanted = ticket["landlock"]
    if wanted is None or not (abi := known_abi(ticket["name"], required=wanted["required"])):
        return
    files, ports, scoped = LANDLOCK[min(abi, max(LANDLOCK))]
    ports &= BIND_TCP * (wanted["bind"] is not None) | CONNECT_TCP * (wanted["connect"] is not None)
    ruleset = create_ruleset(files, ports, scoped)
    opened = {path for option in options for path in opened_files(option)}
    made = {path for path in opened if is_made_for(path, ticket["name"], ticket["memory"])}
    homes = {home_of(path) for path in made} - SHARED_DIRECTORIES
    for rights, paths in (
        (EXECUTE | READ_FILE, wanted["execute"]),
        (READ, certificate_directories(options).union(wanted["read"])),
        (WRITE, opened - {*wanted["read"]}),
        (CHANGE, homes.union(wanted["write"])),
    ):
        for path in paths:
            allow_path(ruleset, path, rights & files)
    for rights, numbers in ((BIND_TCP, wanted["bind"]), (CONNECT_TCP, wanted["connect"])):
        for number in numbers or ():
            allow_port(ruleset, number, rights & ports)
    restrict(ruleset, abi)
    os.write(2, f"virt-warden: sandboxed by Landlock {abi}\n".encode())


def confine_to(name: str, allowed: list[tuple[int, list[str]]], *, required: bool) -> None:
    """The same for another program: each right on these paths alone, and no TCP."""
    if not (abi := known_abi(name, required=required)):
        return
    files, ports, scoped = LANDLOCK[min(abi, max(LANDLOCK))]
    ruleset = create_ruleset(files, ports, scoped)
    for rights, paths in allowed:
        for path in paths:
            allow_path(ruleset, path, rights & files)
    restrict(ruleset, abi)


def known_abi(name: str, *, required: bool) -> int:
    """What this kernel knows of Landlock; 0 where it knows nothing and none is required."""
    abi = call(NR_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if abi > 0:
        return abi
    what = f"this kernel has no Landlock ({os.strerror(_ctypes.get_errno())})"
    if required:
        raise Refusal(what, LANDLOCKED)
    say(name, "starts without a sandbox for", what, LANDLOCKED)
    return 0


def restrict(ruleset: int, abi: int) -> None:
    """From here on the ruleset holds."""
    logs = LOG_NEW_EXEC_ON if abi >= ABI_WITH_LOG else 0
    if call(NR_LANDLOCK_RESTRICT_SELF, ruleset, logs) != 0:
        raise failure("landlock_restrict_self")
    os.close(ruleset)


def home_of(path: str) -> str:
    """In which directory QEMU makes files: of huge pages libvirt names the directory itself."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        is_directory = False
    return path if is_directory else path.rpartition("/")[0]


def call(number: int, *arguments: bytes | int | None) -> int:
    return int(syscall(number, *arguments))


def create_ruleset(files: int, ports: int, scoped: int) -> int:
    attributes = packed(8, files, ports, scoped)
    ruleset = call(NR_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise failure("landlock_create_ruleset")
    return ruleset


def allow_path(ruleset: int, path: str, rights: int) -> None:
    """Allow a file, a device, or everything below a directory; a missing path cannot be allowed."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= OF_A_FILE
        rule = packed(8, rights) + packed(4, fd)
        if call(NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0):
            raise failure(f"landlock_add_rule for {path}")
    finally:
        os.close(fd)


def allow_port(ruleset: int, port: int, rights: int) -> None:
    rule = packed(8, rights, port)
    if rights and call(NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_NET_PORT, rule, 0):
        raise failure(f"landlock_add_rule for port {port}")
