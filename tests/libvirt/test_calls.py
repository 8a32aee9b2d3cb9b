# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls of a QEMU that was taken over: each is tried from within a running one.

Neither AppArmor nor Landlock is in the way: it is the filters alone that refuse.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.host.captive import WORKS, Captive
from tests.host.domain import Disk, Nic, Vnc
from tests.host.images import qcow2, raw
from tests.libvirt.warden import ENFORCING, Warden, set_policy, until

pytestmark = pytest.mark.skipif(not WORKS, reason="the calls that are injected are x86-64's")

ALONE = f'{ENFORCING}sandbox = "off"\n'
MISSING, NOT_PERMITTED = "ENOSYS", "EPERM"
# asm/unistd_64.h
DEADLY = {
    "ptrace": 101,
    "pivot_root": 155,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "init_module": 175,
    "delete_module": 176,
    "shmget": 29,
    "shmat": 30,
    "semget": 64,
    "semop": 65,
    "msgget": 68,
    "msgsnd": 69,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "unshare": 272,
    "perf_event_open": 298,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
FOREIGN = {"getpid of x32": 0x40000000 | 39}
UNKNOWN = {
    "kill": 62,
    "mkdir": 83,
    "symlink": 88,
    "personality": 135,
    "modify_ldt": 154,
    "adjtimex": 159,
    "tkill": 200,
    "timer_create": 222,
    "mq_open": 240,
    "keyctl": 250,
    "inotify_init1": 294,
    "splice": 275,
    "vmsplice": 278,
    "fanotify_init": 300,
    "kcmp": 312,
    "name_to_handle_at": 303,
    "userfaultfd": 323,
    "pkey_alloc": 330,
    "pidfd_open": 434,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "process_madvise": 440,
    "landlock_create_ruleset": 444,
    "memfd_secret": 447,
    "no call of any kernel": 999,
}
_IOCTL, _SOCKET, _CONNECT, _SENDTO, _SENDMSG, _SOCKETPAIR, _SETSOCKOPT = 16, 41, 42, 44, 46, 53, 54
_PRCTL, _PRLIMIT, _SECCOMP = 157, 302, 317
_HIGH = 1 << 32
_IPPROTO_MPTCP, _MSG_FASTOPEN = 262, 0x20000000
SOCKETS = {
    "datagrams": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "datagrams of IPv6": (socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 17),
    "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
    "MPTCP": (socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP),
    "SCTP": (socket.AF_INET, socket.SOCK_STREAM, 132),
    "vsock": (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
    "routes": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "rules of nftables": (socket.AF_NETLINK, socket.SOCK_RAW, 12),
    "ciphers": (socket.AF_ALG, socket.SOCK_SEQPACKET, 0),
    "frames": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "Bluetooth": (31, socket.SOCK_RAW, 1),
    "TIPC": (30, socket.SOCK_STREAM, 0),
    "XDP": (44, socket.SOCK_RAW, 0),
    "datagrams in 33 bits": (_HIGH | socket.AF_INET, socket.SOCK_DGRAM, 0),
    "MPTCP in 33 bits": (socket.AF_INET, socket.SOCK_STREAM, _HIGH | _IPPROTO_MPTCP),
}
IOCTLS = {
    "TIOCSTI": 0x5412,
    "TIOCSETD": 0x5423,
    "TIOCLINUX": 0x541C,
    "SIOCSIFHWADDR": 0x8924,
    "TUNSETIFF": 0x400454CA,
    "TUNSETPERSIST": 0x400454CB,
    "TUNSETOWNER": 0x400454CC,
    "TUNSETIFF of another size": 0x400854CA,
    "TIOCSTI in 33 bits": _HIGH | 0x5412,
    "USERFAULTFD_IOC_NEW": 0xAA00,
}
OPTIONS = {
    "SO_ATTACH_FILTER": (1, 26),
    "SO_ATTACH_BPF": (1, 50),
    "TCP_ULP": (6, 31),
    "TCP_REPAIR": (6, 19),
    "TCP_FASTOPEN": (6, 23),
    "TCP_FASTOPEN_CONNECT": (6, 30),
    "SO_ATTACH_FILTER in 33 bits": (_HIGH | 1, _HIGH | 26),
}


def tried(captive: Captive, number: int, *arguments: int | str) -> str:
    """How a call ended: an empty string where it worked, SIGSYS where it was QEMU's end."""
    try:
        captive.call(number, *arguments)
    except ChildProcessError as died:
        return str(died)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def has_ended(warden: Warden) -> bool:
    """Whether libvirt knows that the VM's QEMU is gone."""
    return warden.libvirt.virsh("domstate", "web01").stdout.strip() == "shut off"


@pytest.fixture
def lone(warden: Warden, images: Path) -> Warden:
    """A VM with a console and nothing else, in no sandbox."""
    set_policy(ALONE)
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.started("web01", disks=[disk], vnc=Vnc())
    return warden


# Attacks


def test_a_call_that_only_an_attacker_makes_is_the_end_of_qemu(lone: Warden) -> None:
    survived = {}
    for name, number in (DEADLY | FOREIGN).items():
        with Captive(lone.libvirt.pid("web01")) as qemu:
            answer = tried(qemu, number, 0, 0, 0, 0, 0)
        if answer == "SIGSYS":
            until(lambda: has_ended(lone))
            lone.libvirt.virsh("start", "--paused", "web01")
        else:
            survived[name] = answer
    assert survived == {}


def test_calls_that_qemu_does_not_need_do_not_exist_for_it(lone: Warden) -> None:
    with Captive(lone.libvirt.pid("web01")) as qemu:
        found = {name: tried(qemu, number, 0, 0, 0, 0, 0) for name, number in UNKNOWN.items()}
    assert found == dict.fromkeys(UNKNOWN, MISSING)
    assert lone.status("web01")["breaches"] == []


def test_sockets_are_local_or_tcps(lone: Warden) -> None:
    with Captive(lone.libvirt.pid("web01")) as qemu:
        found = {name: tried(qemu, _SOCKET, *how) for name, how in SOCKETS.items()}
        assert found == dict.fromkeys(SOCKETS, MISSING)
        assert tried(qemu, _SOCKETPAIR, socket.AF_TIPC, socket.SOCK_STREAM, 0, "0" * 8) == MISSING
        assert tried(qemu, _SOCKETPAIR, socket.AF_UNIX, socket.SOCK_STREAM, 0, "0" * 8) == ""
        assert tried(qemu, _SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0) == ""
        handle = qemu.call(_SOCKET, socket.AF_INET, socket.SOCK_STREAM, 0)
        for flags in (_MSG_FASTOPEN, _HIGH | _MSG_FASTOPEN | socket.MSG_NOSIGNAL):
            address = "\2\0\0\26\x7f\0\0\1"
            assert tried(qemu, _SENDTO, handle, "x", 1, flags, address, 16) == MISSING
            assert tried(qemu, _SENDMSG, handle, "\0" * 56, flags) == MISSING
        found = {
            name: tried(qemu, _SETSOCKOPT, handle, *option, "\0" * 16, 16)
            for name, option in OPTIONS.items()
        }
        assert found == dict.fromkeys(OPTIONS, NOT_PERMITTED)


def test_one_that_listens_nowhere_has_no_tcp_socket(warden: Warden) -> None:
    set_policy(ALONE)
    warden.started("web01")
    with Captive(warden.libvirt.pid("web01")) as qemu:
        for family in (socket.AF_INET, socket.AF_INET6):
            assert tried(qemu, _SOCKET, family, socket.SOCK_STREAM, 0) == NOT_PERMITTED
        assert tried(qemu, _SOCKET, socket.AF_INET, socket.SOCK_DGRAM, 0) == MISSING
        handle = qemu.call(_SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0)
        assert tried(qemu, _CONNECT, handle, "\1\0/run/libvirt/libvirt-sock", 30) == MISSING
    assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize("vnc", [None, Vnc()])
def test_it_says_nothing_to_the_hosts_own_sockets(warden: Warden, vnc: Vnc | None) -> None:
    """Such as those of libvirt, of D-Bus and of the system log, which all users may write to."""
    set_policy(ALONE)
    warden.started("web01", vnc=vnc)
    with _open_to_all(socket.SOCK_STREAM) as stream, _open_to_all(socket.SOCK_DGRAM) as datagrams:
        with Captive(warden.libvirt.pid("web01")) as qemu:
            to = f"\1\0{datagrams.getsockname()}"
            for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, _HIGH | socket.SOCK_DGRAM):
                assert tried(qemu, _SOCKETPAIR, socket.AF_UNIX, kind, 0, "0" * 8) == MISSING
                with suppress(OSError):
                    handle = qemu.call(_SOCKET, socket.AF_UNIX, kind, 0)
                    tried(qemu, _SENDTO, handle, "forged", 6, 0, to, len(to))
            handle = qemu.call(_SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0)
            to = f"\1\0{stream.getsockname()}"
            assert tried(qemu, _CONNECT, handle, to, len(to)) == MISSING
        for end in (stream, datagrams):
            with pytest.raises(BlockingIOError):
                end.accept() if end is stream else end.recv(99)


@contextmanager
def _open_to_all(kind: int) -> Iterator[socket.socket]:
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, kind) as end:
        Path(directory).chmod(0o755)
        path = Path(directory, "socket")
        end.bind(str(path))
        path.chmod(0o666)
        end.setblocking(False)
        if kind == socket.SOCK_STREAM:
            end.listen()
        yield end


