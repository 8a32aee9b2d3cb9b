# SPDX-License-Identifier: GPL-2.0-or-later
"""A SPICE console lets those in who have its password, over TLS, and nobody else."""

from __future__ import annotations

import configparser
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt as binding
import pytest

from tests.host import spice, vnc
from tests.host.command import run
from tests.host.consoled import console_service
from tests.host.domain import Disk, Nic, domain_xml
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, as_user, set_policy

HOST = "127.0.0.1"
STRONG = "rT7%kq2Z-and-more"
PLAIN = "<graphics type='spice' autoport='yes'/>"
NOWHERE = "<graphics type='spice'><listen type='none'/></graphics>"
SOCKET = "<graphics type='spice'><listen type='socket'/></graphics>"
# What virt-install and virt-manager of Debian 12 and 13 give a desktop.
DESKTOP = """
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='tablet' bus='usb'/>
    <graphics type='spice' autoport='yes'>
      <listen type='address'/><image compression='off'/>
    </graphics>
    <sound model='ich9'/><audio id='1' type='spice'/>
    <video><model type='{video}'/></video>
    <redirdev bus='usb' type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>
    <controller type='usb' model='qemu-xhci' ports='15'/>"""


def console(*lines: str) -> str:
    return "\n".join([ENFORCING, "[console]", *lines, ""])


def port_of(warden: Warden, name: str) -> int:
    """The port, by what libvirt tells of it."""
    return int(warden.libvirt.virsh("domdisplay", name).stdout.strip().rpartition(":")[2])


def authority(warden: Warden, name: str) -> Path:
    return Path(warden.status(name)["console_ca"])


def set_password(warden: Warden, name: str, password: str) -> None:
    arguments = {"protocol": "spice", "password": password}
    command = json.dumps({"execute": "set_password", "arguments": arguments})
    warden.libvirt.virsh("qemu-monitor-command", name, command)


def breaches(warden: Warden, name: str) -> str:
    return " ".join(warden.status(name)["breaches"])


class TestOneConsole:
    """Attacks on a running VM's SPICE console, none of which alters it."""

    @pytest.fixture(scope="class")
    def guarded(self, libvirt: Libvirt) -> Iterator[Warden]:
        set_policy(ENFORCING)
        warden = Warden(libvirt)
        warden.started("web01", extra_devices=PLAIN)
        warden.started("web02", extra_devices=PLAIN)
        yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    def test_nothing_is_a_breach(self, guarded: Warden) -> None:
        assert breaches(guarded, "web01") == ""

    def test_a_viewer_without_tls_is_hung_up_on(self, guarded: Warden) -> None:
        set_password(guarded, "web01", STRONG)
        with pytest.raises(spice.LoginRefusedError, match="hung up"):
            spice.login(HOST, port_of(guarded, "web01"), None, STRONG)

    def test_qemu_listens_at_no_other_port(self, guarded: Warden) -> None:
        ask = json.dumps({"execute": "query-spice"})
        said = json.loads(guarded.libvirt.virsh("qemu-monitor-command", "web01", ask).stdout)
        assert said["return"]["tls-port"] == port_of(guarded, "web01")
        assert "port" not in said["return"]
        assert said["return"]["auth"] == "spice"

    @pytest.mark.parametrize("password", ["", "x"])
    def test_nobody_gets_in_before_a_password_is_set(self, guarded: Warden, password: str) -> None:
        with pytest.raises(spice.LoginRefusedError, match="denies permission"):
            spice.login(HOST, port_of(guarded, "web02"), authority(guarded, "web02"), password)

    def test_the_right_password_gets_in_and_a_wrong_one_or_anothers_does_not(
        self, guarded: Warden
    ) -> None:
        ca, port = authority(guarded, "web01"), port_of(guarded, "web01")
        set_password(guarded, "web01", STRONG)
        for name in ("localhost", HOST, os.uname().nodename):
            spice.login(HOST, port, ca, STRONG, name)
        for wrong in ("", STRONG[:8], f"{STRONG}x"):
            with pytest.raises(spice.LoginRefusedError, match="denies permission"):
                spice.login(HOST, port, ca, wrong)
        with pytest.raises(spice.LoginRefusedError, match="denies permission"):
            spice.login(HOST, port_of(guarded, "web02"), ca, STRONG)

    def test_a_look_at_the_promises_throws_nobody_out(self, guarded: Warden) -> None:
        ca, port = authority(guarded, "web01"), port_of(guarded, "web01")
        set_password(guarded, "web01", STRONG)
        with spice.viewer(HOST, port, ca, STRONG) as viewer:
            assert breaches(guarded, "web01") == ""
            assert viewer.is_there()

    def test_its_key_is_read_by_its_own_user_alone(self, guarded: Warden) -> None:
        key = PATHS.cell(guarded.status("web01")["uuid"]) / "tls" / "server-key.pem"
        assert as_user("vmw-web01", lambda: os.open(key, os.O_RDONLY)) == ""
        for who in ("vmw-web02", "nobody"):
            assert as_user(who, lambda: os.open(key, os.O_RDONLY)) == "PermissionError"

    def test_its_certificate_stays_while_it_runs_and_lasts_that_long(self, guarded: Warden) -> None:
        tls = PATHS.cell(guarded.status("web01")["uuid"]) / "tls"
        former = (tls / "server-cert.pem").read_bytes()
        said = guarded.command("pki", "renew", "--now", "web01").stdout
        assert "has a SPICE console, which keeps its certificate" in said
        assert (tls / "server-cert.pem").read_bytes() == former
        until = guarded.status("web01")["console_until"]
        assert until in said
        assert int(until[:4]) >= time.gmtime().tm_year + 2


