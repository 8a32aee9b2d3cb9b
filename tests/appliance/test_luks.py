# SPDX-License-Identifier: GPL-2.0-or-later
"""Encrypted disks with the kernel's own dm-crypt, udev, LVM, AppArmor and a TPM2."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.appliance.build import Image
from tests.appliance.hardware import Hardware
from tests.appliance.machine import Host
from tests.appliance.watched import Boot, watched
from tests.host.domain import Disk, domain_xml

IMAGES = "/var/lib/libvirt/images"
NODE = "/dev/mapper/vmw-web01-vda"
KEY = "correct horse battery staple"
KEY_FILE = "/etc/virt-warden/keys/web01"
POLICY = "/etc/virt-warden/policy.d/50-luks.toml"
QUICK = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
DISK: dict[str, Any] = {"format": "raw", "kind": "block"}


def say(host: Host, container: str = "/dev/vg0/web01", key: str = "", head: str = "") -> None:
    """Write the policy."""
    key = key or f'key.file = "{KEY_FILE}"'
    entry = f'[[domain]]\nmatch = "web01"\n[domain.disks.vda]\nluks = "{container}"\n{key}\n'
    host.put(POLICY, head + entry, 0o600)


def define(host: Host, disk: str = "", **more: Any) -> None:
    """A domain with one disk; the service enrols it."""
    xml = domain_xml("web01", disks=[Disk(NODE, **(DISK | more))])
    host.define(xml.replace("<driver ", f"<driver {disk} ") if disk else xml)
    host.until("virsh -q dumpxml web01 --inactive | grep -q warden:enrolment", seconds=60)


def format_container(host: Host, container: str, kind: str = "luks2") -> None:
    host.run(f"cryptsetup luksFormat -q --type {kind} {QUICK} {container} {KEY_FILE}")


def status(host: Host) -> dict[str, Any]:
    (found,) = json.loads(host.run("virt-warden status --json web01", check=False).stdout)
    return dict(found)


def opened(host: Host) -> list[str]:
    """Every map of the device mapper that is a container."""
    return host.run("dmsetup ls --target crypt | awk '/\\(/ {print $1}'").stdout.split()


def refusal(host: Host) -> str:
    done = host.run("virsh -q start web01", check=False)
    assert done.exit != 0, "the start was not refused"
    assert opened(host) == []
    return done.stderr.partition("virt-warden refuses ")[2]


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, guarded_image: Image) -> Iterator[Host]:
    """A host with a volume group, a container on a volume, and one in a file."""
    with watched(request, guarded_image, Hardware(disks=["512M"])) as host:
        furnish(host)
        yield host


def furnish(host: Host) -> None:
    host.run(f"install -d -m 700 {KEY_FILE.rpartition('/')[0]}")
    host.put(KEY_FILE, KEY, 0o400)
    host.run("vgcreate -q vg0 /dev/vda && lvcreate -q -L 48M -n web01 vg0 -Wn -y")
    host.run(f"truncate -s 48M {IMAGES}/web01.luks")
    for container in ("/dev/vg0/web01", f"{IMAGES}/web01.luks"):
        format_container(host, container)


@pytest.fixture(autouse=True)
def _closed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins and ends with no domain, and nothing open."""
    yield
    if "host" in request.fixturenames:
        host = request.getfixturevalue("host")
        host.run("systemctl stop holder", check=False)
        host.run("virsh -q destroy web01; virsh -q undefine web01", check=False)
        host.run("virt-warden recover")
        assert opened(host) == []


@pytest.mark.parametrize("container", ["/dev/vg0/web01", f"{IMAGES}/web01.luks"])
def test_a_disk_is_decrypted_while_its_vm_runs_and_for_it_alone(host: Host, container: str) -> None:
    say(host, container)
    define(host)
    assert opened(host) == []
    host.run("virsh -q start web01")
    assert opened(host) == ["vmw-web01-vda"]
    assert host.run(f"stat -L -c '%U %G %a' {NODE}").stdout == "vmw-web01 vmw-web01 600\n"
    assert status(host)["breaches"] == []
    table = host.run("dmsetup table vmw-web01-vda").stdout
    assert "crypt aes-xts-plain64" in table
    assert "allow_discards" not in table
    host.run(f"echo plaintext-of-the-guest | dd of={NODE} conv=notrunc,fsync status=none")
    assert host.run(f"grep -c plaintext-of-the-guest {container}", check=False).stdout == "0\n"
    host.run("virsh -q destroy web01")
    assert opened(host) == []
    assert host.run(f"ls {NODE}", check=False).exit != 0
    assert host.run("losetup -l -n").stdout == ""
    assert host.denials() == []


