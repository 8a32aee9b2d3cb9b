# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU sends from the host's own network: nothing but what its domain's XML needs.

The attacker is the VM's user, as a QEMU that was taken over is. Each attack is also made where the
policy allows it, and must then get through: else it would prove nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.host import network
from tests.host.command import run
from tests.host.domain import Vnc
from tests.host.images import raw
from tests.host.network import Sniffer, Workstation
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, set_policy

HOST4, HOST6 = "192.0.2.10", "2001:db8::10"
OUTSIDE4, OUTSIDE6 = "192.0.2.7", "2001:db8::7"
PORT = 5432
# The first that libvirt takes, where qemu.conf names no other.
MIGRATION = 49152
MARKER = b"the marker"
# linux/in.h, linux/socket.h
MPTCP, UDP_LITE, SCTP = 262, 136, 132
FAST_OPEN = 0x20000000
ECHO4, ECHO6 = b"\x08\0\0\0\0\1\0\1", b"\x80\0\0\0\0\1\0\1"
# ARP, and what belongs to ICMPv6's neighbour discovery and group membership, is the kernel's own.
ARP = b"\x08\x06"
KERNELS_OWN = frozenset({133, 134, 135, 136, 137, 143})


@dataclass(frozen=True)
class Lan:
    """The host's network: one machine on it, and an ear at the host's own port."""

    outside: Workstation
    bridge: str


@pytest.fixture
def lan(bridge: str) -> Iterator[Lan]:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    for address in (f"{HOST4}/24", f"{HOST6}/64"):
        network.give_address(bridge, address)
    with network.workstation(bridge, f"{OUTSIDE4}/24", f"{OUTSIDE6}/64") as outside:
        for address in (OUTSIDE4, OUTSIDE6):
            assert not outside.run("ip", "-br", "address").stderr
            _greet(address)
        yield Lan(outside, bridge)


def _greet(address: str) -> None:
    """Send something, so that the kernel knows the machine: else the first packet waits."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(5)
        with suppress(ConnectionRefusedError):
            client.connect((address, 9))


def policy(text: str = "", host_network: str = "deny") -> None:
    set_policy(
        f'{ENFORCING}[console]\nlisten = ["127.0.0.1", "::1", "::", "{HOST4}"]\n'
        f'[reach]\nhost_network = "{host_network}"\n{text}'
    )


def connected(kind: int = 0, address: str = OUTSIDE4, port: int = PORT) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, kind) as client:
        client.settimeout(0.3)
        client.connect((address, port))


def sent(
    address: str = OUTSIDE4, kind: int = socket.SOCK_DGRAM, protocol: int = 0, content: bytes = b"x"
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind, protocol) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(content, (address, PORT))


def fast_opened() -> None:
    with socket.socket() as client:
        client.settimeout(0.3)
        client.sendto(b"x", FAST_OPEN, (OUTSIDE4, PORT))


def fast_opened_unheard() -> None:
    """It asks for no answer: the data leave while the socket is closed."""
    with socket.socket() as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.sendto(b"x", FAST_OPEN, (OUTSIDE4, PORT))


def corked() -> None:
    """What is kept back until the socket is closed, or longer."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"x", socket.MSG_MORE, (OUTSIDE4, PORT))
        client.sendto(b"x", (OUTSIDE4, PORT))


def multicast(group: str) -> None:
    version6 = ":" in group
    family = socket.AF_INET6 if version6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        if version6:
            (index,) = (i for i, name in socket.if_nameindex() if name.startswith("br-test"))
            client.sendto(b"x", (group, PORT, 0, index))
        else:
            interface = socket.inet_aton(HOST4)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            client.sendto(b"x", (group, PORT))


ATTACKS: dict[str, Callable[[], None]] = {
    "tcp": connected,
    "tcp, ipv6": lambda: connected(address=OUTSIDE6),
    "mptcp": lambda: connected(MPTCP),
    "mptcp, ipv6": lambda: connected(MPTCP, OUTSIDE6),
    "fast open": fast_opened,
    "fast open, not waited for": fast_opened_unheard,
    "udp": sent,
    "udp, corked": corked,
    "udp, ipv6": lambda: sent(OUTSIDE6),
    "udp-lite": lambda: sent(protocol=UDP_LITE),
    "ping": lambda: sent(protocol=socket.IPPROTO_ICMP, content=ECHO4),
    "ping, ipv6": lambda: sent(OUTSIDE6, protocol=socket.IPPROTO_ICMPV6, content=ECHO6),
    "sctp": lambda: connected(SCTP),
    "multicast": lambda: multicast("239.1.2.3"),
    "multicast, ipv6": lambda: multicast("ff02::1:2"),
    "broadcast": lambda: sent("192.0.2.255"),
}


