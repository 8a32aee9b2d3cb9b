# SPDX-License-Identifier: GPL-2.0-or-later
"""Which system calls QEMU makes, by what for: what is allowed of a domain follows from its needs.

Found in QEMU 7.2 and 10 with the libraries that Debian links them with. A call that is not here
does not exist for QEMU.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

from virtwarden.system.seccomp import Action, Argument, Rule


@dataclass(frozen=True)
class Needs:
    """What a domain's QEMU does that not every QEMU does.

    `streams`: TCP, to listen for viewers or to connect. `connects`: it connects to somebody, by TCP
    or by a local socket, which the kernel does not tell apart here.
    `datagrams`: UDP. `events`: the kernel tells it of devices. `shares`: it acts on files
    for its guest (9p). `hashes`: it tries to spread a NIC's frames by eBPF. `arguments`: the
    admin's own, which may set up taps.
    """

    streams: bool = False
    connects: bool = False
    datagrams: bool = False
    events: bool = False
    shares: bool = False
    io_uring: bool = False
    hashes: bool = False
    arguments: bool = False


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FILES = _names("""
    access close close_range copy_file_range dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
    fcntl fdatasync fstat fstatfs fsync ftruncate getcwd getdents getdents64 ioctl lseek lstat
    memfd_create newfstatat open openat pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readlink readlinkat readv stat statfs statx umask unlink unlinkat write writev""")
# What a guest asks of a directory of the host, over 9p.
_SHARES = _names("""
    chmod chown fchdir fchmod fchmodat fchmodat2 fchown fchownat fgetxattr flistxattr flock
    fremovexattr fsetxattr futimesat getxattr lchown lgetxattr link linkat listxattr llistxattr
    lremovexattr lsetxattr mkdir mkdirat mknod mknodat openat2 removexattr rename renameat renameat2
    rmdir setxattr symlink symlinkat syncfs truncate utimensat utimes""")
_MEMORY = _names("""
    brk get_mempolicy madvise mbind membarrier mlock mlock2 mlockall mmap mprotect mremap msync
    munlock munlockall munmap set_mempolicy""")
_WAITING = _names("""
    clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd
    eventfd2 futex futex_waitv io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    nanosleep pause poll ppoll pselect6 restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_yield select sigaltstack signalfd signalfd4
    timerfd_create timerfd_gettime timerfd_settime""")
_TIME = _names("clock_getres clock_gettime gettimeofday time")
_PROCESS = _names("""
    arch_prctl execve exit exit_group get_robust_list getcpu getegid geteuid getgid getgroups getpid
    getpriority getrandom getresgid getresuid getrlimit getrusage getppid gettid getuid rseq
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler set_robust_list set_tid_address sysinfo tgkill times uname""")
_SOCKETS = _names("""
    accept accept4 bind getpeername getsockname getsockopt listen recvfrom recvmsg setsockopt
    shutdown""")
_IO_URING = _names("io_uring_setup io_uring_enter io_uring_register")
# QEMU and its libraries try these whenever they start, and do without them.
_TRIED = _names("""
    clone3 kcmp keyctl name_to_handle_at sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler setpriority""")
# Nothing honest tries them: whoever does has taken QEMU over.
_DEADLY = _names("""
    add_key bpf chroot delete_module finit_module fsconfig fsmount fsopen fspick init_module
    kexec_file_load kexec_load mount mount_setattr move_mount msgctl msgget msgrcv msgsnd
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_vm_readv
    process_vm_writev ptrace reboot request_key semctl semget semop semtimedop setns shmat shmctl
    shmdt shmget swapoff swapon umount umount2 unshare""")

# linux/prctl.h: PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_SET_SECCOMP,
# PR_CAPBSET_READ, PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_MCE_KILL, PR_MCE_KILL_GET,
# PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_SVE_SET_VL, PR_SVE_GET_VL,
# PR_SET_TAGGED_ADDR_CTRL, PR_GET_TAGGED_ADDR_CTRL, PR_SET_VMA
_PRCTL = (3, 15, 16, 21, 22, 23, 29, 30, 33, 34, 38, 39, 47, 50, 51, 55, 56, 0x53564D41)
# linux/seccomp.h: no filter whose verdicts a process gives.
_NEW_LISTENER = 8
# linux/sched.h: a thread, in the same namespaces; on s390x the flags come second.
_CLONE_THREAD, _CLONE_NEW = 0x10000, 0x7E020080
_FLAGS_OF_CLONE = 1 if os.uname().machine == "s390x" else 0
_FLAGS_OF_A_SOCKET = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_TYPE = ((1 << 64) - 1) & ~_FLAGS_OF_A_SOCKET
_TCP, _UDP, _ICMP, _ICMPV6, _DEVICE_EVENTS = 6, 17, 1, 58, 15
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_MSG_FASTOPEN = 0x20000000
_FLAGS_OF_SENDING = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}

_INT = 0xFFFFFFFF
# asm-generic/ioctls.h, linux/sockios.h, linux/userfaultfd.h: TIOCSTI, TIOCSETD, TIOCLINUX,
# SIOCSIFHWADDR, USERFAULTFD_IOC_NEW
_IOCTLS = (0x5412, 0x5423, 0x541C, 0x8924, 0xAA00)
# linux/if_tun.h: TUNSETNOCSUM, TUNSETDEBUG, TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETLINK,
# TUNSETGROUP, TUNSETTXFILTER, TUNATTACHFILTER, TUNDETACHFILTER, TUNSETIFINDEX, TUNSETFILTEREBPF,
# TUNSETCARRIER. Their other bits tell the size of an argument, which differs.
_TUN_IOCTLS = (200, 201, 202, 203, 204, 205, 206, 209, 213, 214, 218, 225, 226)
_OF_TUN, _LOW = ord("T") << 8, 0xFFFF
# asm-generic/socket.h: SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and _EBPF
_SO_ATTACH_FILTER, _SO_ATTACH = 26, (50, 51, 52)
# linux/tcp.h: TCP_REPAIR, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_ULP
_TCP_OPTIONS = (19, 23, 30, 31)


def allowed(needs: Needs) -> Iterator[Rule]:
    """The rules for what the domain's QEMU needs, and for what ends it."""
    plain = [*_FILES, *_MEMORY, *_WAITING, *_TIME, *_PROCESS, *_SOCKETS]
    plain += _SHARES if needs.shares else ()
    plain += _IO_URING if needs.io_uring else ()
    plain += ("recvmmsg",) if needs.datagrams else ()
    plain += ("connect",) if needs.connects else ()
    for name in plain:
        yield Rule(name, Action.ALLOW)
    yield Rule("prlimit64", Action.ALLOW, (Argument(0, 0),))
    for option in _PRCTL:
        yield Rule("prctl", Action.ALLOW, (Argument(0, option),))
    yield Rule("seccomp", Action.ALLOW, (Argument(1, 0, _NEW_LISTENER),))
    thread = Argument(_FLAGS_OF_CLONE, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NEW)
    yield Rule("clone", Action.ALLOW, (thread,))
    for name, place in _FLAGS_OF_SENDING.items():
        if name != "sendmmsg" or needs.datagrams:
            yield Rule(name, Action.ALLOW, (Argument(place, 0, _MSG_FASTOPEN),))
    yield from _sockets(needs)
    for name in _DEADLY:
        if name != "bpf" or not needs.hashes:
            yield Rule(name, Action.KILL)


