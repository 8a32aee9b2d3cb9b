# SPDX-License-Identifier: GPL-2.0-or-later
"""The host guard: what of the host a domain's XML may name, and what it may not."""

from __future__ import annotations

import json
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
from virtwarden.changes import GiveAllowed
from virtwarden.domain.uses import reviewed_paths
from virtwarden.guards import host as guard
from virtwarden.guards.base import Case, Op
from virtwarden.policy.allowances import is_well_formed

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

UUID = "4b20d080-1b54-4048-85b3-a6a62d165c01"
SERVER = f"{CHANNELS}/domain-7-web01/{AGENT}"
LINES = ("serial", "parallel", "console", "channel")


def hostdev(kind: str, source: str) -> str:
    return f"<hostdev mode='subsystem' type='{kind}'><source>{source}</source></hostdev>"


def usb(inside: str) -> str:
    return hostdev("usb", inside)


DEVICES = [
    (hostdev("pci", "<address domain='0x0000' bus='0x65' slot='0x00' function='0x1'/>"),
     ["pci 0000:65:00.1"]),
    (hostdev("pci", "<address bus='0xA' slot='31' function='7'/>"), ["pci 0000:0a:1f.7"]),
    (usb("<vendor id='0x046d'/><product id='0xc52b'/>"), ["usb 046d:c52b"]),
    (usb("<vendor id='0x046D'/><product id='0xC52B'/><address bus='1' device='3'/>"),
     ["usb 046d:c52b"]),
    (usb("<address bus='1' device='13'/>"), ["usb 001/013"]),
    (hostdev("mdev", f"<address uuid='{UUID}'/>"), [f"mdev {UUID}"]),
    (hostdev("scsi", "<adapter name='scsi_host2'/><address bus='0' target='3' unit='1'/>"),
     ["scsi 2:0:3:1"]),
    (("<hostdev type='scsi'><source protocol='iscsi' name='iqn.2014-08.com:a/1'><host name='h'/>"
     "</source></hostdev>"), ["scsi iqn.2014-08.com:a/1"]),
    ("<hostdev type='scsi_host'><source protocol='vhost' wwpn='naa.5001405'/></hostdev>",
     ["scsi naa.5001405"]),
    ("<hostdev type='usb'/>", ["element hostdev usb"]),
    ("<hostdev type='pci'><source><address bus='elf'/></source></hostdev>",
     ["element hostdev pci"]),
    (("<hostdev mode='capabilities' type='storage'><source><block>/dev/sda</block></source>"
     "</hostdev>"), ["element hostdev storage", "device /dev/sda"]),
    ("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
     ["device /dev/tpm0"]),
    ("<tpm><backend type='external'><source path='/run/tpm.sock'/></backend></tpm>",
     ["unix-socket /run/tpm.sock"]),
    ("<tpm/>", ["element tpm"]),
    ("<shmem name='shared'/>", ["shmem shared"]),
    ("<shmem name='x'><server path='/run/shm.sock'/></shmem>",
     ["shmem x", "unix-socket /run/shm.sock"]),
    ("<lease><lockspace>a</lockspace><key>b</key><target path='/a'/></lease>",
     ["element lease", "file /a"]),
    ("<input type='evdev'><source dev='/dev/input/event0'/></input>",
     ["evdev /dev/input/event0"]),
    ("<input type='passthrough'><source evdev='/dev/input/event0'/></input>",
     ["evdev /dev/input/event0"]),
    ("<audio id='1' type='alsa'/>", ["element audio alsa"]),
    ("<audio id='1' type='pulseaudio' serverName='/run/user/1000/pulse/native'/>",
     ["element audio pulseaudio", "unix-socket /run/user/1000/pulse/native"]),
    ("<audio id='1' type='file' path='/srv/audio.wav'/>",
     ["element audio file", "file /srv/audio.wav"]),
    ("<smartcard mode='host'/>", ["element smartcard host"]),
    ("<smartcard mode='host-certificates'><certificate>a</certificate></smartcard>",
     ["element smartcard host-certificates"]),
    (("<smartcard mode='passthrough' type='tcp'><source mode='bind' host='::' service='2001'/>"
     "</smartcard>"), ["serial-tcp [::]:2001"]),
    ("<smartcard mode='passthrough' type='tcp'><source mode='bind'/></smartcard>",
     ["element smartcard tcp"]),
    ("<redirdev bus='usb' type='tcp'><source mode='connect' host='a' service='b'/></redirdev>",
     ["serial-tcp a:b"]),
    ("<redirdev bus='usb' type='dev'><source path='/dev/bus/usb/001/001'/></redirdev>",
     ["device /dev/bus/usb/001/001"]),
    ("<rng><backend model='egd' type='udp'/></rng>", ["element rng egd"]),
    (("<rng><backend model='egd' type='udp'><source mode='bind' service='1'/>"
     "<source mode='connect' host='a' service='2'/></backend></rng>"),
     ["serial-udp *:1", "serial-udp a:2"]),
    (("<rng><backend model='egd' type='unix'><source mode='connect' path='/run/egd'/></backend>"
     "</rng>"), ["unix-socket /run/egd"]),
    ("<teleporter/>", ["element teleporter"]),
    ("<teleporter to='/x'/>", ["element teleporter", "file /x"]),
    (("<disk type='nvme'><source type='pci' namespace='1'><address domain='0x0000' bus='0x01'"
     " slot='0x00' function='0x0'/></source></disk>"), ["pci 0000:01:00.0"]),
    (("<disk type='file'><source file='/a'/><backingStore type='nvme'><source><address bus='0x01'"
     " slot='0x00' function='0x0'/></source></backingStore></disk>"), ["pci 0000:01:00.0"]),
    ("<disk type='unheard-of'><source where='/x'/></disk>",
     ["element disk unheard-of", "file /x"]),
    ("<disk type='vhostuser'/>", ["element disk vhostuser"]),
    ("<disk type='file'><source file='/a'/><backingStore type='unheard-of'/></disk>",
     ["element backingStore unheard-of"]),
    *[(f"<{tag} type='dev'><source path='/dev/ttyS0'/></{tag}>", ["device /dev/ttyS0"])
      for tag in LINES],
    *[(f"<{tag} type='pipe'><source path='/x'/></{tag}>", ["file /x"]) for tag in LINES],
    *[(f"<{tag} type='{kind}'><source mode='connect' host='10.0.0.1' service='4555'/></{tag}>",
       [f"serial-{kind} 10.0.0.1:4555"]) for tag in LINES for kind in ("tcp", "udp")],
    *[(f"<{tag} type='{kind}'><source path='/x'/></{tag}>", [f"element {tag} {kind}", "file /x"])
      for tag in LINES for kind in ("nmdm", "dbus", "unheard-of")],
    *[(f"<{tag} type='unix'><source mode='connect' path='{path}'/></{tag}>",
       [f"unix-socket {path}"])
      for tag in ("serial", "channel") for path in ("/run/docker.sock", SERVER)],
]  # fmt: skip