@pytest.mark.parametrize(
    "devices",
    [
        PLAIN.replace("/>", " defaultMode='insecure'/>"),
        PLAIN.replace("/>", "><channel name='main' mode='insecure'/></graphics>"),
        PLAIN.replace("/>", "><channel name='inputs' mode='insecure'/></graphics>"),
    ],
    ids=["default", "main", "inputs"],
)
def test_no_word_of_the_xml_takes_tls_away(warden: Warden, devices: str) -> None:
    warden.started("web01", extra_devices=devices)
    set_password(warden, "web01", STRONG)
    port, ca = port_of(warden, "web01"), authority(warden, "web01")
    with pytest.raises(spice.LoginRefusedError, match="hung up"):
        spice.login(HOST, port, None, STRONG)
    with spice.viewer(HOST, port, ca, STRONG) as viewer:
        assert viewer.opens(spice.INPUTS)
    assert breaches(warden, "web01") == ""


def test_the_password_of_the_xml_gets_in_unless_the_policy_forbids_it(warden: Warden) -> None:
    warden.started("web01", extra_devices=PLAIN.replace("/>", f" passwd='{STRONG}'/>"))
    port, ca = port_of(warden, "web01"), authority(warden, "web01")
    spice.login(HOST, port, ca, STRONG)
    with pytest.raises(spice.LoginRefusedError, match="hung up"):
        spice.login(HOST, port, None, STRONG)
    changed = (
        f"<graphics type='spice' port='{port}' autoport='yes' passwd='{STRONG}2'>"
        f"<listen type='address' address='{HOST}'/></graphics>"
    )
    warden.libvirt.virsh("update-device", "web01", "/dev/stdin", stdin=changed)
    spice.login(HOST, port, ca, f"{STRONG}2")
    with pytest.raises(spice.LoginRefusedError, match="denies permission"):
        spice.login(HOST, port, ca, STRONG)
    warden.libvirt.destroy("web01")
    set_policy(console('static_passwords = "deny"'))
    assert "its SPICE display has a static password" in warden.refusal("web01")
    set_policy(ENFORCING)
    weak = domain_xml("web02", extra_devices=PLAIN.replace("/>", " passwd='p4ssw0rd'/>"))
    warden.libvirt.define(weak)
    assert "the password of its display" in warden.command("enrol", "web02", check=False).stderr


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.2"])  # noqa: S104
def test_an_address_that_the_policy_does_not_list_is_refused(warden: Warden, address: str) -> None:
    warden.enrolled("web01", extra_devices=PLAIN.replace("/>", f" listen='{address}'/>"))
    assert f"SPICE would listen on {address}" in warden.refusal("web01")
    set_policy(console(f'listen = ["{address}"]'))
    warden.libvirt.start("web01")
    assert breaches(warden, "web01") == ""


