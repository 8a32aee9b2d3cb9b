# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the host a domain's XML may name, on a libvirt that gives away what it is told to."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2, raw
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, set_policy, until

OVMF = Path("/usr/share/OVMF")
FORMER = f'{ENFORCING}[[domain]]\nmatch = "web01"\nexceptions = ["host-devices"]\n'


def owner(path: Path) -> str:
    found = path.lstat()
    return f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o}"


def obey(line: str) -> None:
    """Write into the policy what a refusal says, and nothing else."""
    found = re.search(r'(allow = \[.*?\]) for it, in a \[\[domain\]\] with (match = "[^"]+")', line)
    assert found, line
    set_policy(f"{ENFORCING}[[domain]]\n{found[2]}\n{found[1]}\n")


def with_firmware(name: str, template: Path) -> str:
    """A domain with firmware of its own, whose variables come from a template."""
    firmware = (
        f"<loader readonly='yes' type='pflash'>{OVMF}/OVMF_CODE_4M.fd</loader>"
        f"<nvram template='{template}'/>"
    )
    return domain_xml(name, machine="q35").replace("</os>", f"{firmware}</os>")


def nbd(image: Path, at: Path) -> tuple[str, ...]:
    return ("qemu-nbd", "--persistent", "--format=raw", f"--socket={at}", str(image))


def vhost_user(image: Path, at: Path) -> tuple[str, ...]:
    export = f"type=vhost-user-blk,id=a,addr.type=unix,addr.path={at},node-name=a,writable=on"
    node = f"driver=file,node-name=a,filename={image}"
    return ("qemu-storage-daemon", "--blockdev", node, "--export", export)


@contextmanager
def serving(words: tuple[str, ...], at: Path) -> Iterator[None]:
    """A server of the host's, at a socket that everybody may connect to."""
    with subprocess.Popen(words) as server:
        until(at.exists)
        at.chmod(0o666)
        try:
            yield
        finally:
            server.terminate()


@pytest.fixture
def services() -> Iterator[None]:
    """What some devices connect to: a server on TCP, and the two ends of a pipe."""
    ends = [Path(f"/run/web01.pipe.{end}") for end in ("in", "out")]
    for end in ends:
        os.mkfifo(end)
    with socket.create_server(("127.0.0.1", 4590)):
        yield
    for end in ends:
        end.unlink()


