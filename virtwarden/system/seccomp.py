# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters of system calls, compiled by libseccomp for the kernel: seccomp(2), libseccomp(3)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any

from virtwarden.errors import HostError

PACKAGE = "python3-seccomp"
_CALL = "seccomp"
# seccomp_attr_set(3), SCMP_FLTATR_CTL_OPTIMIZE: the calls in a binary tree.
_BINARY_TREE = 2
# linux/audit.h: AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_AUDIT_ARCHITECTURES = {"x86_64": "c000003e", "aarch64": "c00000b7"}


class Action(Enum):
    """What becomes of a call."""

    ALLOW = "allow"
    LOG = "log"
    """It works, and the kernel logs it."""
    MISSING = "missing"
    """It fails as on a kernel that does not have it, so that libraries do without it."""
    DENY = "deny"
    """It fails for want of permission."""
    KILL = "kill"
    """It ends the process."""


@dataclass(frozen=True)
class Argument:
    """One argument of a call, by its place: whether its bits under `mask` are those of `value`.

    The kernel reads many arguments as numbers of 32 bits and ignores the others, so a rule that is
    to catch a value needs a mask; one that is to let a value pass does not.
    """

    place: int
    value: int
    mask: int = (1 << 64) - 1


@dataclass(frozen=True)
class Rule:
    """What becomes of a call whose arguments are all as said."""

    call: str
    action: Action
    arguments: tuple[Argument, ...] = ()


def is_there() -> bool:
    """Whether libseccomp's Python module is installed."""
    return find_spec("seccomp") is not None


def call_number() -> int:
    """The number of seccomp(2) on this architecture. Raises HostError without libseccomp."""
    return int(_library().resolve_syscall(_library().Arch(), _CALL))


def call_name(number: int, architecture: str) -> str:
    """The name of a system call, by the architecture's number in the kernel's audit records.

    Empty where nobody knows it, or for another architecture than this one.
    """
    if architecture != _AUDIT_ARCHITECTURES.get(os.uname().machine):
        return ""
    try:
        found = _library().resolve_syscall(_library().Arch(), number)
    except (HostError, ValueError):
        return ""
    return found.decode() if isinstance(found, bytes) else str(found or "")


def compiled(default: Action, rules: Iterable[Rule]) -> bytes:
    """The filter's code, as the kernel takes it; calls that no rule is about get `default`.

    Calls of another architecture, such as those of 32 bits, end the process unless `default` is
    LOG. Leaves out calls that this libseccomp does not know. Raises HostError without libseccomp.
    """
    library = _library()
    actions = {
        Action.ALLOW: library.ALLOW,
        Action.LOG: library.LOG,
        Action.MISSING: library.ERRNO(errno.ENOSYS),
        Action.DENY: library.ERRNO(errno.EPERM),
        Action.KILL: library.KILL_PROCESS,
    }
    made = library.SyscallFilter(actions[default])
    other_architectures = Action.LOG if default is Action.LOG else Action.KILL
    made.set_attr(library.Attr.ACT_BADARCH, actions[other_architectures])
    made.set_attr(library.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    here = library.Arch()
    for rule in rules:
        if library.resolve_syscall(here, rule.call) != -1:
            tests = [
                library.Arg(each.place, library.MASKED_EQ, each.mask, each.value)
                for each in rule.arguments
            ]
            made.add_rule(actions[rule.action], rule.call, *tests)
    return _exported(made)


def _library() -> Any:
    try:
        import seccomp
    except ImportError:
        raise HostError(
            "the filter of system calls cannot be compiled without libseccomp",
            fix=f"apt install {PACKAGE}",
        ) from None
    return seccomp


def _exported(made: Any) -> bytes:
    handle = os.memfd_create("filter")
    with os.fdopen(handle, "r+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
