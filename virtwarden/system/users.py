# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs' users: which exist, and how to make and remove one."""

from __future__ import annotations

import grp
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system.run import run

_COMMENT = "virt-warden domain "
_HOME = "/nonexistent"
# Behind the name in /proc/PID/stat: how many threads the process has (proc(5), field 20).
_THREADS = 17
# Runs apart: its real and saved uid belong to nobody, so the user that it signals for cannot signal
# it (kill(2)), and no other of its kind can: the number has the pid in it. It executes nothing
# afterwards, since execve(2) would make the saved uid the user's.
_SENDER = """
import os, sys
nobodys, uid = 4_000_000_000 + os.getpid(), int(sys.argv[1])
os.setgroups([])
os.setresgid(nobodys, nobodys, nobodys)
os.setresuid(nobodys, uid, nobodys)
try:
    os.kill(-1, 9)
except ProcessLookupError:
    pass
"""
_LONGEST_END_SECONDS = 20


@dataclass(frozen=True)
class Account:
    """A user of the host; `domain` is the UUID of the domain that it was made for, or empty."""

    name: str
    uid: int
    gid: int
    domain: str = ""


def account(name: str) -> Account | None:
    """The user of this name, or None where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid, _domain_of(entry))


def name_of(uid: int) -> str:
    """The name of a user, or `uid 1234` where nobody has that uid."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def groups_of(account: Account) -> tuple[int, ...]:
    """The gids of all groups that a user is in; slower than every other look-up here."""
    return tuple(sorted(os.getgrouplist(account.name, account.gid)))


def account_of(domain: str) -> Account | None:
    """The user that was made for this domain, even if the domain had another name then."""
    for entry in pwd.getpwall():
        if _domain_of(entry) == domain:
            return account(entry.pw_name)
    return None


def of_domains() -> list[Account]:
    """All users that were made for domains."""
    found = [(entry, _domain_of(entry)) for entry in pwd.getpwall()]
    return [Account(e.pw_name, e.pw_uid, e.pw_gid, domain) for e, domain in found if domain]


def domain_of(uid: int) -> str:
    """The UUID of the domain that the user with this uid was made for, or an empty string."""
    try:
        return _domain_of(pwd.getpwuid(uid))
    except KeyError:
        return ""


def _domain_of(entry: pwd.struct_passwd) -> str:
    """The domain in the comment, where nobody but root can have written it.

    Where login.defs or a directory service lets them, people set their own comment (chfn(1)). None
    sets their own home directory.
    """
    comment = entry.pw_gecos.split(",")[0] if entry.pw_dir == _HOME else ""
    return comment.removeprefix(_COMMENT) if comment.startswith(_COMMENT) else ""


def owns_as_vm(path: str) -> bool:
    """Whether a file belongs to a VM's user."""
    try:
        return bool(_domain_of(pwd.getpwuid(Path(path).stat().st_uid)))
    except (OSError, KeyError):
        return False


def group_id(name: str) -> int | None:
    """The gid of the group of this name, or None where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def service_groups() -> frozenset[int]:
    """The primary groups of system users, whose uids are below 1000 (Debian Policy, 9.2.2).

    Root's group is not among them. Nor is a group that system users do not begin with, such as
    libvirt or adm: its members are people whom root put there.
    """
    return frozenset(e.pw_gid for e in pwd.getpwall() if 0 < e.pw_uid < 1000 and e.pw_gid)


def create(name: str, uid: int, groups: tuple[str, ...], domain: str) -> None:
    """Make a user that cannot log in, has no home directory and has its own primary group.

    Goes on where a killed run stopped. Raises HostError where another user has the name, and
    CommandError where groupadd or useradd fails.
    """
    there = account(name)
    if there is not None:
        if (there.uid, there.domain) == (uid, domain):
            return
        raise HostError(f"user {name} is there already, with uid {there.uid}")
    if group_id(name) != uid:
        run("/usr/sbin/groupadd", "--gid", str(uid), name)
    run(
        "/usr/sbin/useradd",
        *("--uid", str(uid), "--gid", name, "--groups", ",".join(groups)),
        *("--no-create-home", "--home-dir", _HOME, "--shell", "/usr/sbin/nologin"),
        # With subordinate uids the VM's user could make namespaces with many users.
        *("--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"),
        *("--comment", f"{_COMMENT}{domain}", name),
    )


def remove(name: str, uid: int) -> None:
    """Remove the user and its primary group; harmless where they are gone or have another id."""
    there = account(name)
    if there is not None and there.uid == uid:
        run("/usr/sbin/userdel", name)
    if group_id(name) == uid:
        run("/usr/sbin/groupdel", name)


def has_processes(uid: int) -> bool:
    """Whether any process of this uid lives; a process that waits to be reaped does not count."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid and not _has_ended(entry):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def _has_ended(process: Path) -> bool:
    """Whether it has ended, by its state and its number of threads in /proc/PID/stat (proc(5)).

    The fields follow the process's name in parentheses, which the process itself can choose.
    """
    fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    return fields[0] in (b"Z", b"X") and int(fields[_THREADS]) <= 1


def kill_processes(account: Account) -> None:
    """End every process of this user at once, also processes that keep forking or kill others.

    `kill -1` with that user's effective uid signals all processes that it may in one system call
    (kill(2)). Raises HostError for uid 0, or where a process is left after 20 seconds.
    """
    if account.uid == 0:
        raise HostError("root's processes are not ended")
    last = time.monotonic() + _LONGEST_END_SECONDS
    while _has_any(account.uid):
        if time.monotonic() > last:
            raise HostError(
                f"processes of user {account.name} do not end",
                fix=f"see which: ps -fu {account.uid}; a restart of the host ends them",
            )
        run("/usr/bin/python3", "-ISB", "-c", _SENDER, str(account.uid))
        _await_end(account)
        if not has_processes(account.uid):
            return


def _has_any(uid: int) -> bool:
    """Whether the user has a process, asked of the kernel for all at once.

    Who forks fast enough is never seen in /proc. A process that waits to be reaped counts here.
    """
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True


def _await_end(account: Account) -> None:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != account.uid:
                continue
            handle = os.pidfd_open(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        try:
            _await_exit(handle, entry.name)
        finally:
            os.close(handle)


def _await_exit(handle: int, pid: str) -> None:
    import select

    poller = select.poll()
    poller.register(handle, select.POLLIN)
    if not poller.poll(5_000):
        raise HostError(
            f"process {pid} does not end", fix=f"see why: cat /proc/{pid}/stack /proc/{pid}/status"
        )
