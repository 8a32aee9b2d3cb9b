# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as encrypted, what is refused where all must be, and QEMU's own LUKS."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import luks, qcow2, qemu_luks, raw
from tests.host.syslog import Syslog
from tests.libvirt.vault import KEY, PATHS, Vault, key_file, opened
from tests.libvirt.warden import ENFORCING, Warden, set_policy

SECRET = "11111111-aaaa-bbbb-cccc-222222222222"
REQUIRED = ENFORCING + '[storage]\nencryption = "required"\n'


def policy(key: str, head: str = ENFORCING) -> None:
    set_policy(f'{head}[[domain]]\nmatch = "web01"\n[domain.disks.vda]\n{key}\n')


def load(warden: Warden, *domains: str) -> tuple[int, str]:
    done = warden.command("luks", "load", *domains, check=False)
    return done.returncode, done.stdout + done.stderr


class TestQemusOwnLuks:
    @pytest.mark.parametrize("form", ["raw", "qcow2"])
    def test_a_domain_starts_once_its_key_was_loaded(
        self, warden: Warden, images: Path, form: str
    ) -> None:
        disk = qemu_luks(images / "web01.img", KEY, form)
        policy(f'key.file = "{key_file(images / "key")}"', REQUIRED)
        warden.enrolled("web01", disks=[Disk(disk, format=form, secret=SECRET)])
        assert load(warden, "web01") == (0, "web01 can be started: libvirt has the key of vda\n")
        warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")

    def test_the_secret_is_neither_kept_nor_told(self, warden: Warden, images: Path) -> None:
        disk = qemu_luks(images / "web01.img", KEY, "raw")
        policy(f'key.file = "{key_file(images / "key")}"')
        warden.enrolled("web01", disks=[Disk(disk, format="raw", secret=SECRET)])
        warden.command("luks", "load", "--all")
        told = etree.fromstring(warden.libvirt.virsh("secret-dumpxml", SECRET).stdout)
        assert (told.get("ephemeral"), told.get("private")) == ("yes", "yes")
        asked = warden.libvirt.virsh("secret-get-value", SECRET, check=False)
        assert asked.returncode != 0
        assert list(Path("/etc/libvirt/secrets").glob("*")) == []
        warden.libvirt.virsh("secret-undefine", SECRET)

    def test_a_key_may_be_loaded_again(self, warden: Warden, images: Path) -> None:
        disk = qemu_luks(images / "web01.img", KEY, "raw")
        key = key_file(images / "key", "wrong")
        policy(f'key.file = "{key}"')
        warden.enrolled("web01", disks=[Disk(disk, format="raw", secret=SECRET)])
        warden.command("luks", "load", "web01")
        assert warden.libvirt.virsh("start", "web01", check=False).returncode != 0
        key.unlink()
        key_file(key)
        warden.command("luks", "load", "web01")
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")

    def test_a_secret_that_lies_on_libvirts_disk_is_refused(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qemu_luks(images / "web01.img", KEY, "raw")
        policy(f'key.file = "{key_file(images / "key")}"')
        warden.enrolled("web01", disks=[Disk(disk, format="raw", secret=SECRET)])
        for attributes in ("ephemeral='no' private='yes'", "ephemeral='yes' private='no'"):
            secret = f"<secret {attributes}><uuid>{SECRET}</uuid></secret>"
            warden.libvirt.virsh("secret-define", "/dev/stdin", stdin=secret)
            code, said = load(warden, "web01")
            assert code == 1
            assert f"virsh secret-undefine {SECRET}" in said
            warden.libvirt.virsh("secret-undefine", SECRET)

    def test_without_a_key_in_the_policy_nothing_is_loaded(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qemu_luks(images / "web01.img", KEY, "raw")
        warden.enrolled("web01", disks=[Disk(disk, format="raw", secret=SECRET)])
        code, said = load(warden, "--all")
        assert code == 1
        assert "the policy names no key for disk vda" in said
        assert SECRET not in warden.libvirt.virsh("secret-list").stdout

    def test_a_key_file_that_others_can_read_is_not_loaded(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qemu_luks(images / "web01.img", KEY, "raw")
        policy(f'key.file = "{key_file(images / "key", mode=0o444)}"')
        warden.enrolled("web01", disks=[Disk(disk, format="raw", secret=SECRET)])
        assert "users other than root can read it" in load(warden, "web01")[1]

    def test_a_domain_without_such_a_disk_says_so(self, warden: Warden) -> None:
        warden.enrolled("plain")
        assert load(warden, "plain") == (0, "plain has no disk that QEMU decrypts\n")


class TestWhereEncryptionIsRequired:
    def test_a_disk_in_the_clear_is_refused_with_the_two_ways_out(
        self, warden: Warden, images: Path
    ) -> None:
        set_policy(REQUIRED)
        warden.libvirt.define(domain_xml("web01", disks=[Disk(qcow2(images / "web01.qcow2"))]))
        warden.command("enrol", "web01")
        line = warden.refusal("web01")
        assert f"disk vda ({images}/web01.qcow2) is not encrypted" in line
        assert "virt-warden luks adopt web01 vda" in line
        assert "<encryption format='luks'>" in line
        assert "policy.toml:3" in line

    def test_each_disk_counts(self, warden: Warden, images: Path) -> None:
        key = key_file(images / "key")
        policy(f'key.file = "{key}"', REQUIRED)
        disks = [
            Disk(qemu_luks(images / "a.img", KEY, "raw"), "vda", "raw", secret=SECRET),
            Disk(raw(images / "b.img"), "vdb", "raw"),
            Disk(raw(images / "c.iso"), "sda", "raw", readonly=True, device="cdrom"),
        ]
        warden.enrolled("web01", disks=disks)
        line = warden.refusal("web01")
        assert "disk vdb" in line
        assert "more:" not in line

    def test_a_container_and_a_disk_that_is_only_read_are_let_through(
        self, vault: Vault, images: Path
    ) -> None:
        vault.host = '[storage]\nencryption = "required"\n'
        vault.say()
        disks = [
            Disk("/dev/mapper/vmw-web01-vda", "vda", "raw", kind="block"),
            Disk(raw(images / "c.iso"), "sda", "raw", readonly=True, device="cdrom"),
        ]
        vault.warden.enrolled("web01", disks=disks)
        vault.warden.libvirt.start("web01")
        assert "encryption" in vault.warden.status("web01")["guards"]
        vault.warden.libvirt.destroy("web01")

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ("<memoryBacking><source type='file'/></memoryBacking>", "keeps its memory in a file"),
            ("<on_crash>coredump-destroy</on_crash>", "when it crashes"),
            ("<on_crash>coredump-restart</on_crash>", "when it crashes"),
        ],
    )
    def test_what_writes_memory_in_the_clear_by_itself_is_refused(
        self, warden: Warden, extra: str, words: str
    ) -> None:
        set_policy(REQUIRED)
        warden.enrolled("web01", extra=extra)
        assert words in warden.refusal("web01")

    def test_a_watchdog_that_dumps_is_refused(self, warden: Warden) -> None:
        set_policy(REQUIRED)
        warden.enrolled("web01", extra_devices="<watchdog model='i6300esb' action='dump'/>")
        assert "when it hangs" in warden.refusal("web01")

    def test_saved_memory_is_not_taken_up_again(self, warden: Warden) -> None:
        warden.started("web01")
        warden.libvirt.virsh("managedsave", "web01")
        set_policy(REQUIRED)
        line = warden.refusal("web01")
        assert "its saved memory is not encrypted, but the policy requires encryption" in line
        assert "virsh managedsave-remove web01" in line
        assert warden.libvirt.has_saved_memory("web01")
        warden.libvirt.virsh("managedsave-remove", "web01")
        warden.libvirt.start("web01")

    def test_a_file_of_saved_memory_is_not_taken_up_again(
        self, warden: Warden, images: Path
    ) -> None:
        warden.started("web01")
        warden.libvirt.virsh("save", "web01", str(images / "saved"))
        set_policy(REQUIRED)
        done = warden.libvirt.virsh("restore", str(images / "saved"), check=False)
        assert (
            "its saved memory is not encrypted, but the policy requires encryption" in done.stderr
        )
        assert "virsh start web01" in done.stderr
        assert (images / "saved").exists()
        warden.libvirt.start("web01")

    def test_where_it_is_optional_saved_memory_is(self, warden: Warden) -> None:
        warden.started("web01")
        warden.libvirt.virsh("managedsave", "web01")
        assert warden.libvirt.has_saved_memory("web01")
        warden.libvirt.start("web01")
        assert not warden.libvirt.has_saved_memory("web01")
        assert "-incoming" in warden.qemu("web01").arguments

    def test_in_permissive_mode_it_is_only_told_and_containers_open(
        self, vault: Vault, images: Path, syslog: Syslog
    ) -> None:
        vault.host = '[storage]\nencryption = "required"\n'
        vault.said = {"mode": ""}
        vault.say()
        text = Path("/etc/virt-warden/policy.toml").read_text()
        set_policy(f'mode = "permissive"\n{text}')
        disks = [
            Disk("/dev/mapper/vmw-web01-vda", "vda", "raw", kind="block"),
            Disk(raw(images / "b.img"), "vdb", "raw"),
        ]
        vault.warden.enrolled("web01", disks=disks)
        vault.warden.libvirt.start("web01")
        assert "disk vdb" in syslog.wait_for("event=would-refuse")
        vault.warden.libvirt.destroy("web01")


def test_where_virt_warden_is_disabled_containers_open_all_the_same(vault: Vault) -> None:
    vault.say()
    text = Path("/etc/virt-warden/policy.toml").read_text()
    set_policy(f'mode = "disabled"\n{text}')
    vault.enrol()
    vault.warden.libvirt.start("web01")
    assert opened() == ["vmw-web01-vda"]
    vault.warden.libvirt.destroy("web01")
    assert opened() == []


def test_a_full_disk_is_a_refusal_that_leaves_nothing_open(vault: Vault, images: Path) -> None:
    second = luks(images / "second.luks", KEY)
    entry = f'\n[domain.disks.vdb]\nluks = "{second}"\nkey.file = "{vault.key}"\n'
    vault.say(key_file=f'"{vault.key}"{entry}')
    disks = [
        Disk(f"/dev/mapper/vmw-web01-{target}", target, "raw", kind="block")
        for target in ("vda", "vdb")
    ]
    vault.warden.enrolled("web01", disks=disks)
    lines = [_refusal_with_pages_left(vault, pages) for pages in range(1, 16)]
    refused = [line for line in lines if line]
    assert refused, "the disk was never full"
    assert len(refused) < len(lines), "it does not start with room either"
    assert all("df -h" in line for line in refused), refused


def _refusal_with_pages_left(vault: Vault, pages: int) -> str:
    """Start the domain with so little room for journals; empty where it was enough."""
    run("mount", "-t", "tmpfs", "-o", "size=128k,mode=0711", "tmpfs", str(PATHS.state))
    try:
        (PATHS.state / "filler").write_bytes(bytes(128 * 1024 - pages * 4096))
        done = vault.warden.libvirt.virsh("start", "web01", check=False)
        if done.returncode == 0:
            vault.warden.libvirt.destroy("web01")
        assert opened() == []
        return done.stderr.partition("virt-warden refuses ")[2]
    finally:
        run("umount", str(PATHS.state))
