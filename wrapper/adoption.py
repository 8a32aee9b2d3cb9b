# SPDX-License-Identifier: GPL-2.0-or-later
"""A start of a domain that nobody enrolled: root makes this process the VM's own user.

libvirt has started the wrapper as the user of qemu.conf, without any capability. In a user
namespace of its own (user_namespaces(7)) the wrapper can become another user, if root maps that.
virt-warden.service does so, after it has found out who asks (virtwarden/service/adopter.py).
"""

from __future__ import annotations

import _socket
import posix as os

from kernel import CapabilitySets, capset, failure, packed, prctl, unshare
from refusal import Refusal
from texts import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/virt-warden/adopt.sock"
LONGEST_ANSWER = 1 << 21
ANSWER_SECONDS = 60

# The kernel's words: <linux/sched.h>, <linux/prctl.h>, <linux/capability.h>
CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24
LINUX_CAPABILITY_VERSION_3 = 0x20080522
LAST_CAPABILITY = 63
# Of a domain that is not enrolled.
AGAIN = "start {name} once more through libvirt; or leave it alone ('managed' in the policy)"
NAMESPACES = (
    "'virt-warden enrol {name}', and start it again; for one that is only created: virsh create"
    " what 'virt-warden enrol --xml FILE' prints; or allow it: sysctl"
    " user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1"
)
SERVICE = "see why: systemctl status virt-warden, journalctl -t virt-warden; "


def become_own_user() -> str:
    """Become the VM's own user, with its groups alone and no capability. Gives the ticket.

    Raises Refusal where virt-warden.service does not answer, or says why not.
    """
    connection = ask()
    try:
        # From here on no process of the same user traces this one (ptrace(2)); the service looks.
        if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise failure("PR_SET_DUMPABLE")
        if unshare(CLONE_NEWUSER) != 0:
            what = f"this kernel lets it make no user namespace ({failure('unshare').strerror})"
            raise Refusal(what, NAMESPACES)
        connection.sendall(b"\n")
        answer = answer_of(connection)
    except (OSError, ValueError) as error:
        raise Refusal(f"virt-warden.service does not answer: {error}", SERVICE + AGAIN) from None
    finally:
        connection.close()
    drop_bounds()
    uid, gid = answer["uid"], answer["gid"]
    os.setgroups(answer["groups"])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    drop_capabilities()
    return str(answer["ticket"])


def ask() -> Any:
    """A connection to root."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # Python's own timeout would have connect(2) fail at once where the socket's queue is full,
        # and everybody may fill it.
        for limit in (_socket.SO_SNDTIMEO, _socket.SO_RCVTIMEO):
            connection.setsockopt(_socket.SOL_SOCKET, limit, packed(8, ANSWER_SECONDS, 0))
        connection.connect(SOCKET)
        credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    except OSError as error:
        what = f"virt-warden.service, which gives it a user of its own, cannot be reached ({error})"
        raise Refusal(what, "systemctl restart virt-warden; " + AGAIN) from None
    if credentials[4:8] != packed(4, 0):
        raise Refusal(f"{SOCKET} is not root's", "systemctl restart virt-warden; " + AGAIN)
    return connection


def answer_of(connection: Any) -> dict[str, Any]:
    """The ids that root mapped, and the ticket. Raises Refusal for one that says why not."""
    said = bytearray()
    while more := connection.recv(LONGEST_ANSWER - len(said)):
        said += more
    answer = load_json(said.decode())
    if not isinstance(answer, dict) or "refusal" in answer:
        why = answer if isinstance(answer, dict) else {}
        raise Refusal(str(why.get("refusal", "it gave no answer")), str(why.get("fix", AGAIN)))
    return answer


def drop_bounds() -> None:
    """No program that this process executes gets a capability; AppArmor may forbid to say so."""
    for capability in range(LAST_CAPABILITY + 1):
        if prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            return


def drop_capabilities() -> None:
    """capset(2); process.check_identity asks afterwards."""
    if capset(packed(4, LINUX_CAPABILITY_VERSION_3, 0), CapabilitySets()) != 0:
        raise failure("capset")