def _sockets(needs: Needs) -> Iterator[Rule]:
    # Datagrams need no connection: with them it could write to the system log, to systemd and to
    # every other local socket that is open to all.
    for kind in (socket.SOCK_STREAM, *((socket.SOCK_DGRAM,) if needs.arguments else ())):
        local = (Argument(0, socket.AF_UNIX), Argument(1, kind, _TYPE))
        yield Rule("socket", Action.ALLOW, local)
        yield Rule("socketpair", Action.ALLOW, local)
    for family in _INTERNET:
        # A migration that comes in needs them: `streamless` closes them to others.
        for protocol in (0, _TCP):
            yield _socket(family, socket.SOCK_STREAM, protocol)
        if needs.datagrams:
            for protocol in (0, _UDP, _ICMP, _ICMPV6):
                yield _socket(family, socket.SOCK_DGRAM, protocol)
    if needs.events:
        yield Rule(
            "socket", Action.ALLOW, (Argument(0, socket.AF_NETLINK), Argument(2, _DEVICE_EVENTS))
        )


def _socket(family: int, kind: int, protocol: int) -> Rule:
    return Rule(
        "socket",
        Action.ALLOW,
        (Argument(0, family), Argument(1, kind, _TYPE), Argument(2, protocol)),
    )


def narrowed(needs: Needs, action: Action) -> Iterator[Rule]:
    """The rules against what QEMU needs not, of calls that it needs."""
    for request in _IOCTLS:
        yield Rule("ioctl", action, (Argument(1, request, _INT),))
    for number in () if needs.arguments else _TUN_IOCTLS:
        yield Rule("ioctl", action, (Argument(1, _OF_TUN | number, _LOW),))
    for option in _SO_ATTACH if needs.events else (_SO_ATTACH_FILTER, *_SO_ATTACH):
        yield _option(socket.SOL_SOCKET, option, action)
    for option in _TCP_OPTIONS:
        yield _option(socket.IPPROTO_TCP, option, action)


def _option(level: int, option: int, action: Action) -> Rule:
    return Rule("setsockopt", action, (Argument(1, level, _INT), Argument(2, option, _INT)))


def streamless(action: Action) -> Iterator[Rule]:
    """The rules against TCP."""
    for family in _INTERNET:
        stream = Argument(1, socket.SOCK_STREAM, _TYPE & _INT)
        yield Rule("socket", action, (Argument(0, family, _INT), stream))


def silenced(needs: Needs) -> Iterator[Rule]:
    """The rules for what fails in every QEMU that starts, and is not worth a line in the log."""
    for name in (*_TRIED, *(() if needs.io_uring else _IO_URING)):
        yield Rule(name, Action.MISSING)
    # getaddrinfo(3) asks which addresses the host has.
    routes = (Argument(0, socket.AF_NETLINK, _INT), Argument(2, socket.NETLINK_ROUTE, _INT))
    yield Rule("socket", Action.MISSING, routes)
    # libseccomp finds out what the kernel can do.
    yield Rule("seccomp", Action.MISSING, (Argument(1, _NEW_LISTENER, _NEW_LISTENER),))


def tried(needs: Needs) -> Iterator[Rule]:
    """The same calls, let through: so that only others are logged where all are allowed."""
    for rule in silenced(needs):
        yield replace(rule, action=Action.ALLOW)