def test_a_socket_is_refused_and_one_without_tls_asks_for_the_password(warden: Warden) -> None:
    set_policy(console('listen = ["unix"]'))
    warden.enrolled("web01", extra_devices=SOCKET)
    assert "SPICE has no TLS at a Unix socket" in warden.refusal("web01")
    set_policy(console('listen = ["unix"]', 'tls = "off"'))
    warden.libvirt.start("web01")
    place = warden.libvirt.virsh("domdisplay", "web01").stdout.strip()
    path = place.removeprefix("spice+unix://")
    set_password(warden, "web01", STRONG)
    spice.login(path, 0, None, STRONG)
    with pytest.raises(spice.LoginRefusedError, match="denies permission"):
        spice.login(path, 0, None, "")
    assert breaches(warden, "web01") == ""


def test_what_spice_cannot_do_is_refused_unless_libvirt_alone_shows_it(
    warden: Warden,
) -> None:
    set_policy(console('client_certificates = "required"'))
    warden.enrolled("web01", extra_devices=PLAIN)
    said = warden.refusal("web01")
    assert "SPICE asks viewers for no certificate" in said
    assert "virt-warden enrol --console libvirt web01" in said
    warden.command("enrol", "--console", "libvirt", "web01")
    warden.libvirt.start("web01")


def libvirt_shows(kind: str, name: str) -> bool:
    """Whether libvirt hands out descriptors of a console, at which QEMU asks for nothing."""
    connection = binding.open("qemu:///system")
    try:
        for flags in (0, binding.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH):
            descriptor = connection.lookupByName(name).openGraphicsFD(0, flags)
            with socket.socket(fileno=descriptor) as opened:
                opened.settimeout(10)
                if kind == "spice":
                    spice.link(opened, "")
                else:
                    assert opened.recv(12) == b"RFB 003.008\n"
                    opened.sendall(b"RFB 003.008\n")
                    assert opened.recv(2) == b"\x01\x01"  # one way in, without a password
    finally:
        connection.close()
    return True