@pytest.fixture
def service() -> Iterator[Path]:
    """A service of the host's, which listens on a Unix socket of root's."""
    path = Path("/run/service.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        yield path
    path.unlink()


def test_a_serial_port_into_a_service_of_the_hosts_is_refused_and_the_socket_stays_roots(
    warden: Warden, service: Path
) -> None:
    serial = f"<serial type='unix'><source mode='connect' path='{service}'/></serial>"
    before = owner(service)
    warden.enrolled("web01", extra_devices=serial)
    line = warden.refusal("web01")
    assert f"it has <serial> of type unix with {service}, " in line
    assert f'allow = ["unix-socket {service}"]' in line
    assert owner(service) == before
    obey(line)
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_the_former_exception_opens_a_device_and_no_service_of_the_hosts(
    warden: Warden, service: Path
) -> None:
    set_policy(FORMER)
    device = (
        "<shmem name='web01-shared'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
    )
    warden.started("web01", extra_devices=device)
    assert warden.status("web01")["breaches"] == []
    said = warden.command("explain", "web01").stdout
    assert 'What "host-devices" opens for it, by name: allow = ["shmem web01-shared"]' in said
    assert '"host-devices" opens every device' in warden.command("policy", "check").stdout
    serial = f"<serial type='unix'><source mode='connect' path='{service}'/></serial>"
    warden.enrolled("web02", extra_devices=device.replace("web01", "web02") + serial)
    set_policy(FORMER.replace("web01", "web*"))
    line = warden.refusal("web02")
    assert f'{service}, which no guard protects and "host-devices" does not cover' in line
    assert f'allow = ["unix-socket {service}"]' in line


@pytest.mark.parametrize(
    ("devices", "word"),
    [
        (
            "<shmem name='shared'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>",
            "shmem shared",
        ),
        (
            "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='4555'/></serial>",
            "serial-tcp 127.0.0.1:4555",
        ),
        (
            (
                "<serial type='udp'><source mode='bind' host='127.0.0.1' service='4556'/>"
                "<source mode='connect' host='127.0.0.1' service='4557'/></serial>"
            ),
            "serial-udp 127.0.0.1:4557",
        ),
        ("<serial type='dev'><source path='/dev/null'/></serial>", "device /dev/null"),
        ("<serial type='pipe'><source path='/run/web01.pipe'/></serial>", "file /run/web01.pipe"),
        (
            (
                "<rng model='virtio'><backend model='egd' type='tcp'>"
                "<source mode='connect' host='127.0.0.1' service='4590'/></backend></rng>"
            ),
            "serial-tcp 127.0.0.1:4590",
        ),
        (
            (
                "<rng model='virtio'><backend model='egd' type='udp'>"
                "<source mode='bind' host='127.0.0.1' service='4591'/>"
                "<source mode='connect' host='127.0.0.1' service='4592'/></backend></rng>"
            ),
            "serial-udp 127.0.0.1:4592",
        ),
        ("<sound model='ich9'/><audio id='1' type='alsa'/>", "element audio alsa"),
        (
            (
                "<channel type='unix'><source mode='bind' path='/run/web01.sock'/>"
                "<target type='virtio' name='a'/></channel>"
            ),
            "unix-socket /run/web01.sock",
        ),
    ],
)
def test_a_vm_starts_with_the_line_that_its_refusal_tells(
    warden: Warden, services: None, devices: str, word: str
) -> None:
    warden.enrolled("web01", machine="q35", extra_devices=devices)
    line = warden.refusal("web01")
    assert word in line
    obey(line)
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_a_usb_device_that_the_policy_names_is_libvirts_to_find(warden: Warden) -> None:
    device = (
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/>"
        "<product id='0xc52b'/></source></hostdev>"
    )
    xml = domain_xml("web01", extra_devices=device)
    warden.libvirt.define(xml.replace('type="usb" model="none"', 'type="usb"'))
    warden.command("enrol", "web01")
    line = warden.refusal("web01")
    assert 'allow = ["usb 046d:c52b"]' in line
    obey(line)
    assert "virt-warden" not in warden.libvirt.virsh("start", "web01", check=False).stderr


@pytest.mark.parametrize(
    ("server", "kind", "source"),
    [
        (nbd, "network", "<source protocol='nbd'><host transport='unix' socket='{}'/></source>"),
        (vhost_user, "vhostuser", "<source type='unix' path='{}'/>"),
    ],
)
def test_a_disk_behind_a_socket_starts_with_the_line_that_its_refusal_tells(
    warden: Warden,
    images: Path,
    server: Callable[[Path, Path], tuple[str, ...]],
    kind: str,
    source: str,
) -> None:
    at = Path("/run/disk.sock")
    disk = (
        f"<disk type='{kind}'><driver name='qemu' type='raw'/>{source.format(at)}"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    warden.enrolled("web01", machine="q35", extra_devices=disk, extra=shared)
    obey(warden.refusal("web01"))
    with serving(server(raw(images / "served.img", "16M"), at), at):
        warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")


def test_the_hardwares_random_numbers_are_had_as_the_refusal_says(warden: Warden) -> None:
    rng = "<rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>"
    warden.enrolled("web01", extra_devices=rng)
    line = warden.refusal("web01")
    assert "write /dev/urandom for /dev/hwrng (virsh edit web01)" in line
    edited = warden.libvirt.xml("web01", "--inactive").replace("/dev/hwrng", "/dev/urandom")
    warden.libvirt.define(edited)
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_the_socket_of_the_guests_agent_is_its_own(warden: Warden) -> None:
    agent = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    warden.started("web01", machine="q35", extra_devices=agent)
    assert warden.status("web01")["breaches"] == []


def test_a_template_of_roots_secrets_is_not_copied_for_a_guest(
    warden: Warden, images: Path
) -> None:
    secret = images / "secret"
    secret.write_text("the root password")
    secret.chmod(0o600)
    warden.libvirt.define(with_firmware("web01", secret))
    warden.command("enrol", "web01")
    assert (
        f"the file {secret}: others cannot read it, so libvirt would change its owner"
        in warden.refusal("web01")
    )
    assert not Path("/var/lib/libvirt/qemu/nvram/web01_VARS.fd").exists()


def test_a_vm_with_firmware_of_the_distributions_starts(warden: Warden) -> None:
    before = owner(OVMF / "OVMF_CODE_4M.fd")
    warden.libvirt.define(with_firmware("web01", OVMF / "OVMF_VARS_4M.fd"))
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    assert owner(OVMF / "OVMF_CODE_4M.fd") == before
    nvram = Path("/var/lib/libvirt/qemu/nvram/web01_VARS.fd")
    assert as_user("vmw-web01", lambda: os.open(nvram, os.O_RDWR)) == ""


def test_a_vm_with_a_tpm_of_its_own_starts_and_leaves_nothing(warden: Warden) -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    warden.started("web01", machine="q35", extra_devices=tpm)
    assert warden.status("web01")["breaches"] == []
    sockets = Path("/run/libvirt/qemu/swtpm")
    assert as_user("vmw-web01", lambda: list(sockets.iterdir())) == "PermissionError"
    assert "vmw-web01" in run("getfacl", "-p", str(sockets)).stdout
    warden.libvirt.destroy("web01")
    assert "vmw-web01" not in run("getfacl", "-p", str(sockets)).stdout


def test_a_provisioning_file_is_read_by_its_vms_alone(warden: Warden, images: Path) -> None:
    ignition = images / "node.ign"
    ignition.write_text("{}")
    before = owner(ignition)
    entry = f"<entry name='opt/com.coreos/config' file='{ignition}'/>"
    for name in ("web01", "web02"):
        warden.started(name, extra=f"<sysinfo type='fwcfg'>{entry}</sysinfo>")
        (copy,) = PATHS.boot_files.glob(f"{warden.status(name)['uuid']}/*")
        assert as_user(f"vmw-{name}", lambda copy=copy: os.open(copy, os.O_RDONLY)) == ""
        assert as_user(f"vmw-{name}", lambda: os.open(ignition, os.O_RDONLY)) == "PermissionError"
        assert warden.status(name)["breaches"] == []
    warden.started("db01")
    for file in (ignition, *PATHS.boot_files.glob("*/*")):
        opened = as_user("vmw-db01", lambda file=file: os.open(file, os.O_RDONLY))
        assert opened == "PermissionError"
    for name in ("web01", "web02"):
        warden.libvirt.destroy(name)
    assert owner(ignition) == before


def test_persistent_memory_is_its_vms_alone(warden: Warden, images: Path) -> None:
    memory = raw(images / "pmem.img", "64M", mode=0o644)
    before = owner(memory)
    nvdimm = (
        f"<memory model='nvdimm'><source><path>{memory}</path></source><target>"
        "<size unit='MiB'>64</size><node>0</node></target></memory>"
    )
    numa = "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
    xml = domain_xml("web01", machine="q35", extra_devices=nvdimm, extra=numa)
    slots = "<maxMemory slots='2' unit='MiB'>512</maxMemory><vcpu>"
    warden.libvirt.define(xml.replace("<vcpu>", slots))
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    assert as_user("vmw-web01", lambda: os.open(memory, os.O_RDWR)) == ""
    assert as_user("nobody", lambda: os.open(memory, os.O_RDONLY)) == "PermissionError"
    warden.libvirt.destroy("web01")
    assert owner(memory) == before


def test_a_base_is_not_taken_by_naming_it_twice(warden: Warden, images: Path) -> None:
    """Read-only it is claimed beside others; writable it would be given to the VM's user."""
    base = qcow2(images / "base.qcow2")
    overlay = qcow2(images / "db01.qcow2", backing=base)
    warden.started("db01", disks=[Disk(overlay)])
    twice = [
        Disk(base, target="sda", readonly=True, device="cdrom"),
        Disk(base, target="vdb"),
    ]
    warden.enrolled("web01", disks=twice)
    assert "web01" in warden.refusal("web01")
    assert base.stat().st_uid == 0
    warden.libvirt.destroy("db01")
    assert "it is the same file as disk sda" in warden.refusal("web01")


def test_a_restored_vm_does_not_follow_what_its_image_says_by_now(
    warden: Warden, images: Path
) -> None:
    """Whoever took over its QEMU can write any base's name into its own image."""
    base, secret = qcow2(images / "base.qcow2"), raw(images / "secret.img")
    overlay = qcow2(images / "web01.qcow2", backing=base)
    warden.started("web01", disks=[Disk(overlay)])
    saved = images / "web01.save"
    warden.libvirt.virsh("save", "web01", str(saved))
    run("qemu-img", "rebase", "-u", "-b", str(secret), "-F", "raw", str(overlay))
    before = owner(secret)
    warden.libvirt.virsh("restore", str(saved))
    xml = warden.libvirt.xml("web01")
    assert str(base) in xml
    assert str(secret) not in xml
    assert as_user("vmw-web01", lambda: os.open(secret, os.O_RDONLY)) == "PermissionError"
    assert owner(secret) == before


def test_a_new_image_is_not_laid_upon_the_former_ones_base(warden: Warden, images: Path) -> None:
    old, new = qcow2(images / "old-base.qcow2"), qcow2(images / "new-base.qcow2")
    overlay = qcow2(images / "a.qcow2", backing=old)
    warden.enrolled("web01", disks=[Disk(overlay)])
    other = qcow2(images / "b.qcow2", backing=new)
    edited = warden.libvirt.xml("web01", "--inactive").replace(str(overlay), str(other))
    warden.libvirt.define(edited.replace(f'of="{other}"', f'of="{overlay}"'))
    line = warden.refusal("web01")
    assert "its image was replaced" in line
    assert line.endswith("fix: virt-warden enrol web01")
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert str(new) in warden.libvirt.xml("web01")
    assert str(old) not in warden.libvirt.xml("web01")


def test_a_console_that_listens_nowhere_starts(warden: Warden) -> None:
    nowhere = "<graphics type='vnc'><listen type='none'/></graphics>"
    qemu = warden.started("web01", extra_devices=nowhere)
    assert "none" in qemu.arguments[qemu.arguments.index("-vnc") + 1]
    assert warden.status("web01")["breaches"] == []