def test_luks1_opens_as_well(host: Host) -> None:
    host.run(f"truncate -s 32M {IMAGES}/old.luks")
    format_container(host, f"{IMAGES}/old.luks", "luks1")
    say(host, f"{IMAGES}/old.luks")
    define(host)
    host.run("virsh -q start web01")
    assert opened(host) == ["vmw-web01-vda"]


def test_udev_leaves_the_node_to_the_vm_and_reads_nothing_that_the_guest_wrote(
    host: Host,
) -> None:
    """The guest makes a file system with a label, and a volume group, of the host's names."""
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.run(f"mke2fs -q -L appliance-evil {NODE}")
    host.run("udevadm trigger --action=change --settle $(readlink -f /dev/mapper/vmw-web01-vda)")
    assert host.run(f"stat -L -c '%U %a' {NODE}").stdout == "vmw-web01 600\n"
    assert host.run("ls /dev/disk/by-label").stdout.split() == ["appliance"]
    host.run(f"wipefs -qa {NODE} && vgcreate -q --config devices/use_devicesfile=0 evil {NODE}")
    host.run("lvcreate -q -L 4M -n evil evil -Wn -y && vgchange -q -an evil")
    host.run("udevadm trigger --action=change --settle $(readlink -f /dev/mapper/vmw-web01-vda)")
    assert "evil" not in host.run("dmsetup ls").stdout
    host.run("virsh -q destroy web01")
    assert opened(host) == []
    assert host.run("ls /run/udev/rules.d", check=False).stdout == ""
    format_container(host, "/dev/vg0/web01")


def test_discards_follow_the_disks_attribute(host: Host) -> None:
    say(host)
    define(host, "discard='unmap'")
    host.run("virsh -q start web01")
    assert "allow_discards" in host.run("dmsetup table vmw-web01-vda").stdout


def test_a_read_only_disk_cannot_be_written(host: Host) -> None:
    say(host)
    define(host, readonly=True)
    host.run("virsh -q start web01")
    assert host.run(f"blockdev --getro {NODE}").stdout == "1\n"
    assert status(host)["breaches"] == []