class TestByLibvirt:
    """A console without a port, which libvirt shows to whom it lets in."""

    @pytest.mark.parametrize("kind", ["spice", "vnc"])
    def test_it_has_no_port_and_libvirts_descriptor_asks_for_nothing(
        self, warden: Warden, kind: str
    ) -> None:
        qemu = warden.started("web01", extra_devices=NOWHERE.replace("spice", kind))
        assert not listening(qemu.pid)
        assert breaches(warden, "web01") == ""
        assert libvirt_shows(kind, "web01")

    @pytest.mark.parametrize("kind", ["spice", "vnc"])
    def test_nor_has_one_of_a_domain_that_nobody_enrolled(
        self, warden: Warden, service: Service, kind: str
    ) -> None:
        set_policy(console('via = "libvirt"'))
        graphics = PLAIN.replace("spice", kind)
        xml = domain_xml("web01", emulator=None, extra_devices=graphics)
        warden.libvirt.virsh("create", "/dev/stdin", stdin=xml)
        assert warden.status("web01")["adopted"]
        assert not listening(warden.qemu("web01").pid)
        assert breaches(warden, "web01") == ""
        assert libvirt_shows(kind, "web01")
        with console_service():
            said = warden.command("console", "web01", check=False).stderr
        assert "listens on no TCP port" in said
        # It is as it started, whatever the policy says since, also once libvirt comes back.
        set_policy(console('via = "port"'))
        warden.libvirt.restart()
        assert breaches(warden, "web01") == ""

    @pytest.mark.parametrize("kind", ["spice", "vnc"])
    def test_a_port_that_an_adopted_domain_has_already_is_guarded_as_a_port(
        self, warden: Warden, service: Service, kind: str
    ) -> None:
        set_policy(console('via = "port"'))
        graphics = PLAIN.replace("spice", kind)
        xml = domain_xml("web01", emulator=None, extra_devices=graphics)
        warden.libvirt.virsh("create", "/dev/stdin", stdin=xml)
        set_policy(console('via = "libvirt"'))
        assert listening(warden.qemu("web01").pid)
        assert breaches(warden, "web01") == ""

    @pytest.mark.parametrize("kind", ["spice", "vnc"])
    def test_enrolment_takes_a_port_on_loopback_away_and_unenrolment_brings_it_back(
        self, warden: Warden, kind: str
    ) -> None:
        written = f"<graphics type='{kind}' port='5999' autoport='no' passwd='{STRONG[:8]}'/>"
        warden.libvirt.define(domain_xml("web01", extra_devices=written))
        former = xml_of(warden, "web01")
        warden.command("enrol", "--console", "libvirt", "web01")
        assert "<listen type='none'/>" in xml_of(warden, "web01")
        assert STRONG[:8] not in warden.libvirt.virsh("dumpxml", "web01", "--inactive").stdout
        warden.command("enrol", "web01")
        assert "<listen type='none'/>" in xml_of(warden, "web01")
        qemu_pid = started(warden, "web01")
        assert not listening(qemu_pid)
        warden.libvirt.destroy("web01")
        warden.command("unenrol", "web01")
        assert xml_of(warden, "web01") == former

    def test_the_policy_says_it_for_all_and_the_command_for_one(self, warden: Warden) -> None:
        set_policy(console('via = "libvirt"'))
        warden.enrolled("web01", extra_devices=PLAIN)
        warden.libvirt.define(domain_xml("web02", extra_devices=PLAIN))
        warden.command("enrol", "--console", "port", "web02")
        assert not listening(started(warden, "web01"))
        assert listening(started(warden, "web02"))
        set_policy(ENFORCING)
        warden.command("enrol", "web01")
        assert "<listen type='none'/>" not in xml_of(warden, "web01")

    def test_one_on_a_network_is_left_alone(self, warden: Warden) -> None:
        set_policy(console('via = "libvirt"', 'listen = ["0.0.0.0"]'))
        everywhere = PLAIN.replace("/>", " listen='0.0.0.0'/>")
        warden.enrolled("web01", extra_devices=everywhere)
        assert listening(started(warden, "web01"))
        done = warden.command("enrol", "--console", "libvirt", "web01", check=False)
        assert "its console listens on 0.0.0.0, not on loopback" in done.stderr


def started(warden: Warden, name: str) -> int:
    warden.libvirt.start(name)
    return warden.libvirt.pid(name)


def listening(pid: int) -> list[str]:
    """The TCP ports at which a process listens."""
    said = run("ss", "-Hltnp").stdout.splitlines()
    return [line.split()[3] for line in said if f"pid={pid}," in line]


def xml_of(warden: Warden, name: str) -> str:
    return warden.libvirt.virsh("dumpxml", name, "--inactive", "--security-info").stdout


def desktop(video: str, **parts: Any) -> str:
    """The XML of web01, with what a desktop has."""
    devices = DESKTOP.format(video=video)
    xml = domain_xml("web01", machine="q35", extra_devices=devices, **parts)
    return xml.replace('<controller type="usb" model="none"/>', "")


def test_a_display_that_is_off_listens_nowhere_and_its_devices_work(warden: Warden) -> None:
    set_policy(console('display = "off"'))
    warden.libvirt.define(desktop("qxl"))
    warden.command("enrol", "web01")
    qemu_pid = started(warden, "web01")
    assert not listening(qemu_pid)
    assert breaches(warden, "web01") == ""
    set_policy(ENFORCING)
    assert "does not answer" in breaches(warden, "web01")