@pytest.mark.parametrize(("device", "words"), DEVICES)
def test_what_is_the_hosts_is_refused_unless_the_policy_names_it(
    device: str, words: list[str]
) -> None:
    line = refusal(guard, case(device))
    assert "which no guard protects" in line
    assert f'allow = {json.dumps(words)} for it, in a [[domain]] with match = "web01"' in line
    assert all(is_well_formed(word) for word in words)
    assert refusals(guard, case(device, allow=tuple(words))) == []
    for word in words:
        left = tuple(other for other in words if other != word)
        assert word in refusal(guard, case(device, allow=left))


@pytest.mark.parametrize(("device", "words"), DEVICES)
def test_the_former_exception_still_opens_devices_and_no_socket_program_or_file(
    device: str, words: list[str]
) -> None:
    kept = [w for w in words if w.startswith(("unix-socket", "vhost-user", "program", "file"))]
    found = refusals(guard, case(device, **EXCEPTED))
    assert len(found) == bool(kept)
    assert all(f"allow = {json.dumps(kept)}" in line for line in found)
    assert all('"host-devices" does not cover' in line for line in found)


def test_a_usb_device_may_be_named_by_its_place_too() -> None:
    device = usb("<vendor id='0x046d'/><product id='0xc52b'/><address bus='1' device='3'/>")
    assert refusals(guard, case(device, allow=("usb 001/003",))) == []
    assert refusals(guard, case(device, allow=("usb 001/004", "usb 046d:c52c")))


def test_the_line_to_write_keeps_what_the_policy_allows_already() -> None:
    two = usb("<vendor id='0x1'/><product id='0x2'/>") + "<shmem name='a'/>"
    line = refusal(guard, case(two, allow=("shmem a", "shmem b")))
    assert "it has <hostdev> of type usb (0001:0002), which" in line
    assert 'allow = ["shmem a", "shmem b", "usb 0001:0002"]' in line