def test_another_vms_user_does_not_read_it(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.define(domain_xml("db01", disks=[Disk(NODE, **DISK)]))
    host.until("virsh -q dumpxml db01 --inactive | grep -q warden:enrolment", seconds=60)
    done = host.run("virsh -q start db01", check=False)
    assert "the policy names no LUKS container for it" in done.stderr
    host.define(domain_xml("db01"))
    host.until("virsh -q dumpxml db01 --inactive | grep -q warden:enrolment", seconds=60)
    host.run("virsh -q start db01")
    refused = host.run(f"runuser -u vmw-db01 -- head -c1 {NODE}", check=False)
    assert "Permission denied" in refused.stderr
    host.run("virsh -q destroy db01 && virsh -q undefine db01")


class TestRefusals:
    def test_a_wrong_key(self, host: Host) -> None:
        host.put("/etc/virt-warden/keys/wrong", "wrong", 0o400)
        say(host, key='key.file = "/etc/virt-warden/keys/wrong"')
        define(host)
        assert "wrong key" in refusal(host)

    def test_a_damaged_header(self, host: Host) -> None:
        host.run(f"cp {IMAGES}/web01.luks {IMAGES}/damaged.luks")
        host.run(f"dd if=/dev/zero of={IMAGES}/damaged.luks bs=1M count=1 conv=notrunc status=none")
        say(host, f"{IMAGES}/damaged.luks")
        define(host)
        assert "is not a valid LUKS device" in refusal(host)

    def test_a_missing_device(self, host: Host) -> None:
        say(host)
        define(host)
        host.run("lvchange -an vg0/web01")
        assert "LUKS container of disk vda (/dev/vg0/web01): it is not there" in refusal(host)
        host.run("lvchange -ay vg0/web01")

    def test_a_full_disk(self, host: Host) -> None:
        say(host)
        define(host)
        host.run("systemctl stop virt-warden")
        # Which fails, with all that there was written.
        host.run("dd if=/dev/zero of=/filler bs=1M; dd if=/dev/zero of=/filler2 bs=1", check=False)
        try:
            done = host.run("virsh -q start web01", check=False)
        finally:
            host.run("rm -f /filler /filler2; systemctl start virt-warden")
        assert done.exit != 0
        assert opened(host) == []
        # What virsh said had no room either.
        host.until("journalctl -b -o cat | grep -q 'refuses web01: .*df -h'", seconds=60)
        host.run("virsh -q start web01")

    def test_one_that_is_open_under_another_name(self, host: Host) -> None:
        say(host)
        define(host)
        for container in ("/dev/vg0/web01", f"{IMAGES}/web01.luks"):
            say(host, container)
            host.run(f"cryptsetup open --key-file {KEY_FILE} {container} theirs")
            done = host.run("virsh -q start web01", check=False)
            assert "it is already open as /dev/mapper/theirs" in done.stderr
            host.run("cryptsetup close theirs")


def test_libvirtd_is_killed_while_a_container_is_open(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.run("systemctl kill -s KILL libvirtd && systemctl start libvirtd && virsh version")
    assert opened(host) == ["vmw-web01-vda"]
    assert status(host)["breaches"] == []
    host.run("virsh -q destroy web01")
    assert opened(host) == []


def test_qemu_dies_while_libvirtd_is_gone(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    pid = host.run("cat /run/libvirt/qemu/web01.pid").stdout
    host.run("systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd")
    host.run(f"kill -9 {pid}")
    host.run("systemctl start libvirtd.socket libvirtd && virsh version")
    host.until("! dmsetup ls | grep -q vmw-web01-vda", seconds=60)


def test_a_close_that_is_busy_is_told_and_done_by_the_kernel_when_it_can(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.run(f"systemd-run -q --unit=holder -p StandardInput=file:{NODE} sleep infinity")
    host.until("systemctl is-active -q holder")
    host.run("virsh -q destroy web01")
    assert opened(host) == ["vmw-web01-vda"]
    (left,) = status(host)["breaches"]
    assert f"open /dev/vg0/web01 as {NODE}" in left
    assert "is still open, and in use" in host.run("virt-warden log web01").stdout
    host.run("systemctl stop holder")
    host.until("! dmsetup ls | grep -q vmw-web01-vda", seconds=60)
    assert status(host)["breaches"] == []
    host.run("virsh -q start web01")


HOLDER = """
import os, time
while True:
    for act in (lambda: os.pread(3, 9, 0), lambda: os.pwrite(3, b"evil", 1 << 20)):
        try:
            print(act(), flush=True)
        except OSError as error:
            print(error.errno, flush=True)
    time.sleep(0.1)
"""


def hold(host: Host) -> None:
    """Somebody without rights has the decrypted disk, as an escaped guest can hand it on."""
    host.put("/run/holder.py", HOLDER, 0o644)
    who = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    host.run(
        "rm -f /run/holder.log; systemd-run -q --unit=holder"
        f" sh -c 'exec {who} python3 /run/holder.py 3<>{NODE} >>/run/holder.log'"
    )
    host.until("test -s /run/holder.log")


def test_who_keeps_a_decrypted_disk_open_reads_nothing_of_it_after_the_stop(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.run(f"printf plaintext | dd of={NODE} conv=notrunc status=none")  # not written out yet
    hold(host)
    assert "b'plaintext'" in host.run("cat /run/holder.log").stdout
    host.run("virsh -q destroy web01")
    assert opened(host) == []
    said = host.run("virt-warden log web01").stdout
    assert "uid 65534" in said
    assert "reads and writes nothing there any more" in said
    assert status(host)["breaches"] == []
    host.run("truncate -s 0 /run/holder.log")
    host.until("test -s /run/holder.log")
    done = set(host.run("cat /run/holder.log").stdout.split())
    # It fails to read. What it writes goes nowhere from the kernel's memory.
    assert "5" in done
    assert done <= {"5", "4"}
    assert f"somebody still has {NODE} of its last run open" in refusal(host)
    host.run("systemctl stop holder")
    host.until("! dmsetup ls | grep -q vmw-web01-vda", seconds=60)
    host.run("virsh -q start web01")
    assert status(host)["breaches"] == []
    assert host.run(f"head -c 9 {NODE}").stdout == "plaintext"


def test_a_decrypted_disk_that_the_host_has_mounted_loses_nothing(host: Host) -> None:
    say(host)
    define(host)
    host.run("virsh -q start web01")
    host.run(f"mke2fs -q {NODE} && mount {NODE} /mnt && echo kept > /mnt/file")
    hold(host)
    host.run("virsh -q destroy web01")
    assert opened(host) == ["vmw-web01-vda"]
    host.run("echo more >> /mnt/file && sync -f /mnt && umount /mnt")
    host.run("virt-warden recover web01")
    assert opened(host) == []
    host.run("systemctl stop holder")
    host.run("virsh -q start web01")
    host.run(f"mount -o ro {NODE} /mnt")
    assert host.run("cat /mnt/file").stdout == "kept\nmore\n"
    host.run("umount /mnt")


def test_a_name_that_another_guest_can_write_on_its_own_disk_is_refused(host: Host) -> None:
    """web01's guest gives its disk the label by which db01's disk is named."""
    host.run("lvcreate -q -L 8M -n db01 vg0 -Wn -y; lvcreate -q -L 8M -n plain vg0 -Wn -y")
    host.run("mke2fs -q -L db01-root /dev/vg0/db01 && udevadm settle")
    label = "/dev/disk/by-label/db01-root"
    assert host.run(f"readlink -f {label}").stdout == host.run("readlink -f /dev/vg0/db01").stdout
    host.put(POLICY, "", 0o600)
    host.define(domain_xml("web01", disks=[Disk("/dev/vg0/plain", **DISK)]))
    host.until("virsh -q dumpxml web01 --inactive | grep -q warden:enrolment", seconds=60)
    host.run("virsh -q start web01")
    host.run("runuser -u vmw-web01 -- dd if=/dev/vg0/db01 count=1 status=none", check=False)
    host.run("head -c 8M /dev/vg0/db01 > /run/forged && chmod 644 /run/forged")
    host.run("runuser -u vmw-web01 -- dd if=/run/forged of=/dev/vg0/plain bs=1M status=none")
    host.run("virsh -q destroy web01; udevadm settle")
    host.run("udevadm trigger --action=change --settle $(readlink -f /dev/vg0/db01)")
    host.run("udevadm trigger --action=change --settle $(readlink -f /dev/vg0/plain)")
    print(host.run(f"readlink -f {label}; readlink -f /dev/vg0/plain").stdout)
    host.define(domain_xml("db01", disks=[Disk(label, **DISK)]))
    host.until("virsh -q dumpxml db01 --inactive | grep -q warden:enrolment", seconds=60)
    done = host.run("virsh -q start db01", check=False)
    try:
        assert "a guest may write the same" in done.stderr
        assert "/dev/mapper" in done.stderr
    finally:
        host.run("virsh -q destroy db01; virsh -q undefine db01", check=False)
        host.run("lvremove -qy vg0/db01 vg0/plain")


def test_a_power_cut_leaves_nothing_open_and_the_vm_starts_again(boot: Boot) -> None:
    host = boot("guarded", disks=["256M"])
    furnish(host)
    say(host)
    define(host)
    host.run("virsh -q start web01 && sync")
    assert opened(host) == ["vmw-web01-vda"]
    host.cut_power()
    host.power_on()
    assert opened(host) == []
    assert host.run("ls /run/udev/rules.d", check=False).stdout == ""
    (told,) = json.loads(host.run("virt-warden luks status --json").stdout)
    assert told["state"] == "locked"
    host.run("virsh -q start web01")
    assert status(host)["breaches"] == []
    host.run("virsh -q destroy web01")
    assert opened(host) == []


class TestKeys:
    @pytest.fixture(scope="class")
    def tpm(self, host: Host) -> None:
        """A TPM2 as the kernel has one: /dev/tpm0 and /dev/tpmrm0 (tpm_vtpm_proxy)."""
        host.run("modprobe tpm_vtpm_proxy && install -d /var/lib/tpm")
        command = "swtpm chardev --vtpm-proxy --tpm2 --tpmstate dir=/var/lib/tpm"
        host.run(f"systemd-run -q --unit=swtpm {command} --flags startup-clear")
        host.until("[ -e /dev/tpmrm0 ]", seconds=60)

    def test_a_credential_that_only_this_hosts_tpm2_opens(self, host: Host, tpm: None) -> None:
        host.run("install -d -m 700 /etc/credstore.encrypted")
        sealed = "/etc/credstore.encrypted/web01"
        host.run(f"systemd-creds encrypt --with-key=tpm2 {KEY_FILE} {sealed} --name=web01")
        say(host, key=f'key.credential = "{sealed}"')
        define(host)
        host.run("virsh -q start web01")
        assert opened(host) == ["vmw-web01-vda"]

    def test_a_container_that_clevis_bound_to_the_tpm2(self, host: Host, tpm: None) -> None:
        container = f"{IMAGES}/tpm.luks"
        host.run(f"truncate -s 32M {container}")
        format_container(host, container)
        pcrs = """'{"pcr_bank": "sha256", "pcr_ids": "7"}'"""
        host.run(f"clevis luks bind -y -k {KEY_FILE} -d {container} tpm2 {pcrs}")
        say(host, container, 'key.clevis = "header"')
        define(host)
        host.run("virsh -q start web01")
        assert opened(host) == ["vmw-web01-vda"]
        host.run("virsh -q destroy web01")
        host.run("systemctl stop swtpm")
        assert "clevis does not give the key" in refusal(host)

    def test_a_container_that_clevis_bound_to_a_tang_server(self, host: Host) -> None:
        host.run("systemctl start tangd.socket")
        container = f"{IMAGES}/tang.luks"
        host.run(f"truncate -s 32M {container}")
        format_container(host, container)
        server = """'{"url": "http://localhost"}'"""
        host.run(f"clevis luks bind -y -k {KEY_FILE} -d {container} tang {server}")
        say(host, container, 'key.clevis = "header"')
        define(host)
        host.run("virsh -q start web01")
        assert opened(host) == ["vmw-web01-vda"]

    def test_a_passphrase_that_an_admin_types(self, host: Host) -> None:
        say(host, key="key.ask = 120")
        define(host)
        starting = host.begin("virsh -q start web01")
        host.until("ls /run/systemd/ask-password/ask.* >/dev/null 2>&1")
        asked = host.run("cat /run/systemd/ask-password/ask.*").stdout
        assert "Passphrase for disk vda of web01" in asked
        socket = re.search(r"^Socket=(.*)$", asked, re.MULTILINE)
        assert socket is not None
        reply = f"/lib/systemd/systemd-reply-password 1 {socket[1]}"
        host.run(reply, stdin=KEY)
        assert starting.wait().exit == 0
        assert opened(host) == ["vmw-web01-vda"]


def test_a_disk_is_adopted_on_real_dm_crypt_though_it_is_killed_halfway(boot: Boot) -> None:
    host = boot("guarded", disks=["768M"], memory_mib=2560)
    host.run("vgcreate -q vg0 /dev/vda && lvcreate -q -L 320M -n web01 vg0 -Wn -y")
    old = f"{IMAGES}/web01.img"
    host.run(f"dd if=/dev/urandom of={old} bs=1M count=256 status=none && chmod 600 {old}")
    digest = host.run(f"sha256sum {old}").stdout.split()[0]
    host.define(domain_xml("web01", disks=[Disk(old, format="raw")]))
    host.until("virsh -q dumpxml web01 --inactive | grep -q warden:enrolment", seconds=60)
    say(host)
    running = host.begin("virt-warden luks adopt web01 vda", seconds=600)
    host.until(f"[ -e {NODE} ]", seconds=600)
    host.run("pkill -9 -f 'virt-warden luks adopt'")
    assert running.wait().exit != 0
    done = host.run("virt-warden luks adopt web01 vda", seconds=600)
    assert digest in done.stdout
    assert opened(host) == []
    assert host.run("cryptsetup luksDump /dev/vg0/web01 | grep -c argon2id").stdout == "2\n"
    host.run("virsh -q start web01", seconds=600)
    found = host.run(f"head -c {256 * 2**20} {NODE} | sha256sum").stdout.split()[0]
    assert found == digest
    assert status(host)["breaches"] == []
    host.run("virsh -q destroy web01")
    host.run("virt-warden luks adopt web01 vda --remove-old")
    assert host.run(f"ls {old}", check=False).exit != 0
    assert host.denials() == []
