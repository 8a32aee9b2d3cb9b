# SPDX-License-Identifier: GPL-2.0-or-later
"""What an admin says in /etc/libvirt/qemu.conf for all VMs, and what it does to a guarded one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.certificates import Authority
from tests.host.command import run
from tests.host.domain import Disk, Vnc
from tests.host.images import raw
from tests.libvirt.warden import ENFORCING, Warden, as_user, owner, set_policy

CONF = Path("/etc/libvirt/qemu.conf")
OPEN = "<graphics type='vnc' autoport='yes'><listen type='address'/></graphics>"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is refused
IN_A_FILE = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
HUGE_PAGES = "<memoryBacking><hugepages/></memoryBacking>"
# 64 MiB, and some to spare.
PAGES = 40


@contextmanager
def configured(warden: Warden, *lines: str) -> Iterator[None]:
    """libvirtd with these lines at the end of its configuration."""
    former = CONF.read_text()
    CONF.write_text(former + "".join(f"{line}\n" for line in lines))
    warden.libvirt.restart()
    try:
        yield
    finally:
        warden.libvirt.remove_domains()
        CONF.write_text(former)
        warden.libvirt.restart()


def line_of(setting: str) -> str:
    lines = CONF.read_text().splitlines()
    return f"{CONF}:{next(n for n, line in enumerate(lines, 1) if line.startswith(setting))}"


def ways(refusal: str) -> list[str]:
    return refusal.partition("; fix: ")[2].split("; or ")


class TestConsoles:
    """The address of a console whose XML leaves it to libvirt."""

    def test_each_way_out_that_the_refusal_tells_lets_it_start(self, warden: Warden) -> None:
        with configured(warden, f'vnc_listen = "{EVERYWHERE}"'):
            warden.enrolled("web01", extra_devices=OPEN)
            said = (
                f"VNC would listen on {EVERYWHERE}, as vnc_listen in {line_of('vnc_listen')} says"
            )
            line = warden.refusal("web01")
            assert said in line
            assert said in warden.command("check", check=False).stdout
            in_conf, in_xml, in_policy = ways(line)
            assert in_policy == f'add "{EVERYWHERE}" to listen'
            set_policy(f'{ENFORCING}[console]\nlisten = ["{EVERYWHERE}"]\n')
            warden.libvirt.start("web01")
            warden.libvirt.destroy("web01")
            set_policy(ENFORCING)
            told = re.search(r"<listen .*/>", in_xml)
            assert told
            xml = warden.libvirt.xml("web01", "--inactive")
            warden.libvirt.define(xml.replace("<listen type='address'/>", told[0]))
            warden.libvirt.start("web01")
            warden.libvirt.destroy("web01")
            warden.libvirt.define(xml)
            wanted = re.search(r"write (vnc_listen = \S+) there", in_conf)
            assert wanted
            CONF.write_text(re.sub("(?m)^vnc_listen.*", wanted[1], CONF.read_text()))
            warden.libvirt.restart()
            warden.libvirt.start("web01")
            assert warden.status("web01")["breaches"] == []

    def test_a_socket_that_qemu_conf_asks_for_is_blamed_on_it(self, warden: Warden) -> None:
        with configured(warden, "vnc_auto_unix_socket = 1"):
            warden.enrolled("web01", extra_devices=OPEN)
            line = warden.refusal("web01")
            assert "VNC would listen on unix, as vnc_auto_unix_socket in " in line
            assert f"in {line_of('vnc_auto_unix_socket')} says" in line
            set_policy(f'{ENFORCING}[console]\nlisten = ["unix"]\n')
            warden.libvirt.start("web01")
            assert warden.status("web01")["breaches"] == []


class TestMemory:
    """Where libvirt makes a guest's memory, in the sandbox too."""

    def test_a_guests_memory_lies_where_qemu_conf_says_for_this_guest_alone(
        self, warden: Warden
    ) -> None:
        directory = Path("/srv/memory")
        directory.mkdir(exist_ok=True)
        with configured(warden, f'memory_backing_dir = "{directory}"'):
            for name in ("web01", "db01"):
                warden.started(name, extra=IN_A_FILE)
                assert "sandboxed by Landlock" in warden.libvirt.log(name)
                assert warden.status(name)["breaches"] == []
            (memory,) = directory.glob("libvirt/qemu/*-web01/*")
            assert as_user("vmw-web01", lambda: os.open(memory, os.O_RDWR)) == ""
            assert as_user("vmw-db01", lambda: os.open(memory, os.O_RDWR)) == "PermissionError"
            warden.libvirt.destroy("web01")
            assert not memory.exists()

    @pytest.fixture
    def pages(self) -> Iterator[None]:
        """Huge pages of the kernel's, and no more of them than there were at the end."""
        kept = Path("/proc/sys/vm/nr_hugepages")
        former = int(kept.read_text())
        kept.write_text(f"{former + PAGES}\n")
        assert int(kept.read_text()) == former + PAGES
        yield
        kept.write_text(f"{former}\n")

    @pytest.mark.parametrize("setting", ["", 'hugetlbfs_mount = "{}"'])
    @pytest.mark.parametrize("place", ["/dev/hugepages", "/srv/huge"])
    def test_a_guest_has_huge_pages_wherever_they_are_mounted(
        self, warden: Warden, pages: None, setting: str, place: str
    ) -> None:
        Path(place).mkdir(exist_ok=True)
        run("mount", "-t", "hugetlbfs", "hugetlbfs", place)
        try:
            with configured(warden, setting.format(place)):
                warden.started("web01", extra=HUGE_PAGES)
                assert "sandboxed by Landlock" in warden.libvirt.log("web01")
                assert f"{place}/libvirt/qemu" in " ".join(warden.qemu("web01").arguments)
                assert warden.status("web01")["breaches"] == []
        finally:
            run("umount", place)


