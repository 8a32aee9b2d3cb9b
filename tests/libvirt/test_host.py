# SPDX-License-Identifier: GPL-2.0-or-later
"""The private host keeps its promises, and its helpers do what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.host import namespace, vnc
from tests.host.certificates import Authority
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.frames import BROADCAST, ETHERTYPE_EXPERIMENT, arp, ethernet, vlan
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.network import neighbour
from tests.host.qemu import Qemu, encrypted_console
from tests.host.syslog import Syslog
from tests.host.tap import inject
from tests.host.traces import traces

PRIVATE_HOST = (sys.executable, "-B", "-m", "tests.host", "--")
MAC = "52:54:00:00:00:01"
VNC_PORT = 5977
PASSWORD = "p4ssw0rd"


def frame(text: bytes, src: str = MAC) -> bytes:
    return ethernet(src, BROADCAST, ETHERTYPE_EXPERIMENT, text)


class TestNamespace:
    """These run a private host inside the private host, which for it is the real one."""

    MISCHIEF = """
        set -e
        useradd mischief
        touch /etc/mischief /usr/mischief /var/mischief /root/mischief /run/mischief /tmp/mischief
        rm /etc/hosts
        ip link add mischief type bridge
        nft add table bridge mischief
        mount -t tmpfs mischief /mnt
        hostname mischief
        sleep infinity &
    """

    def test_leaves_nothing_outside(self) -> None:
        before = traces()
        run(*PRIVATE_HOST, "sh", "-c", self.MISCHIEF)
        assert traces() == before

    def test_writes_nowhere_but_in_the_checkout(self, request: pytest.FixtureRequest) -> None:
        scratch = request.config.rootpath / "tests" / ".test_host-scratch"
        try:
            run(*PRIVATE_HOST, "touch", str(scratch))
            assert scratch.exists()
        finally:
            scratch.unlink(missing_ok=True)
        refused = run(*PRIVATE_HOST, "touch", "/boot/mischief", check=False)
        assert "Read-only file system" in refused.stderr

    def test_has_no_domain_and_no_hook_of_the_host(self) -> None:
        autostart = Path("/etc/libvirt/qemu/autostart/theirs.xml")
        hook = Path("/etc/libvirt/hooks/qemu.d/theirs")
        for path in (autostart, hook):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        try:
            found = run(*PRIVATE_HOST, "find", "/etc/libvirt/qemu", "/etc/libvirt/hooks")
        finally:
            autostart.unlink()
            hook.unlink()
            hook.parent.rmdir()
        assert found.stdout.split() == ["/etc/libvirt/qemu", "/etc/libvirt/hooks"]

    @pytest.mark.parametrize(
        ("command", "code"),
        [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)],
    )
    def test_exits_as_the_command_did(self, command: str, code: int) -> None:
        assert run(*PRIVATE_HOST, "sh", "-c", command, check=False).returncode == code

    def test_names_a_command_that_is_missing(self) -> None:
        done = run(*PRIVATE_HOST, "no-such-command", check=False)
        assert done.returncode == 127
        assert done.stderr == "tests.host: no-such-command: No such file or directory\n"

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_ends_with_the_process_outside(self, how: signal.Signals) -> None:
        # Everything inside holds the pipe's other end: it closes when the last of them is gone.
        script = "setsid sh -c 'trap \"\" TERM INT; sleep infinity' & echo up; sleep infinity"
        with subprocess.Popen(
            [*PRIVATE_HOST, "sh", "-c", script], stdout=subprocess.PIPE
        ) as private_host:
            assert private_host.stdout is not None
            assert private_host.stdout.readline() == b"up\n"
            private_host.send_signal(how)
            assert private_host.stdout.read() == b""

    def test_is_asked_for_by_what_changes_the_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WARDEN_PRIVATE_HOST")
        with pytest.raises(namespace.NotPrivateError, match=r"tests\.host"):
            namespace.require_private_host()


class TestCommand:
    def test_has_no_terminal_at_which_it_could_ask(self) -> None:
        inside = "from tests.host.command import run; run('sh', '-c', ': </dev/tty')"
        done = run("script", "-qec", f'{sys.executable} -Bc "{inside}"', "/dev/null", check=False)
        assert "No such device or address" in done.stdout


class TestSyslog:
    def test_gives_back_the_line_that_was_waited_for(self, syslog: Syslog) -> None:
        run("logger", "--tag", "virt-warden", "refused web-01")
        assert syslog.wait_for("refused").endswith("virt-warden: refused web-01")

    def test_tells_what_came_instead(self, syslog: Syslog) -> None:
        run("logger", "something else")
        with pytest.raises(TimeoutError, match="something else"):
            syslog.wait_for("refused", timeout=0.1)


class TestLibvirt:
    def test_runs_a_domain(self, domains: Libvirt, images: Path) -> None:
        image = qcow2(images / "disk.qcow2")
        domains.define(domain_xml("guest", disks=[Disk(image)]))
        domains.start("guest")
        assert Path(f"/proc/{domains.pid('guest')}/exe").resolve().name == "qemu-system-x86_64"
        assert image.owner() == "libvirt-qemu"
        assert "-name guest=guest" in domains.log("guest")

    @pytest.mark.parametrize("killed", [False, True])
    def test_daemon_comes_back_to_its_domains(
        self, domains: Libvirt, images: Path, killed: bool
    ) -> None:
        image = qcow2(images / "disk.qcow2")
        domains.define(domain_xml("guest", disks=[Disk(image)]))
        domains.start("guest")
        before = domains.pid("guest")
        if killed:
            domains.kill()
        domains.restart()
        assert domains.pid("guest") == before
        domains.destroy("guest")
        assert image.owner() == "root"

    def test_says_why_a_start_failed(self, domains: Libvirt, images: Path) -> None:
        domains.define(domain_xml("guest", disks=[Disk(images / "missing.qcow2")]))
        with pytest.raises(RuntimeError, match=r"missing\.qcow2"):
            domains.start("guest")


class TestNetwork:
    @pytest.fixture
    def tap(self, domains: Libvirt, bridge: str) -> str:
        domains.define(domain_xml("guest", nics=[Nic(MAC, bridge, queues=2)]))
        domains.start("guest")
        return domains.virsh("domiflist", "guest").stdout.split()[0]

    def test_frame_goes_from_neighbour_to_neighbour(self, bridge: str) -> None:
        with neighbour(bridge) as sender, neighbour(bridge) as receiver:
            sent = [
                arp(MAC, MAC, "192.0.2.1", "192.0.2.2"),
                vlan(frame(b"tagged"), 7),
                vlan(vlan(frame(b"tagged twice"), 8), 7),
            ]
            for each in sent:
                sender.send(each)
            sender.send(frame(b"marker"))
            assert receiver.frames_until(b"marker") == sent

    def test_frame_of_a_running_guest_arrives(self, tap: str, bridge: str) -> None:
        flags = Path("/sys/class/net", tap, "tun_flags")
        as_qemu_needs_it = flags.read_text()
        with neighbour(bridge) as receiver:
            inject(tap, frame(b"hello"), vlan(frame(b"tagged"), 7), frame(b"marker"))
            assert receiver.frames_until(b"marker") == [frame(b"hello"), vlan(frame(b"tagged"), 7)]
        assert flags.read_text() == as_qemu_needs_it

    def test_frame_that_is_dropped_is_missing(self, tap: str, bridge: str) -> None:
        rule = f"iifname {tap} ether saddr != {MAC} drop"
        chain = f"type filter hook prerouting priority 0; {rule};"
        run("nft", "-f", "-", stdin=f"table bridge t {{ chain c {{ {chain} }}; }}")
        try:
            with neighbour(bridge) as receiver:
                inject(tap, frame(b"lie", src="52:54:00:00:00:99"), frame(b"marker"))
                assert receiver.frames_until(b"marker") == []
        finally:
            run("nft", "delete", "table", "bridge", "t")

    def test_marker_that_never_comes_is_an_error(self, tap: str, bridge: str) -> None:
        with neighbour(bridge) as receiver:
            inject(tap, frame(b"hello"))
            with pytest.raises(TimeoutError, match=frame(b"hello").hex(" ")):
                receiver.frames_until(b"marker", timeout=0.1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.server("console.test")
    return authority


def console(authority: Authority, *, verify_peer: bool = False) -> AbstractContextManager[Qemu]:
    return encrypted_console(authority.directory, VNC_PORT, PASSWORD, verify_peer=verify_peer)


def login(authority: Authority, password: str, hostname: str | None = None) -> str:
    return vnc.login("127.0.0.1", VNC_PORT, authority.certificate, password, hostname)


class TestVnc:
    def test_encrypted_console_offers_nothing_else(self, authority: Authority) -> None:
        with console(authority):
            assert vnc.security_types("127.0.0.1", VNC_PORT) == [vnc.SECURITY_VENCRYPT]
            assert vnc.vencrypt_subtypes("127.0.0.1", VNC_PORT) == [vnc.VENCRYPT_X509_VNC]
            refused = "Authentication failed"
            assert vnc.try_plain("127.0.0.1", VNC_PORT) == {1: refused, 2: refused}

    def test_plain_login_is_seen_where_it_works(self, domains: Libvirt) -> None:
        domains.define(domain_xml("open", vnc=Vnc(port=VNC_PORT)))
        domains.start("open")
        assert vnc.try_plain("127.0.0.1", VNC_PORT)[vnc.SECURITY_NONE] == vnc.ACCEPTED
        domains.destroy("open")
        domains.define(domain_xml("open", vnc=Vnc(port=VNC_PORT, password=PASSWORD)))
        domains.start("open")
        answers = vnc.try_plain("127.0.0.1", VNC_PORT)
        assert answers[vnc.SECURITY_VNC_AUTH] == vnc.ASKS_FOR_PASSWORD

    def test_logs_in(self, authority: Authority) -> None:
        with console(authority):
            assert login(authority, PASSWORD, "console.test") == "QEMU"

    def test_wrong_password_is_refused(self, authority: Authority) -> None:
        with console(authority), pytest.raises(vnc.LoginRefusedError, match="Authentication"):
            login(authority, "wrong")

    def test_wrong_authority_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        with console(authority), pytest.raises(vnc.LoginRefusedError, match="verify failed"):
            login(Authority(tmp_path), PASSWORD)

    def test_wrong_name_is_refused(self, authority: Authority) -> None:
        with console(authority), pytest.raises(vnc.LoginRefusedError, match="Hostname mismatch"):
            login(authority, PASSWORD, "another.test")

    def test_certificate_of_our_own_is_shown(self, authority: Authority) -> None:
        with console(authority, verify_peer=True):
            with pytest.raises(vnc.LoginRefusedError):
                login(authority, PASSWORD)
            ca, ours = authority.certificate, authority.client()
            vnc.login("127.0.0.1", VNC_PORT, ca, PASSWORD, certificate=ours)