def test_devices_take_no_orders_that_qemu_does_not_give(lone: Warden) -> None:
    with Captive(lone.libvirt.pid("web01")) as qemu:
        found = {name: tried(qemu, _IOCTL, 0, number, "\0" * 40) for name, number in IOCTLS.items()}
    assert found == dict.fromkeys(IOCTLS, NOT_PERMITTED)


def test_it_alters_itself_alone_and_no_further_than_it_must(lone: Warden) -> None:
    other = os.getpid()
    with Captive(lone.libvirt.pid("web01")) as qemu:
        assert tried(qemu, _PRLIMIT, other, 7, 0, "\0" * 16) == MISSING
        assert tried(qemu, _PRLIMIT, 0, 7, 0, "\0" * 16) == ""
        # PR_SET_DUMPABLE, PR_SET_MM, PR_SET_PTRACER
        for option in (4, 35, 0x59616D61):
            assert tried(qemu, _PRCTL, option, 1, 0, 0, 0) == MISSING, option
        # SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_NEW_LISTENER
        assert tried(qemu, _SECCOMP, 1, 8, "\0" * 16) == MISSING


def test_no_process_is_made_even_without_qemus_own_filter(lone: Warden) -> None:
    """Its own answers first; ours is the answer where the admin's arguments take QEMU's away."""
    pid = lone.libvirt.pid("web01")
    with Captive(pid) as qemu:
        for number in (435, 57):
            if tried(qemu, number, 0, 0) == "SIGSYS":
                until(lambda: has_ended(lone))
                return
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


