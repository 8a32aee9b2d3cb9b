# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that several VMs boot: no VM's user ever has it, at no moment of a start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from lxml import etree

from tests.host.command import run
from tests.host.domain import domain_xml
from tests.libvirt.grabber import grabber, was_opened
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, owner, set_policy
from virtwarden.domain.model import read
from virtwarden.system import users

_IPXE = Path("/usr/lib/ipxe/ipxe.lkrn")


@pytest.fixture
def kernel(images: Path) -> Path:
    file = images / "vmlinuz"
    shutil.copy(_IPXE, file)
    file.chmod(0o644)
    return file


def _copies(warden: Warden, name: str) -> list[Path]:
    return sorted((PATHS.boot_files / warden.status(name)["uuid"]).glob("*"))


def _ids(name: str) -> tuple[int, int]:
    account = users.account(name)
    assert account is not None
    return account.uid, account.gid


def _in_former_form(xml: str, kernel: Path) -> str:
    """As virt-warden 0.1.0 enrolled it."""
    root = etree.fromstring(xml)
    for note in root.findall("metadata/*/*"):
        if note.tag.endswith("}copy"):
            note.getparent().remove(note)  # type: ignore[union-attr]
    for element in root.iterfind("os/kernel"):
        element.text = str(kernel)
    return etree.tostring(root, encoding="unicode")


def test_at_no_moment_of_a_start_can_a_vms_user_open_a_shared_kernel_for_writing(
    warden: Warden, kernel: Path
) -> None:
    before = owner(kernel)
    warden.started("web01", kernel=kernel)
    warden.libvirt.destroy("web01")
    with grabber(_ids("vmw-web01"), kernel, "r+b") as grabbing:
        warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
        assert owner(kernel) == before
        assert not was_opened(grabbing)
    warden.libvirt.destroy("web01")
    assert owner(kernel) == before


def test_the_same_attack_succeeds_where_the_xml_still_names_the_kernel_itself(
    warden: Warden, kernel: Path
) -> None:
    """So the test above can fail, and a domain that 0.1.0 enrolled still starts."""
    warden.started("web01", kernel=kernel)
    warden.libvirt.destroy("web01")
    warden.libvirt.define(_in_former_form(warden.libvirt.xml("web01", "--inactive"), kernel))
    before = owner(kernel)
    with grabber(_ids("vmw-web01"), kernel, "r+b") as grabbing:
        warden.libvirt.start("web01")
        assert kernel.stat().st_uid == 0
        assert as_user("vmw-web01", lambda: os.open(kernel, os.O_RDWR)) == "PermissionError"
        assert was_opened(grabbing)
    warden.libvirt.destroy("web01")
    assert owner(kernel) == before


def test_a_shim_is_a_copy_as_the_kernel_is(warden: Warden, kernel: Path) -> None:
    shim = kernel.with_name("shim.efi")
    shim.write_bytes(b"MZ" + bytes(510))
    before = owner(shim)
    xml = domain_xml("web01", kernel=kernel)
    warden.libvirt.define(xml.replace("</kernel>", f"</kernel><shim>{shim}</shim>"))
    if "<shim>" not in warden.libvirt.xml("web01"):  # libvirt before 11.2
        return
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    arguments = warden.qemu("web01").arguments
    booted = arguments[arguments.index("-shim") + 1]
    assert Path(booted) in _copies(warden, "web01")
    assert Path(booted).read_bytes() == shim.read_bytes()
    assert owner(shim) == before


def test_two_vms_boot_one_kernel_each_from_a_copy_that_goes_with_the_stop(
    warden: Warden, kernel: Path
) -> None:
    for name in ("web01", "db01"):
        warden.started(name, kernel=kernel)
    for name, other in (("web01", "db01"), ("db01", "web01")):
        (copy,) = _copies(warden, name)
        assert copy.read_bytes() == kernel.read_bytes()
        assert as_user(f"vmw-{name}", lambda copy=copy: os.open(copy, os.O_RDONLY)) == ""
        assert (
            as_user(f"vmw-{other}", lambda copy=copy: os.open(copy, os.O_RDONLY))
            == "PermissionError"
        )
        assert warden.status(name)["breaches"] == []
    (copy,) = _copies(warden, "web01")
    warden.libvirt.destroy("web01")
    assert not copy.parent.exists()
    warden.libvirt.destroy("db01")


def test_what_a_guest_wrote_into_its_copy_is_not_booted_again(warden: Warden, kernel: Path) -> None:
    warden.started("web01", kernel=kernel)
    (copy,) = _copies(warden, "web01")

    def write() -> None:
        copy.chmod(0o600)
        copy.write_bytes(b"evil")

    assert as_user("vmw-web01", write) == ""
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    assert copy.read_bytes() == kernel.read_bytes()
    warden.libvirt.destroy("web01")


def test_a_new_kernel_is_booted_at_the_next_start(warden: Warden, kernel: Path) -> None:
    warden.started("web01", kernel=kernel)
    newer = kernel.with_name("newer")
    newer.write_bytes(kernel.read_bytes() + b"newer")
    newer.replace(kernel)
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    (copy,) = _copies(warden, "web01")
    assert copy.read_bytes().endswith(b"newer")
    warden.libvirt.destroy("web01")


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_a_vm_boots_its_kernel_in_every_mode(warden: Warden, kernel: Path, mode: str) -> None:
    set_policy(f'mode = "{mode}"\n{ENFORCING}')
    warden.started("web01", kernel=kernel)
    assert len(_copies(warden, "web01")) == 1
    warden.libvirt.destroy("web01")
    assert not list(PATHS.boot_files.iterdir())


def test_a_kernel_that_is_gone_is_refused_and_a_full_disk_too(warden: Warden, kernel: Path) -> None:
    warden.enrolled("web01", kernel=kernel)
    hidden = kernel.rename(kernel.with_name("hidden"))
    assert "it is not there" in warden.refusal("web01")
    hidden.rename(kernel)
    with kernel.open("r+b") as file:
        file.truncate(64 << 20)
    PATHS.boot_files.mkdir(mode=0o711, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0711", "tmpfs", str(PATHS.boot_files))
    try:
        line = warden.refusal("web01")
    finally:
        run("umount", str(PATHS.boot_files))
    assert "No space left on device" in line
    assert f"df -h {PATHS.boot_files}" in line


def test_unenrolment_names_the_kernel_again(warden: Warden, kernel: Path) -> None:
    warden.enrolled("web01", kernel=kernel)
    assert read(warden.libvirt.xml("web01").encode()).boot_files != (str(kernel),)
    run("virt-warden", "unenrol", "web01")
    assert read(warden.libvirt.xml("web01").encode()).boot_files == (str(kernel),)


def test_a_kernel_that_an_edit_named_is_never_the_vms_users(warden: Warden, kernel: Path) -> None:
    """As the admin edits it while the service does not run."""
    two = shutil.copy(kernel, kernel.with_name("vmlinuz-2"))
    warden.enrolled("web01", kernel=kernel)
    xml = warden.libvirt.xml("web01", "--inactive")
    begin, end = xml.index("<kernel>") + 8, xml.index("</kernel>")
    warden.libvirt.define(xml[:begin] + str(two) + xml[end:])
    changed = two.stat().st_ctime_ns
    assert "virt-warden enrol web01" in warden.refusal("web01")
    assert two.stat().st_ctime_ns == changed
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert two.stat().st_ctime_ns == changed
