# SPDX-License-Identifier: GPL-2.0-or-later
"""The host guard: what of the host a domain's XML may name, and what it may not."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import pytest
import xmls
from fake_host import (
    IMAGES,
    UID,
    FakeHost,
    account_of,
    case_of,
    process_of,
    refusal,
    refusals,
    rules,
)

from virtwarden import lifecycle
from virtwarden.domain.uses import reviewed_paths
from virtwarden.guards import host as guard
from virtwarden.guards.base import Case, Op

EXCEPTED = {"exceptions": frozenset({"host-devices"})}
CODE, VARS = "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"
FIRMWARE = f"<loader>{CODE}</loader><nvram template='{VARS}'>/var/lib/libvirt/qemu/nvram/a</nvram>"
CHANNELS = "/var/lib/libvirt/qemu/channel/target"
AGENT = "org.qemu.guest_agent.0"


def case(
    devices: str = "",
    op: Op = Op.PREPARE,
    os: str = "",
    extra: str = "",
    host: FakeHost | None = None,
    **more: Any,
) -> Case:
    xml = xmls.domain(devices, os=os, extra=extra)
    return case_of(xml, rules(**more), host or FakeHost(), op)


# Attacks: devices


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='pci'><source><address/></source></hostdev>",
        "<hostdev mode='subsystem' type='usb'/>",
        "<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='a'/></hostdev>",
        "<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>",
        "<hostdev mode='capabilities'><source><block>/dev/sda</block></source></hostdev>",
        "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
        "<tpm><backend type='external'><source path='/run/tpm.sock'/></backend></tpm>",
        "<tpm/>",
        "<shmem name='shared'/>",
        "<shmem name='x'><server path='/run/shm.sock'/></shmem>",
        "<lease><lockspace>a</lockspace><key>b</key><target path='/a'/></lease>",
        "<input type='evdev'><source dev='/dev/input/event0'/></input>",
        "<input type='passthrough'><source evdev='/dev/input/event0'/></input>",
        "<audio id='1' type='alsa'/>",
        "<audio id='1' type='pulseaudio' serverName='/run/user/1000/pulse/native'/>",
        "<audio id='1' type='file' path='audio.wav'/>",
        "<smartcard mode='host'/>",
        "<smartcard mode='host-certificates'><certificate>a</certificate></smartcard>",
        "<smartcard mode='passthrough' type='tcp'><source mode='bind'/></smartcard>",
        "<redirdev bus='usb' type='tcp'><source mode='connect' host='a'/></redirdev>",
        "<redirdev bus='usb' type='dev'><source path='/dev/bus/usb/001/001'/></redirdev>",
        "<rng><backend model='egd' type='udp'/></rng>",
        "<teleporter/>",
        *[
            f"<{tag} type='{kind}'><source path='/x'/></{tag}>"
            for tag in ("serial", "parallel", "console", "channel")
            for kind in ("dev", "pipe", "tcp", "udp", "nmdm", "dbus", "unheard-of")
        ],
        *[
            f"<{tag} type='unix'><source mode='connect' path='{path}'/></{tag}>"
            for tag in ("serial", "channel")
            for path in ("/run/docker.sock", f"{CHANNELS}/domain-7-web01/{AGENT}")
        ],
    ],
)
def test_what_is_the_hosts_is_refused_unless_the_policy_makes_an_exception(device: str) -> None:
    line = refusal(guard, case(device))
    assert "which no guard protects" in line
    assert 'exceptions = ["host-devices"]' in line
    assert refusals(guard, case(device, **EXCEPTED)) == []


# Attacks: paths


@pytest.mark.parametrize(
    ("device", "path"),
    [
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "/etc/shadow"),
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "etc/shadow"),
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "swapfile"),
        ("<serial type='pty' tty='{}'/>", "/dev/tty1"),
        ("<rng><backend model='random'>{}</backend></rng>", "/dev/sda"),
        ("<rng><backend model='random'>{}</backend></rng>", "/dev/hwrng"),
        ("<interface type='bridge'><backend vhost='{}'/></interface>", "/etc/shadow"),
        ("<interface type='bridge'><backend tap='{}'/></interface>", "/etc/shadow"),
        ("<interface type='ethernet'><script path='{}'/></interface>", "/tmp/evil.sh"),
        ("<interface type='ethernet'><downscript path='{}'/></interface>", "/tmp/evil.sh"),
        ("<interface type='user'><backend type='passt' logFile='{}'/></interface>", "/etc/x"),
        ("<interface type='vhostuser'><source type='unix' path='{}'/></interface>", "/run/x"),
        ("<interface type='vdpa'><source dev='{}'/></interface>", "/dev/vhost-vdpa-0"),
        ("<filesystem><binary path='{}'/></filesystem>", "/tmp/evil"),
        ("<filesystem><source socket='{}'/></filesystem>", "/run/x"),
        ("<disk type='network'><source><host socket='{}'/></source></disk>", "/run/nbd.sock"),
        ("<disk><source><reservations><source path='{}'/></reservations></source></disk>", "/r"),
        ("<disk type='vhostuser'><source path='{}'/></disk>", "/run/x"),
        ("<video><model><acceleration rendernode='{}'/></model></video>", "/dev/dri/renderD128"),
        ("<graphics type='egl-headless'><gl rendernode='{}'/></graphics>", "/dev/dri/renderD128"),
        ("<sound><codec store='{}'/></sound>", "/unheard/of"),
    ],
)  # fmt: skip
def test_a_path_that_no_guard_knows_is_refused_with_its_name(device: str, path: str) -> None:
    found = case(device.format(path))
    line = refusal(guard, found)
    assert f"names {path}," in line
    assert refusals(guard, case(device.format(path), **EXCEPTED)) == []


@pytest.mark.parametrize(
    "path",
    [
        f"{CHANNELS}/domain-8-db01/{AGENT}",
        f"{CHANNELS}/domain-77-web01/{AGENT}",
        f"{CHANNELS}/domain-7-web01/../domain-8-db01/{AGENT}",
        f"/tmp/var/lib/libvirt/qemu/domain-7-web01/{AGENT}",
        "/run/libvirt/libvirt-sock",
        "/var/lib/libvirt/qemu/domain-8-db01/monitor.sock",
        "/dev/pts/ptmx",
        "/dev/pts/../sda",
    ],
)
def test_a_socket_of_another_domains_is_refused(path: str) -> None:
    channel = f"<channel type='unix'><source mode='bind' path='{path}'/></channel>"
    assert f"names {path}," in refusal(guard, case(channel))


def test_without_an_id_nothing_is_its_own_yet() -> None:
    path = f"{CHANNELS}/domain-none-web01/{AGENT}"
    xml = xmls.domain(f"<channel type='unix'><source mode='bind' path='{path}'/></channel>")
    off = case_of(xml.replace(" id='7'", ""), rules(), FakeHost())
    assert "names" in refusal(guard, off)


@pytest.mark.parametrize(
    ("os", "extra"),
    [
        ("<unheard-of>/etc/shadow</unheard-of>", ""),
        ("<nvram><source><host socket='/etc/shadow'/></source></nvram>", ""),
        ("", "<bootloader>/etc/shadow</bootloader>"),
        ("", "<teleporter file='/etc/shadow'/>"),
    ],
)
def test_a_path_outside_of_the_devices_is_refused_too(os: str, extra: str) -> None:
    assert "it names /etc/shadow," in refusal(guard, case(os=os, extra=extra))
    assert refusals(guard, case(os=os, extra=extra, **EXCEPTED)) == []


# Honest passage


@pytest.mark.parametrize(
    "device",
    [
        "<controller type='usb' model='qemu-xhci'/>",
        "<serial type='pty'><source path='/dev/pts/3'/></serial>",
        "<console type='pty' tty='/dev/pts/3'/>",
        "<channel type='spicevmc'/>",
        f"<channel type='unix'><target type='virtio' name='{AGENT}'/></channel>",
        f"<channel type='unix'><source path='{CHANNELS}/domain-7-web01/{AGENT}'/></channel>",
        f"<channel type='unix'><source path='/run/libvirt/qemu/channel/7-a/{AGENT}'/></channel>",
        "<input type='tablet' bus='usb'/>",
        "<audio id='1' type='none'/>",
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
        "<rng><backend model='random'>/dev/urandom</backend></rng>",
        "<rng><backend model='builtin'/></rng>",
        "<smartcard mode='passthrough' type='spicevmc'/>",
        "<redirdev bus='usb' type='spicevmc'/>",
        "<interface type='bridge'><backend tap='/dev/net/tun' vhost='/dev/vhost-net'/></interface>",
        "<interface><filterref filter='a/b'><parameter value='10.0/8'/></filterref></interface>",
        "<disk type='network'><source protocol='rbd' name='pool/image' query='a=b/c'/></disk>",
        "<disk type='file'><serial>a/b</serial><vendor>a/b</vendor></disk>",
        f"<disk type='file'><source file='{IMAGES}/a'/><mirror type='file' file='/b'/></disk>",
        "<graphics type='vnc' passwd='a/b'/>",
        "<graphics type='vnc' socket='/run/a'><listen type='socket' socket='/run/a'/></graphics>",
        "<vsock><cid auto='yes'/></vsock>",
        "<watchdog model='itco' action='reset'/>",
        xmls.nic(),
        xmls.vnc(),
    ],
)  # fmt: skip
def test_what_qemu_makes_up_by_itself_passes(device: str) -> None:
    assert refusals(guard, case(device)) == []


def test_texts_that_are_no_paths_pass() -> None:
    os = "<cmdline>root=/dev/vda1 init=/bin/sh</cmdline>"
    extra = (
        "<description>see /etc/motd</description><metadata><a:b xmlns:a='urn:a' c='/d'>/e</a:b>"
        "</metadata><clock offset='timezone' timezone='Europe/Paris'/><resource><partition>/machine"
        "</partition></resource><launchSecurity type='sev'><session>/AA/</session></launchSecurity>"
        "<sysinfo type='fwcfg'><entry name='opt/a'>/b</entry></sysinfo>"
        "<blkiotune><device><path>/dev/sda</path></device></blkiotune>"
    )
    assert refusals(guard, case(os=os, extra=extra)) == []


def test_what_another_guard_looks_at_passes_here() -> None:
    files = FakeHost()
    files.file(CODE, 0o644)
    files.file(VARS, 0o644)
    devices = (
        xmls.disk(form="qcow2", inside=xmls.base(f"{IMAGES}/b"))
        + "<memory model='nvdimm'><source><path>/srv/pmem</path></source></memory>"
        + "<serial type='file'><source path='/var/log/a'/><log file='/var/log/b'/></serial>"
        + "<filesystem type='mount'><source dir='/srv'/><target dir='/tag'/></filesystem>"
    )
    extra = "<sysinfo type='fwcfg'><entry name='opt/a' file='/srv/node.ign'/></sysinfo>"
    os = FIRMWARE + "<kernel>/srv/k</kernel><initrd>/srv/i</initrd><dtb>/srv/d</dtb>"
    os += "<shim>/srv/s</shim>"
    assert refusals(guard, case(devices, os=os, extra=extra, host=files)) == []


@pytest.mark.parametrize("kind", ["vhostuser", "vdpa"])
def test_the_socket_of_a_nic_passes_where_the_policy_allows_such_nics(kind: str) -> None:
    nic = f"<interface type='{kind}'><source path='/run/ovs.sock'/></interface>"
    allowed = case(nic, untapped="allow")
    assert refusals(guard, allowed) == []
    assert "/run/ovs.sock" in reviewed_paths(allowed.domain, allowed.rules)


# What everyone may read


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_the_distributions_firmware_passes(op: Op) -> None:
    files = FakeHost()
    files.file(CODE, 0o644)
    files.symlink(VARS, "/usr/share/OVMF/OVMF_VARS_4M.fd")
    files.file("/usr/share/OVMF/OVMF_VARS_4M.fd", 0o644)
    assert refusals(guard, case(op=op, os=FIRMWARE, host=files)) == []


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda h: h.file(CODE, 0o600), "others cannot read it, so libvirt would change its owner"),
        (lambda h: h.file(CODE, 0o640), "others cannot read it, so libvirt would change its owner"),
        (lambda h: h.file(CODE, 0o646), "can be written by everyone"),
        (lambda h: h.file(CODE, 0o644, uid=UID), "belongs to a VM's user"),
        (lambda h: h.file(CODE, 0o664, writers=(UID,)), "through its ACL"),
        (lambda h: h.directory("/usr/share/OVMF", 0o777), "can be written by everyone"),
        (lambda h: h.directory("/usr/share/OVMF", uid=UID), "belongs to a VM's user"),
        (lambda h: h.file(CODE, 0o644, kind=stat.S_IFIFO), "not a regular file"),
        (lambda h: h.inodes.pop(CODE), "is not there"),
        (
            lambda h: h.symlink(CODE, "/etc/shadow"),
            "others cannot read it, so libvirt would change its owner",
        ),
        (lambda h: h.symlink(CODE, "/nowhere"), "is not there"),
    ],
)
@pytest.mark.parametrize("exceptions", [frozenset(), frozenset({"host-devices"})])
def test_firmware_that_others_alter_or_that_is_a_secret_is_refused(
    alter: Callable[[FakeHost], Any], reason: str, exceptions: frozenset[str]
) -> None:
    """libvirt, as root, copies an NVRAM template for the guest."""
    files = FakeHost()
    files.file("/etc/shadow", 0o640)
    files.file(CODE, 0o644)
    files.file(VARS, 0o644)
    alter(files)
    line, *_ = refusals(guard, case(os=FIRMWARE, host=files, exceptions=exceptions))
    assert f"the file {CODE}: " in line
    assert reason in line


def test_a_link_to_firmware_that_others_could_turn_is_refused() -> None:
    files = FakeHost()
    files.file(CODE, 0o644)
    files.directory("/srv/links", 0o777)
    files.symlink("/srv/links/fw", CODE)
    line = refusal(guard, case(os="<loader>/srv/links/fw</loader>", host=files))
    assert "/srv/links can be written by everyone" in line


@pytest.mark.parametrize("path", ["OVMF.fd", "/usr/share/../../etc/shadow"])
def test_firmware_by_a_path_that_is_not_plain_is_refused(path: str) -> None:
    line = refusal(guard, case(os=f"<loader>{path}</loader>"))
    assert "is not a plain absolute path" in line


# Plan and promise


def test_there_is_nothing_to_do() -> None:
    assert all(guard.plan(case("<shmem name='a'/>", op)) == [] for op in Op)


def test_what_was_plugged_in_since_the_start_breaks_the_promise() -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert guard.verify(case(op=Op.STARTED), process) == []
    (breach,) = guard.verify(case("<hostdev type='usb'/>", Op.STARTED), process)
    assert "<hostdev> of type usb" in breach


def test_an_exception_reaches_the_ticket() -> None:
    device = "<shmem name='shared'/><serial type='dev'><source path='/dev/ttyS0'/></serial>"
    found = case(device, extra="<teleporter file='/x'/>", **EXCEPTED)
    paths = reviewed_paths(found.domain, found.rules)
    assert {"/dev/shm/shared", "/dev/ttyS0", "/x"} <= paths
    assert not {"/dev/shm/shared", "/dev/ttyS0", "/x"} & reviewed_paths(found.domain, rules())


def test_the_guard_is_asked() -> None:
    assert guard in lifecycle.GUARDS