# What the policy says


def test_log_lets_all_pass_and_off_leaves_qemus_own_filter(warden: Warden) -> None:
    for wanted, filters in (("log", 3), ("off", 1)):
        set_policy(f'{ALONE}system_calls = "{wanted}"\n')
        process = warden.started("web01", vnc=Vnc())
        assert process.seccomp_filters == filters
        with Captive(process.pid) as qemu:
            assert tried(qemu, _SOCKET, *SOCKETS["datagrams"]) == ""
            assert tried(qemu, UNKNOWN["timer_create"], 99, 0, 0) == "EINVAL"
            assert tried(qemu, DEADLY["pidfd_getfd"], 0, 0, 0) == "EBADF"
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")


@contextmanager
def _without_libseccomp() -> Iterator[None]:
    (module,) = Path("/usr/lib/python3/dist-packages").glob("seccomp.*.so")
    kept = module.with_name("kept")
    module.rename(kept)
    try:
        yield
    finally:
        kept.rename(module)


def test_a_host_without_libseccomp_says_so(warden: Warden) -> None:
    warden.enrolled("web01")
    with _without_libseccomp():
        line = warden.refusal("web01")
        assert "libseccomp" in line
        assert "apt install python3-seccomp" in line
        set_policy(f'{ENFORCING}system_calls = "off"\n')
        warden.libvirt.start("web01")


def test_filters_that_qemu_lacks_are_a_breach(warden: Warden) -> None:
    set_policy(f'{ALONE}system_calls = "off"\n')
    warden.started("web01")
    process = warden.qemu("web01")
    set_policy(ALONE)
    ticket = Path(f"/run/virt-warden/{warden.status('web01')['uuid']}/ticket.json")
    text = ticket.read_text()
    ticket.write_text(
        text.replace(
            '"system_calls": null',
            '"system_calls": {"call": 317, "filters": [{"code": "00", "log": true,'
            ' "incoming": true}]}',
        )
    )
    assert process.seccomp_filters == 1
    (breach,) = warden.status("web01")["breaches"]
    assert "1 of 2 seccomp filters" in breach


