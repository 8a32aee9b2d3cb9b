# SPDX-License-Identifier: GPL-2.0-or-later
"""Who asks for a console, whether it is really them, and whether the policy allows it."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from virtwarden.errors import HostError

PAM_SERVICE = "virt-warden"
_ROOT = 0
# struct ucred: pid, uid, gid; unix(7)
_UCRED = struct.Struct("=iII")


@dataclass(frozen=True)
class Operator:
    """An account of this host."""

    name: str
    uid: int
    gid: int

    @property
    def is_root(self) -> bool:
        """Whether it is root. Root is asked for nothing: it can do all this by itself."""
        return self.uid == _ROOT


def peer(connection: socket.socket) -> Operator:
    """Who is at the other end of a Unix socket, as the kernel says (SO_PEERCRED, unix(7)).

    Raises HostError where the host has no such account.
    """
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(answer)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise HostError(f"uid {uid} is not an account on this host") from None
    return Operator(entry.pw_name, uid, entry.pw_gid)


def is_among(operator: Operator, names: Collection[str]) -> bool:
    """Whether these name the account, or a group (`@group`) that it is in; root always is."""
    if operator.is_root:
        return True
    groups = os.getgrouplist(operator.name, operator.gid)
    return any(
        _gid(named[1:]) in groups if named.startswith("@") else named == operator.name
        for named in names
    )


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def authenticate(operator: Operator, untrusted_password: str) -> None:
    """Make PAM check the operator's password, and that the account is in order.

    Takes about two seconds where the password is wrong (pam_fail_delay(3)). Raises HostError.
    """
    import pam

    asked = pam.pam()
    try:
        known = asked.authenticate(operator.name, untrusted_password, service=PAM_SERVICE)
    except ValueError:  # a password with a zero in it
        known = False
    if not known:
        raise HostError(
            f"login of {operator.name} failed: {asked.reason or 'Authentication failure'}",
            fix=f"give your password for this host; its rules: /etc/pam.d/{PAM_SERVICE}",
        )