def test_qemus_own_filter_is_not_switched_off_for_all_vms(warden: Warden) -> None:
    with configured(warden, "seccomp_sandbox = 0"):
        qemu = warden.started("web01")
        assert "-sandbox off" in warden.libvirt.log("web01")
        assert qemu.arguments[qemu.arguments.index("-sandbox") + 1].startswith("on,")
        assert "seccomp_sandbox = 0 in /etc/libvirt/qemu.conf" in warden.libvirt.log("web01")
        assert warden.status("web01")["breaches"] == []


def test_certificates_are_read_where_qemu_conf_has_them_in_the_sandbox_too(warden: Warden) -> None:
    directory = Path("/srv/pki")
    directory.mkdir(exist_ok=True)
    Authority(directory).server()
    for file in directory.iterdir():
        file.chmod(0o644)
    serial = (
        "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='4555' tls='yes'/>"
        "</serial>"
    )
    settings = ("chardev_tls = 1", f'chardev_tls_x509_cert_dir = "{directory}"')
    with configured(warden, *settings):
        set_policy(
            f'{ENFORCING}[[domain]]\nmatch = "web01"\nallow = ["serial-tcp 127.0.0.1:4555"]\n'
        )
        warden.started("web01", extra_devices=serial)
        assert "sandboxed by Landlock" in warden.libvirt.log("web01")
        assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize(
    "settings",
    [
        ('user = "root"', 'group = "root"', "clear_emulator_capabilities = 0"),
        ("dynamic_ownership = 0",),
        ("remember_owner = 0",),
        ('stdio_handler = "file"',),
        ('max_core = "unlimited"', "dump_guest_core = 1", "set_process_name = 1"),
        ('cgroup_device_acl = [ "/dev/null" ]', 'auto_dump_path = "/srv"'),
        ("vnc_tls = 1", 'vnc_tls_x509_cert_dir = "/srv"', 'default_tls_x509_cert_dir = "/srv"'),
        ('vnc_password = "letmein"', "vnc_sasl = 1", 'vnc_sasl_dir = "/srv"'),
    ],
    ids=lambda settings: settings[0].split()[0],
)
def test_other_settings_alter_nothing_of_what_a_guarded_vm_is(
    warden: Warden, images: Path, settings: tuple[str, ...]
) -> None:
    log = images / "serial.log"
    serial = f"<serial type='file'><source path='{log}'/><log file='{log}.2'/></serial>"
    disk = raw(images / "web01.img", "8M", mode=0o644)
    before = owner(disk)
    with configured(warden, *settings):
        disks = [Disk(disk, format="raw")]
        warden.started("web01", disks=disks, vnc=Vnc(), extra_devices=serial)
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        assert owner(disk) == before