@pytest.mark.parametrize("video", ["qxl", "virtio"])
def test_the_default_desktop_of_virt_install_starts_in_its_cell(
    warden: Warden, images: Path, bridge: str, video: str
) -> None:
    nic = Nic(mac="52:54:00:12:34:56", bridge=bridge)
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.libvirt.define(desktop(video, disks=[disk], nics=[nic]))
    said = warden.command("enrol", "web01").stdout
    assert "would be refused" not in said
    warden.libvirt.start("web01")
    assert breaches(warden, "web01") == ""
    words = warden.qemu("web01").arguments
    assert "disable-ticketing" not in words[words.index("-spice") + 1]


@pytest.fixture
def own_tls(warden: Warden) -> Iterator[Warden]:
    """libvirt has a TLS port of its own for SPICE, and asks by SASL: an admin set it up before."""
    conf = Path("/etc/libvirt/qemu.conf")
    former = conf.read_text()
    conf.write_text(f"{former}spice_tls = 1\nspice_sasl = 1\n")
    warden.libvirt.restart()
    yield warden
    warden.libvirt.remove_domains()
    conf.write_text(former)
    warden.libvirt.restart()


@pytest.mark.parametrize("mode", ["any", "secure", "insecure"])
def test_a_host_with_tls_for_spice_of_its_own_has_ours_at_that_port_alone(
    own_tls: Warden, mode: str
) -> None:
    graphics = PLAIN.replace(
        "/>", f" defaultMode='{mode}'><channel name='main' mode='any'/></graphics>"
    )
    qemu = own_tls.started("web01", extra_devices=graphics)
    set_password(own_tls, "web01", STRONG)
    (place,) = listening(qemu.pid)
    spice.login(HOST, int(place.rpartition(":")[2]), authority(own_tls, "web01"), STRONG, HOST)
    assert breaches(own_tls, "web01") == ""
    with console_service():
        own_tls.command("console", "web01", "--out", "/root")
    assert f"tls-port={place.rpartition(':')[2]}" in Path("/root/web01.vv").read_text().splitlines()


def test_a_domain_with_both_kinds_of_console_has_both_guarded(warden: Warden) -> None:
    both = f"{PLAIN}<graphics type='vnc' autoport='yes'/>"
    qemu = warden.started("web01", extra_devices=both)
    assert breaches(warden, "web01") == ""
    places = [int(place.rpartition(":")[2]) for place in listening(qemu.pid)]
    assert len(places) == 2
    port = warden.vnc_port("web01")
    assert vnc.security_types(HOST, port) == [vnc.SECURITY_VENCRYPT]
    set_password(warden, "web01", STRONG)
    (other,) = {*places} - {port}
    spice.login(HOST, other, authority(warden, "web01"), STRONG, HOST)
    assert "keeps its certificate" in warden.command("pki", "renew", "--now", "web01").stdout


class TestBreaches:
    """Consoles that are not what the policy promises by now."""

    def test_one_without_tls_is_one(self, warden: Warden) -> None:
        set_policy(console('tls = "off"'))
        warden.started("web01", extra_devices=PLAIN)
        assert breaches(warden, "web01") == ""
        set_policy(ENFORCING)
        assert "answers viewers without TLS" in breaches(warden, "web01")

    def test_one_without_a_password_is_one(self, warden: Warden) -> None:
        set_policy(console('password = "off"'))
        warden.started("web01", extra_devices=PLAIN)
        assert breaches(warden, "web01") == ""
        set_policy(ENFORCING)
        assert "accepts viewers without a password" in breaches(warden, "web01")