# The honest


def test_a_vm_lives_a_whole_life_within_its_filters(
    warden: Warden, images: Path, bridge: str
) -> None:
    set_policy(ALONE)
    disk = images / "web01.qcow2"
    virsh = warden.libvirt.virsh
    process = warden.started(
        "web01",
        disks=[Disk(qcow2(disk)), Disk(raw(images / "two.img"), target="sda", format="raw")],
        nics=[Nic("52:54:00:00:00:01", bridge)],
        vnc=Vnc(),
        extra_devices="<controller type='scsi' model='virtio-scsi'/>"
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
    )
    virsh("reset", "web01")
    virsh("suspend", "web01")
    virsh("resume", "web01")
    virsh("screenshot", "web01", str(images / "screen.ppm"))
    virsh("attach-disk", "web01", "--subdriver", "raw", str(raw(images / "b.img")), "sdb")
    virsh("detach-disk", "web01", "sdb")
    virsh("attach-interface", "web01", "bridge", bridge, "--model", "virtio")
    virsh("snapshot-create-as", "web01", "outside", "--disk-only", "--diskspec", "sda,snapshot=no")
    virsh("blockcommit", "web01", "vda", "--active", "--pivot", "--wait")
    virsh("blockcopy", "web01", "sda", str(images / "copy.img"), "--transient-job", "--pivot")
    virsh("dump", "web01", str(images / "core"), "--memory-only", "--live")
    virsh("save", "web01", str(images / "saved"))
    virsh("restore", str(images / "saved"))
    assert warden.qemu("web01").pid != process.pid
    assert warden.status("web01")["breaches"] == []
    virsh("managedsave", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    assert "bad system call" not in warden.libvirt.log("web01").lower()


def test_a_disk_that_asks_for_io_uring_has_it(warden: Warden, images: Path) -> None:
    set_policy(ALONE)
    disk = raw(images / "web01.img")
    process = warden.started(
        "web01",
        extra_devices=f"<disk type='file'><driver name='qemu' type='raw' io='io_uring'/>"
        f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk>",
    )
    assert "io_uring" in " ".join(process.arguments)
    with Captive(process.pid) as qemu:
        assert tried(qemu, UNKNOWN["io_uring_setup"], 1, 0) == "EFAULT"
    assert warden.status("web01")["breaches"] == []


OF_MANY_KINDS = {
    "SPICE and virtio-gpu": "<graphics type='spice' autoport='yes'/>"
    "<video><model type='virtio'/></video>"
    "<sound model='ich9'/><channel type='spicevmc'>"
    "<target type='virtio' name='com.redhat.spice.0'/>"
    "</channel><input type='tablet' bus='virtio'/><watchdog model='i6300esb' action='reset'/>",
    "TPM and random numbers": "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
    "a shared directory": "<filesystem type='mount' accessmode='mapped'>"
    "<source dir='{images}/share'/><target dir='share'/></filesystem>",
    "a NIC without a tap": "<interface type='user'><model type='virtio'/></interface>",
    "serial ports": "<serial type='pty'/><serial type='file'><source path='{images}/serial.log'/>"
    "</serial>",
}


@pytest.mark.parametrize("kind", OF_MANY_KINDS)
def test_devices_of_many_kinds_work_within_the_filters(
    warden: Warden, images: Path, kind: str
) -> None:
    allowed = '[domain.storage]\nshared_directories = "allow"\n'
    allowed += '[domain.network]\nuntapped = "allow"\n'
    set_policy(f'{ALONE}[[domain]]\nmatch = "web01"\n{allowed}')
    (images / "share").mkdir(mode=0o755)
    devices = OF_MANY_KINDS[kind].format(images=images)
    warden.started("web01", machine="q35", extra_devices=devices)
    warden.libvirt.virsh("reset", "web01")
    warden.libvirt.virsh("qemu-monitor-command", "--hmp", "web01", "info block")
    assert warden.status("web01")["breaches"] == []
    assert warden.libvirt.virsh("domstate", "web01").stdout.strip() == "running"