def test_all_that_is_refused_is_told_in_one_line() -> None:
    line = refusal(guard, case("<shmem name='a'/><shmem name='b'/><serial type='tcp'/>"))
    assert "it has <shmem> a, <shmem> b, <serial> of type tcp, which" in line
    assert "remove them (virsh edit web01)" in line
    assert 'allow = ["shmem a", "shmem b", "element serial tcp"]' in line


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ("<shmem name='a/b'/>", "shmem a/b"),
        ("<serial type='pipe'><source path='/a/../b'/></serial>", "file /a/../b"),
        ("<serial type='dev'><source path='/dev/../etc/x'/></serial>", "file /dev/../etc/x"),
        ("<serial type='dev'><source path='dev/ttyS0'/></serial>", "file dev/ttyS0"),
    ],
)
def test_what_no_word_can_name_is_refused_whatever_the_policy_says(device: str, word: str) -> None:
    line = refusal(guard, case(device))
    assert f"name it in the XML as the policy can: {word!r}" in line
    assert "allow = " not in line


def test_the_line_to_write_matches_no_other_domain() -> None:
    xml = xmls.domain("<shmem name='a'/>").replace("<name>web01<", "<name>web[01]*<")
    line = refusal(guard, case_of(xml, rules(), FakeHost()))
    assert line.endswith('with match = "web[[]01][*]"')


def test_the_hardwares_random_numbers_are_had_by_urandom() -> None:
    rng = "<rng><backend model='random'>/dev/hwrng</backend></rng>"
    line = refusal(guard, case(rng))
    assert "fix: write /dev/urandom for /dev/hwrng (virsh edit web01)" in line
    assert 'allow = ["device /dev/hwrng"]' in line
    assert "remove" not in line
    assert refusals(guard, case(rng.replace("hwrng", "urandom"))) == []


# Honest passage: what is allowed and adopted


def test_what_libvirt_gives_to_its_own_user_goes_on_to_the_adopted_domains() -> None:
    host = FakeHost(vfio_groups={"0000:65:00.0": "/dev/vfio/7"})
    named = ["/dev/ttyS0", "/srv/p.in", "/srv/p.out", "/dev/bus/usb/001/004", "/dev/vfio/7"]
    for path in named:
        host.file(path, kind=stat.S_IFCHR)
    devices = (
        "<serial type='dev'><source path='/dev/ttyS0'/></serial>"
        "<serial type='pipe'><source path='/srv/p'/></serial>"
        + hostdev("usb", "<address bus='1' device='4'/>")
        + hostdev("pci", "<address domain='0' bus='0x65' slot='0' function='0'/>")
    )
    allowed = ("device /dev/ttyS0", "file /srv/p", "usb 001/004", "pci 0000:65:00.0")
    found = guard.plan(case(devices, Op.ADOPT, host=host, allow=allowed))
    assert {change.path for change in found if isinstance(change, GiveAllowed)} == {*named}
    for op in (Op.PREPARE, Op.START, Op.STARTED):
        assert guard.plan(case(devices, op, host=host, allow=allowed)) == []


def test_a_disk_that_another_guard_gives_is_not_given_here() -> None:
    host = FakeHost()
    host.file(f"{IMAGES}/web01.qcow2")
    assert guard.plan(case(xmls.disk(), Op.ADOPT, host=host)) == []


# Attacks: paths