class TestTickets:
    """`virt-warden console` for SPICE: one viewer, with all of its connections."""

    @pytest.fixture(scope="class")
    def running(self, libvirt: Libvirt) -> Iterator[Warden]:
        set_policy(console("ticket_seconds = 6"))
        warden = Warden(libvirt)
        warden.started("web01", extra_devices=PLAIN)
        with console_service():
            yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    def ticket(self, warden: Warden) -> dict[str, str]:
        warden.command("console", "web01", "--out", "/root")
        parser = configparser.ConfigParser(interpolation=None)
        parser.read("/root/web01.vv")
        given = dict(parser["virt-viewer"])
        Path("/root/ca.pem").write_text(given["ca"].replace("\\n", "\n"))
        return given

    def enter(self, given: dict[str, str]) -> spice.Viewer:
        with spice.viewer(HOST, int(given["tls-port"]), "/root/ca.pem", given["password"]) as who:
            return who

    def test_it_says_what_a_viewer_needs(self, running: Warden) -> None:
        given = self.ticket(running)
        assert (given["type"], given["host"]) == ("spice", HOST)
        assert int(given["tls-port"]) == port_of(running, "web01")
        assert "port" not in given
        assert given["host-subject"] == f"CN={running.status('web01')['uuid']}"
        assert len(given["password"]) > 20

    def test_a_viewer_opens_all_of_its_channels_and_comes_in_once(
        self, running: Warden, syslog: Syslog
    ) -> None:
        given = self.ticket(running)
        port = int(given["tls-port"])
        with spice.viewer(HOST, port, "/root/ca.pem", given["password"], HOST) as viewer:
            time.sleep(1.5)
            assert viewer.opens(spice.INPUTS)
            assert "viewer=127.0.0.1" in syslog.wait_for("event=console-opened", 20)
            assert not viewer.opens(spice.INPUTS)
            assert viewer.is_there()
            with pytest.raises(spice.LoginRefusedError, match="denies permission"):
                self.enter(given)
        assert given["password"] not in "\n".join(syslog.lines())

    def test_one_that_came_in_the_last_moment_opens_its_channels_too(self, running: Warden) -> None:
        given = self.ticket(running)
        time.sleep(5)
        port = int(given["tls-port"])
        with spice.viewer(HOST, port, "/root/ca.pem", given["password"]) as viewer:
            time.sleep(1.5)
            assert viewer.opens(spice.INPUTS)

    def test_one_that_expired_lets_nobody_in(self, running: Warden, syslog: Syslog) -> None:
        given = self.ticket(running)
        syslog.wait_for("event=console-unused", 20)
        with pytest.raises(spice.LoginRefusedError, match="denies permission"):
            self.enter(given)

    def test_a_new_one_takes_the_former_ones_place(self, running: Warden) -> None:
        first = self.ticket(running)
        second = self.ticket(running)
        with pytest.raises(spice.LoginRefusedError, match="denies permission"):
            self.enter(first)
        self.enter(second)

    def test_one_that_is_asked_for_while_a_viewer_comes_in_lasts(self, running: Warden) -> None:
        first = self.ticket(running)
        port = int(first["tls-port"])
        with spice.viewer(HOST, port, "/root/ca.pem", first["password"]):
            second = self.ticket(running)
            time.sleep(3.5)  # longer than the service waits for the first viewer's channels
            self.enter(second)

    def test_a_console_without_a_port_has_none_and_the_way_out_is_told(
        self, running: Warden
    ) -> None:
        running.started("web02", extra_devices=NOWHERE)
        said = running.command("console", "web02", check=False).stderr
        assert "listens on no TCP port" in said
        assert "virt-viewer --attach" in said
        assert "virt-warden enrol --console port web02" in said


def test_the_exception_of_former_versions_is_understood_and_changes_nothing(
    warden: Warden,
) -> None:
    set_policy(f'{ENFORCING}[[domain]]\nmatch = "web01"\nexceptions = ["spice"]\n')
    done = warden.command("policy", "check")
    assert "/etc/virt-warden/policy.toml:4" in done.stderr
    assert '"spice" changes nothing any more' in done.stderr
    warden.started("web01", extra_devices=PLAIN)
    set_password(warden, "web01", STRONG)
    with pytest.raises(spice.LoginRefusedError, match="hung up"):
        spice.login(HOST, port_of(warden, "web01"), None, STRONG)