def leaves(lan: Lan, act: Callable[[], object], user: str = "vmw-web01") -> list[bytes]:
    """The frames that leave the host while a VM's user does this."""
    with Sniffer(lan.bridge, outgoing=True) as ear:
        as_user(user, act)
        sent(content=MARKER)
        return [frame for frame in ear.frames_until(MARKER) if not _is_kernels_own(frame)]


def _is_kernels_own(frame: bytes) -> bool:
    if frame[12:14] == ARP:
        return True
    is_icmp6 = frame[12:14] == b"\x86\xdd" and (frame[20] == 58 or frame[20] == 0)
    return is_icmp6 and frame[54 if frame[20] else 62] in KERNELS_OWN


def has(protocol: int) -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_vms_user_sends_nothing_from_the_host(warden: Warden, lan: Lan, attack: str) -> None:
    if attack == "sctp" and not has(SCTP):
        pytest.skip("this kernel has no SCTP")
    policy(host_network="allow")
    warden.started("web01")
    assert leaves(lan, ATTACKS[attack])
    warden.libvirt.destroy("web01")
    policy()
    warden.libvirt.start("web01")
    assert leaves(lan, ATTACKS[attack]) == []
    assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", HOST4, HOST6])
def test_it_does_not_reach_the_hosts_own_services(warden: Warden, lan: Lan, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    policy(host_network="allow")
    warden.started("web01")
    warden.enrolled("web02")
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.socket(family, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind((host, 0))
        datagrams.settimeout(0.2)
        port = server.getsockname()[1]
        datagram_port = datagrams.getsockname()[1]

        def send() -> None:
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", (host, datagram_port))

        assert as_user("vmw-web01", lambda: connected(address=host, port=port)) == ""
        assert as_user("vmw-web01", send) == ""
        assert datagrams.recv(10) == b"x"
        policy()
        warden.libvirt.start("web02")
        refused = as_user("vmw-web02", lambda: connected(address=host, port=port))
        assert refused == "ConnectionRefusedError"
        assert as_user("vmw-web02", send) == "PermissionError"
        with pytest.raises(TimeoutError):
            datagrams.recv(10)
        # The other one's limit is none of root's.
        connected(address=host, port=port)


@contextmanager
def listener(
    user: str, *, family: int = socket.AF_INET, bind: bool = False, port: int = 0
) -> Iterator[int]:
    """A VM's user listens, and sends a word to whoever comes; its port."""
    ready, tell = os.pipe()
    wait, end = os.pipe()

    def listen() -> None:
        with socket.socket(family) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if bind:
                server.bind((HOST6 if family == socket.AF_INET6 else HOST4, port))
            server.listen()
            os.write(tell, str(server.getsockname()[1]).encode())
            server.settimeout(0.05)
            os.set_blocking(wait, False)
            while not _ended(wait):
                with suppress(OSError):
                    guest, _ = server.accept()
                    with guest:
                        guest.sendall(b"a word")

    thread = Thread(target=as_user, args=(user, listen))
    thread.start()
    try:
        yield int(os.read(ready, 10))
    finally:
        os.write(end, b".")
        thread.join()
        for handle in (ready, tell, wait, end):
            os.close(handle)


def _ended(handle: int) -> bool:
    try:
        return bool(os.read(handle, 1))
    except BlockingIOError:
        return False


HEAR = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as client:
    print(client.recv(100).decode())
"""


def heard(lan: Lan, host: str, port: int) -> str:
    """What a machine outside hears from a port of the host."""
    return lan.outside.run("/usr/bin/python3", "-IS", "-c", HEAR, host, str(port)).stdout.strip()


@pytest.mark.parametrize("bind", [True, False], ids=["bound", "without bind"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_nobody_hears_a_listener_that_its_xml_does_not_name(
    warden: Warden, lan: Lan, bind: bool, family: int
) -> None:
    host = HOST6 if family == socket.AF_INET6 else HOST4
    policy(host_network="allow")
    warden.started("web01")
    with listener("vmw-web01", family=family, bind=bind) as port:
        assert heard(lan, host, port) == "a word"
    policy()
    warden.started("web02")
    with listener("vmw-web02", family=family, bind=bind) as port:
        assert not lan.outside.reaches(host, port)
        with pytest.raises(TimeoutError):
            connected(address=host, port=port)


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
def test_nor_one_at_its_consoles_port_and_another_address(
    warden: Warden, lan: Lan, listen: str
) -> None:
    family, host = (socket.AF_INET6, HOST6) if ":" in listen else (socket.AF_INET, HOST4)
    policy(host_network="allow")
    # One that libvirt chooses for no other test: closed connections keep it for a minute.
    at_its_port: dict[str, Any] = {"family": family, "bind": True, "port": 5950}
    warden.started("web01", vnc=Vnc(listen, port=5950))
    with listener("vmw-web01", **at_its_port) as port:
        assert heard(lan, host, port) == "a word"
    warden.libvirt.destroy("web01")
    policy()
    warden.libvirt.start("web01")
    with listener("vmw-web01", **at_its_port) as port:
        assert not lan.outside.reaches(host, port)
    assert warden.status("web01")["breaches"] == []


def test_no_user_of_the_host_poses_as_the_host_that_a_vm_comes_from(
    warden: Warden, lan: Lan
) -> None:
    """QEMU takes a VM's memory, and the content of its disks, from whoever connects first."""
    policy()
    warden.enrolled("web01")
    xml = warden.libvirt.virsh("dumpxml", "--migratable", "web01").stdout
    run("/etc/libvirt/hooks/qemu", "web01", "migrate", "begin", "-", stdin=xml)
    warden.libvirt.start("web01")
    # The kernel answers by itself then, as it does in a flood.
    with syncookies("2"), listener("vmw-web01", bind=True, port=MIGRATION) as port:
        assert lan.outside.reaches(HOST4, port)

        def connect() -> None:
            connected(address=HOST4, port=port)

        assert as_user("nobody", connect) == "ConnectionRefusedError"
        assert as_user("vmw-web01", connect) == "ConnectionRefusedError"
        connect()
        assert warden.status("web01")["breaches"] == []
    warden.started("web02")
    assert warden.status("web02")["breaches"] == []
    warden.libvirt.destroy("web01")
    assert "dport" not in run("nft", "list", "chain", "inet", "vmw-reach", "output").stdout


@contextmanager
def syncookies(value: str) -> Iterator[None]:
    setting = Path("/proc/sys/net/ipv4/tcp_syncookies")
    former = setting.read_text()
    setting.write_text(value)
    try:
        yield
    finally:
        setting.write_text(former)


def test_nor_where_the_kernel_answers_with_a_cookie(warden: Warden, lan: Lan) -> None:
    """Such an answer has no user. What is sent on the connection has one again."""
    policy()
    warden.started("web01")
    with syncookies("2"), listener("vmw-web01") as port:
        assert lan.outside.reaches(HOST4, port)
        assert heard(lan, HOST4, port) == ""


# Honest


@pytest.mark.parametrize("host", [HOST4, HOST6])
def test_its_consoles_answer(warden: Warden, lan: Lan, host: str) -> None:
    policy()
    websocket = "<graphics type='vnc' autoport='yes' websocket='-1' listen='::'/>"
    warden.started("web01", extra_devices=websocket)
    port = warden.vnc_port("web01")
    for tcp_port in (port, port - 5900 + 5700):
        assert lan.outside.reaches(host, tcp_port)
    assert warden.status("web01")["breaches"] == []


def test_a_consoles_port_is_for_answers_alone(warden: Warden, lan: Lan) -> None:
    policy()
    warden.started("web01", vnc=Vnc(listen=HOST4))
    port = warden.vnc_port("web01")

    def connect_from_it() -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.settimeout(0.3)
            client.bind(("127.0.0.1", port))
            client.connect(("127.0.0.1", PORT))

    assert as_user("vmw-web01", connect_from_it) == "ConnectionRefusedError"


@contextmanager
def nbd(where: Workstation, image: Path) -> Iterator[None]:
    """An NBD server outside."""
    pid = image.with_suffix(".pid")
    command = ("qemu-nbd", "--fork", "--persistent", "--format=raw", "--export-name=web01")
    done = where.run(*command, "--bind=::", f"--pid-file={pid}", "--shared=0", str(image))
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        os.kill(int(pid.read_text()), 15)


NBD = (
    "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
    "<source protocol='nbd' name='web01'><host name='{}' port='10809'/></source>"
    "<target dev='sda' bus='scsi'/></disk>"
)
SCSI = "<controller type='scsi' model='virtio-scsi'/>"


@pytest.mark.parametrize("host", [OUTSIDE4, OUTSIDE6, "storage.example"])
def test_a_network_disk_is_reached_by_its_own_vm_alone(
    warden: Warden, lan: Lan, images: Path, host: str
) -> None:
    hosts = Path("/etc/hosts")
    former = hosts.read_text()
    hosts.write_text(f"{former}\n{OUTSIDE4} storage.example\n")
    try:
        with nbd(lan.outside, raw(images / "web01.img")):
            policy()
            warden.started("web01", extra_devices=NBD.format(host))
            assert warden.status("web01")["breaches"] == []
            warden.started("web02")
            address = OUTSIDE6 if host == OUTSIDE6 else OUTSIDE4

            def reach() -> None:
                connected(address=address, port=10809)

            assert as_user("vmw-web01", reach) == ""
            assert as_user("vmw-web02", reach) == "ConnectionRefusedError"
            # Its own disk's host at another port, and another host at this port.
            assert leaves(lan, ATTACKS["tcp"]) == []
            assert leaves(lan, lambda: connected(address=HOST4, port=10809)) == []
    finally:
        hosts.write_text(former)


def test_a_network_disk_that_is_plugged_in_needs_its_host_in_the_policy(
    warden: Warden, lan: Lan, images: Path
) -> None:
    """Here QEMU itself is kept from connecting."""
    plug = ("attach-device", "web01", "/dev/stdin")
    with nbd(lan.outside, raw(images / "web01.img")):
        for hosts, is_reached in (("", False), (f'hosts = ["{OUTSIDE4}:10809"]\n', True)):
            policy(f'{hosts}[[domain]]\nmatch = "*"\nsandbox = "off"\nsystem_calls = "off"\n')
            warden.started("web01", extra_devices=SCSI)
            done = warden.libvirt.virsh(*plug, stdin=NBD.format(OUTSIDE4), check=False)
            assert (done.returncode == 0) is is_reached, done.stderr
            assert ("Connection refused" in done.stderr) is not is_reached
            warden.libvirt.destroy("web01")


def test_a_name_that_nobody_knows_is_refused(warden: Warden, images: Path) -> None:
    policy()
    warden.enrolled("web01", extra_devices=NBD.format("nowhere.invalid"))
    line = warden.refusal("web01")
    assert "no address is known for 'nowhere.invalid'" in line
    assert "virsh edit web01" in line


RBD = (
    "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
    "<source protocol='rbd' name='pool/web01'/><target dev='vda' bus='virtio'/></disk>"
)


def test_a_disk_whose_hosts_no_xml_names_needs_them_in_the_policy(warden: Warden) -> None:
    policy()
    warden.enrolled("web01", extra_devices=RBD)
    line = warden.refusal("web01")
    assert "its rbd disk also connects to hosts that its XML does not name" in line
    assert "under [domain.reach]" in line


def test_the_policys_hosts_are_reached_at_their_ports(warden: Warden, lan: Lan) -> None:
    policy(f'hosts = ["{OUTSIDE4}:{PORT}", "[2001:db8::/64]:1000-2000"]\n')
    warden.started("web01")
    assert leaves(lan, ATTACKS["tcp"])
    assert leaves(lan, ATTACKS["udp"])
    assert leaves(lan, ATTACKS["ping"]) == []
    assert leaves(lan, lambda: connected(port=PORT + 1)) == []
    assert leaves(lan, lambda: connected(address=OUTSIDE6, port=2000))
    assert leaves(lan, lambda: connected(address=OUTSIDE6, port=2001)) == []
    assert warden.status("web01")["breaches"] == []
    policy()
    breaches = warden.status("web01")["breaches"]
    assert len(breaches) == 2
    assert f"port {PORT} of {OUTSIDE4}/32" in breaches[0]


SERIAL = (
    "<serial type='tcp'><source mode='{}' host='{}' service='4555'/><protocol type='raw'/></serial>"
)
EXCEPTED = f'[[domain]]\nmatch = "*"\nallow = ["serial-tcp {HOST4}:4555"]\n'


def test_a_serial_port_that_listens_answers(warden: Warden, lan: Lan) -> None:
    policy(EXCEPTED)
    warden.started("web01", extra_devices=SERIAL.format("bind", HOST4))
    assert lan.outside.reaches(HOST4, 4555)


def test_a_serial_port_that_connects_reaches_its_host(warden: Warden, lan: Lan) -> None:
    policy(EXCEPTED)
    with socket.create_server((HOST4, 4555)) as server:
        server.settimeout(10)
        warden.started("web01", extra_devices=SERIAL.format("connect", HOST4))
        server.accept()[0].close()


def test_a_nic_of_the_type_user_sends_what_its_guest_sends(warden: Warden, lan: Lan) -> None:
    policy('[network]\nuntapped = "allow"\n')
    warden.started("web01", extra_devices="<interface type='user'/>")
    assert leaves(lan, ATTACKS["tcp"])
    assert warden.status("web01")["breaches"] == []


# The rules


def table() -> str:
    return run("nft", "list", "table", "inet", "vmw-reach", check=False).stdout


def test_the_rules_are_there_before_qemu_and_gone_with_the_last_vm(warden: Warden) -> None:
    policy()
    for name in ("web01", "web02"):
        warden.started(name)
    assert table().count(" : jump ") == 2
    warden.libvirt.destroy("web01")
    assert table().count(" : jump ") == 1
    assert warden.status("web02")["breaches"] == []
    warden.libvirt.destroy("web02")
    assert table() == ""
    assert [*PATHS.reach.iterdir()] == []


def test_a_refused_start_leaves_no_rule(warden: Warden, images: Path) -> None:
    policy()
    warden.enrolled("web01", extra_devices=NBD.format("127.0.0.1"))
    done = warden.libvirt.virsh("start", "web01", check=False)
    assert done.returncode != 0  # nobody serves the disk
    assert table() == ""


def test_what_is_flushed_is_a_breach_and_comes_back(warden: Warden, lan: Lan) -> None:
    policy()
    for name in ("web01", "web02"):
        warden.started(name)
    run("nft", "flush", "ruleset")
    assert leaves(lan, ATTACKS["tcp"])
    breaches = " ".join(warden.status("web01")["breaches"])
    assert "reach: nft knows no chain" in breaches
    assert "virt-warden network restore" in breaches
    assert "2 VMs" in warden.command("network", "restore").stdout
    for name in ("web01", "web02"):
        assert leaves(lan, ATTACKS["tcp"], f"vmw-{name}") == []
        assert warden.status(name)["breaches"] == []


def test_the_next_start_brings_back_what_was_flushed(warden: Warden, lan: Lan) -> None:
    policy()
    warden.started("web01")
    run("nft", "flush", "ruleset")
    warden.started("web02")
    for name in ("web01", "web02"):
        assert leaves(lan, ATTACKS["tcp"], f"vmw-{name}") == []


@pytest.mark.parametrize(
    "meddle",
    [
        "insert rule inet vmw-reach output accept",
        "flush chain inet vmw-reach output",
        "insert rule inet vmw-reach vmw-{uuid} accept",
        "flush chain inet vmw-reach vmw-{uuid}",
        "delete element inet vmw-reach users {{ {uid} }}",
    ],
)
def test_rules_that_somebody_changed_are_a_breach(warden: Warden, meddle: str) -> None:
    policy()
    warden.started("web01")
    status = warden.status("web01")
    assert status["breaches"] == []
    run("nft", meddle.format(uuid=status["uuid"], uid=status["uid"]))
    assert "reach: " in " ".join(warden.status("web01")["breaches"])


def test_other_users_of_the_host_send_as_ever(warden: Warden, lan: Lan) -> None:
    policy()
    warden.started("web01")
    for attack in ("tcp", "udp", "ping"):
        assert leaves(lan, ATTACKS[attack], "nobody")


def test_a_vm_that_runs_since_before_there_was_a_limit_is_told_of(warden: Warden) -> None:
    policy(host_network="allow")
    warden.started("web01")
    policy()
    (breach,) = warden.status("web01")["breaches"]
    assert "virsh shutdown web01" in breach