@pytest.mark.parametrize(
    ("device", "path", "kind"),
    [
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "/etc/x", "unix-socket"),
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "etc/shadow", ""),
        ("<serial type='unix'><source mode='bind' path='{}'/></serial>", "swapfile", ""),
        ("<serial type='pty' tty='{}'/>", "/dev/tty1", "device"),
        ("<rng><backend model='random'>{}</backend></rng>", "/dev/sda", "device"),
        ("<interface type='bridge'><backend vhost='{}'/></interface>", "/etc/shadow", "file"),
        ("<interface type='bridge'><backend tap='{}'/></interface>", "/etc/shadow", "file"),
        ("<interface type='ethernet'><script path='{}'/></interface>", "/tmp/evil.sh", "program"),
        ("<interface type='ethernet'><downscript path='{}'/></interface>", "/tmp/x", "program"),
        ("<interface type='user'><backend type='passt' logFile='{}'/></interface>", "/x", "file"),
        ("<interface type='vhostuser'><source type='unix' path='{}'/></interface>", "/run/x",
         "vhost-user"),
        ("<interface type='vdpa'><source dev='{}'/></interface>", "/dev/vhost-vdpa-0", "device"),
        ("<filesystem><binary path='{}'/></filesystem>", "/tmp/evil", "program"),
        ("<filesystem><source socket='{}'/></filesystem>", "/run/x", "vhost-user"),
        ("<disk type='network'><source><host socket='{}'/></source></disk>", "/run/nbd.sock",
         "unix-socket"),
        (("<disk type='file'><source file='/a'/><backingStore type='network'><source>"
         "<host socket='{}'/></source></backingStore></disk>"), "/run/nbd.sock", "unix-socket"),
        ("<disk><source><reservations><source path='{}'/></reservations></source></disk>", "/r",
         "unix-socket"),
        ("<disk type='vhostuser'><source path='{}'/></disk>", "/run/x", "vhost-user"),
        ("<disk type='vhostvdpa'><source dev='{}'/></disk>", "/dev/vhost-vdpa-0", "device"),
        ("<video><model><acceleration rendernode='{}'/></model></video>", "/dev/dri/renderD128",
         "render-node"),
        ("<graphics type='egl-headless'><gl rendernode='{}'/></graphics>", "/dev/dri/renderD128",
         "render-node"),
        ("<sound><codec store='{}'/></sound>", "/unheard/of", "file"),
    ],
)  # fmt: skip
def test_a_path_that_no_guard_knows_is_refused_with_its_name(
    device: str, path: str, kind: str
) -> None:
    line = refusal(guard, case(device.format(path)))
    assert f"with {path}, which no guard protects" in line
    if kind:
        assert f'allow = ["{kind} {path}"]' in line
        allowed = case(device.format(path), allow=(f"{kind} {path}",))
        assert refusals(guard, allowed) == []
        assert path in reviewed_paths(allowed.domain, allowed.rules)


def test_a_program_stays_one_where_the_xml_names_it_a_second_time() -> None:
    script = "<interface type='ethernet'><script path='/x'/></interface>"
    pipe = "<serial type='pipe'><source path='/x'/></serial>"
    line = refusal(guard, case(script + pipe, allow=("file /x",)))
    assert '"program /x"' in line


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
    assert f"with {path}, which" in refusal(guard, case(channel))


def test_without_an_id_nothing_is_its_own_yet() -> None:
    path = f"{CHANNELS}/domain-none-web01/{AGENT}"
    xml = xmls.domain(f"<channel type='unix'><source mode='bind' path='{path}'/></channel>")
    off = case_of(xml.replace(" id='7'", ""), rules(), FakeHost())
    assert f"with {path}, which" in refusal(guard, off)


@pytest.mark.parametrize(
    ("os", "extra", "kind"),
    [
        ("<unheard-of>/etc/shadow</unheard-of>", "", "file"),
        ("<nvram><source><host socket='/etc/shadow'/></source></nvram>", "", "unix-socket"),
        ("", "<bootloader>/etc/shadow</bootloader>", "program"),
        ("", "<teleporter file='/etc/shadow'/>", "file"),
    ],
)
def test_a_path_outside_of_the_devices_is_refused_too(os: str, extra: str, kind: str) -> None:
    line = refusal(guard, case(os=os, extra=extra))
    assert "it has /etc/shadow, which" in line
    assert f'allow = ["{kind} /etc/shadow"]' in line
    assert refusals(guard, case(os=os, extra=extra, allow=(f"{kind} /etc/shadow",))) == []


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
    plugged = case("<hostdev type='usb'/><shmem name='a'/>", Op.STARTED)
    assert guard.verify(plugged, process) == [
        "it has <hostdev> of type usb, which no guard protects",
        "it has <shmem> a, which no guard protects",
    ]


def test_what_is_allowed_reaches_the_ticket_and_nothing_else_does() -> None:
    device = "<shmem name='shared'/><serial type='dev'><source path='/dev/ttyS0'/></serial>"
    every = {"shmem shared": "/dev/shm/shared", "device /dev/ttyS0": "/dev/ttyS0", "file /x": "/x"}
    for word, path in every.items():
        found = case(device, extra="<teleporter file='/x'/>", allow=(word,))
        assert {*every.values()} & reviewed_paths(found.domain, found.rules) == {path}


def test_the_guard_is_asked() -> None:
    assert guard in lifecycle.GUARDS
