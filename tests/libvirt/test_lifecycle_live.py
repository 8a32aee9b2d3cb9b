# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt can do with a domain besides start and destroy, and what then holds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.install import install
from tests.host.service import Service
from tests.libvirt.snapshots import make_base_chains, snapshot
from tests.libvirt.warden import (
    ENFORCING,
    LEFT_ALONE,
    PATHS,
    Warden,
    as_user,
    set_policy,
    until,
)
from tests.libvirt.wire import plain, wire
from virtwarden.changes.accounts import ledger
from virtwarden.package.removal import remove
from virtwarden.system import users

MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"


def is_guarded(warden: Warden, name: str) -> bool:
    """Whether a domain runs, as its own user, with every promise kept."""
    standing = warden.status(name)
    return standing["breaches"] == [] and warden.qemu(name).uids[0] == standing["uid"]


def owner(path: Path) -> str:
    found = path.stat()
    return f"{found.st_uid}:{found.st_gid} {found.st_mode & 0o7777:04o}"


class TestSavedDomains:
    def test_one_that_is_saved_leaves_nothing_and_is_guarded_when_restored(
        self, warden: Warden, images: Path, bridge: str
    ) -> None:
        disk, state = qcow2(images / "web01.qcow2", mode=0o644), images / "web01.save"
        before = owner(disk)
        nic = Nic(MAC, bridge, queues=2)
        warden.started("web01", disks=[Disk(disk)], nics=[nic], vnc=Vnc())
        uid = warden.status("web01")["uid"]
        warden.libvirt.virsh("save", "web01", str(state))
        assert owner(disk) == before
        # Its memory holds its secrets.
        assert as_user("vmw-web01", lambda: os.open(state, os.O_RDONLY)) == "PermissionError"
        warden.libvirt.virsh("restore", str(state))
        assert is_guarded(warden, "web01")
        assert warden.status("web01")["uid"] == uid
        with wire(warden.libvirt, "web01", MAC, bridge) as tap:
            assert tap.passes(plain(OTHER_MAC), plain(MAC)) == [plain(MAC)]

    def test_one_that_is_saved_by_libvirt_is_guarded_at_its_next_start(
        self, warden: Warden, images: Path
    ) -> None:
        warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
        warden.libvirt.virsh("managedsave", "web01")
        warden.libvirt.start("web01")
        assert is_guarded(warden, "web01")

    def test_one_whose_policy_is_broken_keeps_what_libvirt_saved_of_it(
        self, warden: Warden
    ) -> None:
        """libvirt 11.3 deletes it where a hook fails at `restore`, and says that all is well."""
        warden.started("web01")
        warden.libvirt.virsh("managedsave", "web01")
        set_policy('mode = "strict"\n')
        assert "policy.toml:1" in warden.refusal("web01")
        assert warden.libvirt.has_saved_memory("web01")
        set_policy(ENFORCING)
        warden.libvirt.start("web01")
        assert is_guarded(warden, "web01")
        assert not warden.libvirt.has_saved_memory("web01")

    def test_one_that_was_saved_before_it_was_enrolled_is_guarded_when_restored(
        self, warden: Warden, images: Path
    ) -> None:
        disk, state = qcow2(images / "web01.qcow2"), images / "web01.save"
        set_policy(LEFT_ALONE)
        warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)]))
        warden.libvirt.start("web01")
        warden.libvirt.virsh("save", "web01", str(state))
        set_policy(ENFORCING)
        warden.libvirt.virsh("restore", str(state))
        assert is_guarded(warden, "web01")
        assert disk.owner() == "vmw-web01"

    def test_one_that_would_be_refused_is_not_restored_either(
        self, warden: Warden, images: Path
    ) -> None:
        state = images / "web01.save"
        set_policy(LEFT_ALONE)
        warden.libvirt.define(domain_xml("web01", vnc=Vnc(listen="0.0.0.0")))  # noqa: S104
        warden.libvirt.start("web01")
        warden.libvirt.virsh("save", "web01", str(state))
        set_policy(ENFORCING)
        done = warden.libvirt.virsh("restore", str(state), check=False)
        assert "virt-warden refuses web01: " in done.stderr
        assert "VNC would listen on" in done.stderr


def test_a_guest_that_pauses_and_resets_stays_guarded(
    warden: Warden, images: Path, bridge: str
) -> None:
    nic = Nic(MAC, bridge, queues=2)
    qemu = warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))], nics=[nic])
    for act in ("suspend", "resume", "reset"):
        warden.libvirt.virsh(act, "web01")
        assert is_guarded(warden, "web01")
    assert warden.qemu("web01").pid == qemu.pid
    with wire(warden.libvirt, "web01", MAC, bridge) as tap:
        assert tap.passes(plain(OTHER_MAC), plain(MAC)) == [plain(MAC)]


@pytest.fixture
def plugging(warden: Warden, images: Path) -> None:
    """Sandboxed or not, QEMU may reach what comes into the test's directory while it runs."""
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')


@pytest.mark.usefixtures("plugging")
class TestSnapshots:
    def test_an_overlay_is_the_vms_own_and_the_disk_is_given_back(
        self, warden: Warden, images: Path
    ) -> None:
        disk, overlay = qcow2(images / "web01.qcow2", mode=0o640), images / "overlay.qcow2"
        os.chown(disk, 1234, 5678)
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        warden.started("other")
        warden.overlay("web01", overlay)
        for file in (disk, overlay):
            assert as_user("vmw-other", lambda f=file: os.open(f, os.O_RDONLY)) == "PermissionError"  # type: ignore[misc]
        assert is_guarded(warden, "web01")
        warden.libvirt.destroy("web01")
        assert owner(disk) == before
        # libvirt made it in the VM's name, and knows no former owner.
        assert overlay.owner() == "vmw-web01"
        assert overlay.stat().st_mode & 0o077 == 0

    def test_the_next_start_needs_no_enrolment_that_knows_the_overlay(
        self, warden: Warden, images: Path
    ) -> None:
        disk, overlay = qcow2(images / "web01.qcow2"), images / "overlay.qcow2"
        warden.started("web01", disks=[Disk(disk)])
        warden.overlay("web01", overlay)
        warden.libvirt.destroy("web01")
        warden.libvirt.start("web01")
        assert is_guarded(warden, "web01")
        warden.libvirt.destroy("web01")
        assert f"is based on {disk}" in warden.command("enrol", "web01").stdout
        warden.libvirt.start("web01")
        assert is_guarded(warden, "web01")

    def test_an_overlay_is_committed_into_the_vms_own_disk(
        self, warden: Warden, images: Path
    ) -> None:
        disk, overlay = qcow2(images / "web01.qcow2", mode=0o644), images / "overlay.qcow2"
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        warden.overlay("web01", overlay)
        warden.libvirt.virsh("blockcommit", "web01", "vda", "--active", "--pivot", "--wait")
        assert is_guarded(warden, "web01")
        assert warden.libvirt.xml("web01").count(str(overlay)) == 0
        warden.libvirt.destroy("web01")
        assert owner(disk) == before
        warden.libvirt.start("web01")
        assert is_guarded(warden, "web01")

    def test_a_base_that_others_read_is_not_committed_into(
        self, warden: Warden, images: Path
    ) -> None:
        base = qcow2(images / "base.qcow2")
        for name in ("web01", "db01"):
            warden.started(name, disks=[Disk(qcow2(images / f"{name}.qcow2", backing=base))])
        content, mode = base.read_bytes(), owner(base)
        commit = ("blockcommit", "web01", "vda", "--active", "--pivot", "--wait")
        assert warden.libvirt.virsh(*commit, check=False).returncode != 0
        assert base.read_bytes() == content
        assert owner(base) == mode
        assert is_guarded(warden, "web01")
        assert is_guarded(warden, "db01")


@pytest.mark.usefixtures("plugging")
class TestHotPlug:
    """libvirt calls no hook for it: what holds is what libvirt's own label gives."""

    def attach(self, warden: Warden, disk: Path, *, check: bool = True) -> str:
        options = ("vdb", "--driver", "qemu", "--subdriver", "qcow2", "--live")
        done = warden.libvirt.virsh("attach-disk", "web01", str(disk), *options, check=check)
        return done.stderr

    def test_a_disk_is_the_vms_alone_and_given_back(self, warden: Warden, images: Path) -> None:
        disk = qcow2(images / "more.qcow2", mode=0o600)
        before = owner(disk)
        warden.started("web01")
        warden.started("other")
        self.attach(warden, disk)
        assert disk.owner() == "vmw-web01"
        assert as_user("vmw-other", lambda: os.open(disk, os.O_RDONLY)) == "PermissionError"
        assert is_guarded(warden, "web01")
        warden.libvirt.destroy("web01")
        assert owner(disk) == before

    def test_a_disk_that_others_may_read_stays_so_and_is_told_of(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qcow2(images / "more.qcow2", mode=0o644)
        warden.started("web01")
        self.attach(warden, disk)
        assert f"{disk} is open to everyone" in warden.status("web01")["breaches"][0]

    def test_another_vms_disk_is_refused_and_stays_the_others(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qcow2(images / "db01.qcow2")
        warden.started("db01", disks=[Disk(disk)])
        warden.started("web01")
        assert self.attach(warden, disk, check=False) != ""
        assert disk.owner() == "vmw-db01"
        assert is_guarded(warden, "db01")
        assert is_guarded(warden, "web01")

    def test_a_hot_plugged_disk_is_refused_to_another_start(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qcow2(images / "more.qcow2")
        warden.started("web01")
        self.attach(warden, disk)
        warden.libvirt.define(domain_xml("db01", disks=[Disk(disk)]))
        said = warden.command("enrol", "db01", check=False).stderr
        assert "a VM's user owns it" in said
        confirmed = domain_xml("db01", disks=[Disk(disk)]).replace(
            "<target", "<backingStore/><target", 1
        )
        warden.libvirt.define(confirmed)
        warden.command("enrol", "db01")
        assert "belongs to the user of another running VM" in warden.refusal("db01")
        assert disk.owner() == "vmw-web01"

    def test_a_nic_without_a_filter_is_told_of(self, warden: Warden, bridge: str) -> None:
        warden.started("web01")
        options = ("bridge", bridge, "--mac", MAC, "--model", "virtio", "--live")
        warden.libvirt.virsh("attach-interface", "web01", *options)
        assert "network: nft knows no chain" in warden.status("web01")["breaches"][0]

    def test_a_medium_that_libvirt_gave_to_the_vms_user_is_told_of_and_given_to_nobody_else(
        self, warden: Warden, images: Path
    ) -> None:
        """libvirt never takes back what is only read, since others might be reading it."""
        first, second = (raw(images / f"{name}.iso", mode=0o444) for name in ("one", "two"))
        drive = Disk(first, target="sda", format="raw", readonly=True, device="cdrom")
        warden.started("web01", disks=[drive])
        change = ("change-media", "web01", "sda", "--live")
        warden.libvirt.virsh(*change, str(second), "--update")
        breach = f"{second}, which VMs share, belongs to a VM's user"
        assert breach in " ".join(warden.status("web01")["breaches"])
        warden.libvirt.virsh(*change, "--eject", "--force")
        assert is_guarded(warden, "web01")
        warden.enrolled("db01", disks=[replace(drive, path=second)])
        line = warden.refusal("db01")
        assert "it belongs to a VM's user" in line
        assert f"then: chown root: {second}" in line
        os.chown(second, 0, 0)
        warden.libvirt.start("db01")
        assert is_guarded(warden, "db01")
        assert as_user("vmw-web01", lambda: os.open(second, os.O_RDONLY)) == "PermissionError"
        warden.libvirt.destroy("db01")
        assert owner(second).startswith("0:0")


FIRMWARE = """<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>"""


def test_an_nvram_file_that_libvirt_makes_is_the_vms_alone_and_goes_with_the_domain(
    warden: Warden,
) -> None:
    nvram = PATHS.libvirt_state / "nvram" / "web01_VARS.fd"
    xml = domain_xml("web01", machine="q35").replace("</os>", f"{FIRMWARE}</os>")
    warden.libvirt.define(xml)
    warden.command("enrol", "web01")
    warden.started("other")
    for _ in range(2):  # libvirt makes it at the first start
        warden.libvirt.start("web01")
        assert nvram.owner() == "vmw-web01"
        assert as_user("vmw-other", lambda: os.open(nvram, os.O_RDONLY)) == "PermissionError"
        assert is_guarded(warden, "web01")
        warden.libvirt.destroy("web01")
        # libvirt makes it in the name of its own user, and then gives it to the domain's.
        assert nvram.owner() == "libvirt-qemu"
        assert nvram.stat().st_mode & 0o077 == 0
    warden.libvirt.virsh("undefine", "web01", "--nvram")
    assert not nvram.exists()


# libvirt 9 and 11
CHANNELS = (PATHS.libvirt_state / "channel" / "target", PATHS.libvirt_run / "channel")


def libvirts(place: Path) -> set[Path]:
    """The directories below a place that libvirt's own QEMU user may write."""
    found = [place, *place.rglob("*/")] if place.is_dir() else []
    return {path for path in found if path.owner() == "libvirt-qemu"}


def test_nobody_but_root_swaps_what_is_in_libvirts_own_directories(warden: Warden) -> None:
    """An escaped VM without virt-warden is libvirt-qemu; root follows names there, and chowns."""
    state = PATHS.libvirt_state
    nvram = state / "nvram"
    (channels,) = [place for place in CHANNELS if place.is_dir()]

    def attacks() -> set[str]:
        acts = (
            lambda: (nvram / "web01_VARS.fd").rename(nvram / "mine"),
            lambda: nvram.rename(state / "mine"),
            lambda: (state / "domain-999-web01").symlink_to("/etc"),
            lambda: (nvram / "db01_VARS.fd").symlink_to("/etc/shadow"),
            # libvirtd believes the XML in these.
            lambda: (state / "save" / "db01.save").rename(state / "save" / "mine"),
            lambda: (state / "snapshot" / "db01").symlink_to("/tmp"),
            lambda: (state / "checkpoint" / "db01").symlink_to("/tmp"),
            # It opens or gives away names in these.
            lambda: (state / "dump" / "db01").symlink_to("/etc/shadow"),
            lambda: (state / "ram" / "1-db01").symlink_to("/etc"),
            lambda: channels.rename(channels.with_name("mine")),
            lambda: (channels / "1-db01").symlink_to("/etc"),
        )
        return {as_user("libvirt-qemu", act) for act in acts}

    warden.started("db01")
    warden.libvirt.virsh("managedsave", "db01")
    xml = domain_xml("web01", machine="q35").replace("</os>", f"{FIRMWARE}</os>")
    warden.libvirt.define(xml)
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert libvirts(state) == set()
    assert libvirts(PATHS.libvirt_cache) | libvirts(channels) == set()
    assert attacks() == {"PermissionError"}
    warden.libvirt.restart()
    assert attacks() == {"PermissionError"}
    assert is_guarded(warden, "web01")


CHANNEL = "<channel type='unix'><target type='virtio' name='{}'/></channel>"


def sockets_of(warden: Warden, name: str) -> list[Path]:
    """libvirt's sockets for a running domain: of QEMU's monitor and of its channels."""
    number = warden.libvirt.virsh("domid", name).stdout.strip()
    places = (
        (PATHS.libvirt_state, f"domain-{number}-*/*.sock"),
        (PATHS.libvirt_state, f"channel/target/domain-{number}-*/*"),
        (PATHS.libvirt_run, f"channel/{number}-*/*"),
    )
    return [path for place, names in places for path in place.glob(names)]


def test_a_vms_user_leads_libvirt_to_no_other_vms_sockets(
    warden: Warden, service: Service, tmp_path: Path
) -> None:
    """libvirt, as root, would follow a symlink to another QEMU's monitor when it starts again."""
    for name in ("web01", "web02"):
        warden.started(name, extra_devices=CHANNEL.format("org.qemu.guest_agent.0"))
    attached = tmp_path / "channel.xml"
    attached.write_text(CHANNEL.format("org.example.attached"))
    warden.libvirt.virsh("attach-device", "web01", str(attached))
    own, others = sockets_of(warden, "web01"), sockets_of(warden, "web02")
    assert len(own) == 3
    until(lambda: {socket.parent.owner() for socket in own} == {"root"})

    def attacks() -> set[str]:
        acts = [
            act
            for socket in own
            for act in (
                lambda socket=socket: socket.rename(f"{socket}.kept"),
                socket.unlink,
                lambda socket=socket: (socket.parent / "a").symlink_to(others[0]),
                lambda socket=socket: socket.parent.chmod(0o777),
            )
        ]
        return {as_user("vmw-web01", act) for act in acts}

    assert attacks() == {"PermissionError"}
    warden.libvirt.restart()
    assert attacks() == {"PermissionError"}
    for name in ("web01", "web02"):
        asked = warden.libvirt.virsh("qemu-monitor-command", name, '{"execute":"query-name"}')
        assert f'"name":"{name}"' in asked.stdout
        assert is_guarded(warden, name)


_IN_ITS_WAY = {
    "libvirt 9's channels": PATHS.libvirt_state / "channel/target/domain-{}-web01",
    "libvirt 11's channels": PATHS.libvirt_run / "channel/{}-web01",
    "its memory": PATHS.libvirt_state / "ram/{}-web01",
}


@pytest.mark.parametrize("place", _IN_ITS_WAY)
def test_libvirt_gives_a_vms_user_no_directory_that_another_put_in_its_way(
    warden: Warden, tmp_path: Path, place: str
) -> None:
    """It follows a symlink there. Its user is that of all VMs without virt-warden."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    file = "<memoryBacking><source type='file'/></memoryBacking>"
    channel = CHANNEL.format("org.qemu.guest_agent.0")
    warden.enrolled("web01", extra_devices=channel, extra=file)
    # It gives its directories to its own user, and counts from one again.
    warden.libvirt.restart()
    number = 1
    link = Path(str(_IN_ITS_WAY[place]).format(number))
    if not link.parent.exists():
        pytest.skip("this libvirt has them elsewhere")
    tmp_path.chmod(0o711)
    assert as_user("libvirt-qemu", lambda: link.symlink_to(victim)) == ""

    warden.libvirt.start("web01")

    assert warden.libvirt.virsh("domid", "web01").stdout.strip() == str(number)
    assert owner(victim) == "0:0 0755"
    assert is_guarded(warden, "web01")
    later = link.with_name(link.name.replace(str(number), "99"))
    assert as_user("libvirt-qemu", lambda: later.symlink_to(victim)) == "PermissionError"


def test_what_a_crash_left_under_a_vms_name_is_not_followed(warden: Warden, tmp_path: Path) -> None:
    """libvirt writes QEMU's master key there, as root, and gives it to the VM's user."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    warden.enrolled("web01")
    number = _next_id(warden)
    left = PATHS.libvirt_state / f"domain-{number}-web01"
    left.mkdir()
    (left / "master-key.aes").symlink_to(victim)

    warden.libvirt.start("web01")

    assert warden.libvirt.virsh("domid", "web01").stdout.strip() == str(number)
    assert victim.read_text() == "untouched"
    assert victim.owner() == "root"
    assert is_guarded(warden, "web01")


def _next_id(warden: Warden) -> int:
    """The id that libvirt gives to the next domain that starts."""
    warden.started("before")
    number = int(warden.libvirt.virsh("domid", "before").stdout)
    warden.libvirt.destroy("before")
    return number + 1


def test_what_a_vms_user_put_into_libvirts_directory_before_is_told_of(warden: Warden) -> None:
    warden.started("web01")
    (monitor,) = sockets_of(warden, "web01")
    link = monitor.with_name("a")
    link.symlink_to(monitor)
    (breach,) = warden.status("web01")["breaches"]
    assert f"{link} is a symlink, which libvirt would follow" in breach


def test_a_domain_without_virt_warden_starts_in_libvirts_directories_all_the_same(
    warden: Warden, images: Path
) -> None:
    warden.started("web01")
    set_policy('managed = ["web01"]\n')
    channel = (
        "<controller type='virtio-serial'/><channel type='unix'>"
        "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    )
    memory = "<memoryBacking><source type='file'/></memoryBacking>"
    disk = Disk(qcow2(images / "plain.qcow2"))
    xml = domain_xml(
        "plain", machine="q35", disks=[disk], extra_devices=channel, extra=memory
    ).replace("</os>", f"{FIRMWARE}</os>")
    warden.libvirt.define(xml)
    nvram = PATHS.libvirt_state / "nvram" / "plain_VARS.fd"
    for _ in range(2):  # libvirt makes its NVRAM file at the first start
        warden.libvirt.start("plain")
        assert nvram.owner() == "libvirt-qemu"
        warden.libvirt.virsh("managedsave", "plain")
        warden.libvirt.start("plain")
        warden.libvirt.virsh("dump", "plain", str(images / "dump"), "--memory-only")
        warden.libvirt.virsh("screenshot", "plain", str(images / "screen.ppm"), check=False)
        warden.libvirt.virsh("qemu-monitor-command", "plain", "--hmp", "info status")
        warden.libvirt.destroy("plain")
    warden.libvirt.virsh("undefine", "plain", "--nvram")


def test_a_renamed_domain_keeps_its_user(warden: Warden, images: Path) -> None:
    disk = qcow2(images / "web01.qcow2")
    warden.started("web01", disks=[Disk(disk)])
    uid = warden.status("web01")["uid"]
    warden.libvirt.destroy("web01")
    warden.libvirt.virsh("domrename", "web01", "shop")
    warden.libvirt.start("shop")
    assert is_guarded(warden, "shop")
    assert warden.status("shop")["uid"] == uid
    warden.libvirt.destroy("shop")
    assert disk.owner() == "root"


def test_a_new_domain_of_a_renamed_ones_name_gets_a_user_of_its_own(warden: Warden) -> None:
    warden.started("web01")
    uid = warden.status("web01")["uid"]
    warden.libvirt.destroy("web01")
    warden.libvirt.virsh("domrename", "web01", "shop")
    warden.started("web01", uuid="0a0b0c0d-0000-4000-8000-000000000001")
    assert warden.status("web01")["user"] == "vmw-web01-0a0b0c0d"
    assert warden.status("web01")["uid"] != uid


class TestAtOnce:
    def virsh(self, warden: Warden, act: str, names: Sequence[str]) -> dict[str, str]:
        """Do it to all domains at once; what was said of those that it failed for."""
        command = ("virsh", "-q", "-c", "qemu:///system", act)
        running = {
            name: subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True)
            for name in names
        }
        said = {name: process.communicate(timeout=100)[1] for name, process in running.items()}
        return {name: said[name] for name, process in running.items() if process.returncode}

    def test_twelve_first_starts_give_twelve_guarded_vms_and_leave_nothing(
        self, warden: Warden, images: Path, bridge: str
    ) -> None:
        make_base_chains()
        base = qcow2(images / "base.qcow2")
        names = [f"crowd{number:02}" for number in range(12)]
        for number, name in enumerate(names):
            disk = Disk(qcow2(images / f"{name}.qcow2", backing=base))
            nic = Nic(f"52:54:00:00:01:{number:02x}", bridge)
            warden.libvirt.define(domain_xml(name, disks=[disk], nics=[nic], vnc=Vnc()))
        warden.command("enrol", "--all")
        before = snapshot([images])
        assert self.virsh(warden, "start", names) == {}
        assert warden.command("status", check=False).returncode == 0
        assert len({warden.qemu(name).uids[0] for name in names}) == len(names)
        assert self.virsh(warden, "destroy", names) == {}
        after = snapshot([images])
        for notes in (PATHS.claims, PATHS.filters, PATHS.shared):
            assert list(notes.iterdir()) == []
        for found in (before, after):
            for name in ("passwd", "group", "shadow", "gshadow"):
                del found[f"/etc/{name}"]
        assert after == before

    def test_two_that_want_one_user_do_not_share_it(self, warden: Warden) -> None:
        """One by its name, the other by its name and UUID; neither has started before."""
        uuids = {
            "twin-12345678": "99999999-0000-4000-8000-000000000001",
            "TWIN": "12345678-0000-4000-8000-000000000001",
        }
        for name, uuid in uuids.items():
            warden.enrolled(name, uuid=uuid)
            assert "vmw-twin-12345678:" in warden.libvirt.xml(name)
        with ledger(PATHS).locked():
            starting = [
                subprocess.Popen(
                    ["virsh", "-q", "-c", "qemu:///system", "start", name], stderr=subprocess.PIPE
                )
                for name in uuids
            ]
            # Then both have been reviewed, and wait for a uid.
            journals = [PATHS.domain_state(u) / "enrolment.journal" for u in uuids.values()]
            until(lambda: all(journal.exists() for journal in journals))
        failures = [
            name
            for name, process in zip(uuids, starting, strict=True)
            if b"virt-warden refuses" in process.communicate(timeout=60)[1]
        ]
        (refused,) = failures
        (running,) = set(uuids) - {refused}
        assert is_guarded(warden, running)
        assert f"virt-warden enrol {refused}" in warden.refusal(refused)
        warden.command("enrol", refused)
        warden.libvirt.start(refused)
        assert is_guarded(warden, refused)
        assert warden.status(refused)["uid"] != warden.status(running)["uid"]


def test_a_uid_is_not_given_again_after_unenrolment(warden: Warden) -> None:
    given = []
    for _ in range(2):
        warden.started("web01")
        given.append(warden.status("web01")["uid"])
        warden.libvirt.destroy("web01")
        warden.command("unenrol", "web01")
        assert users.account("vmw-web01") is None
    assert given[1] > given[0]


def test_a_new_domain_does_not_get_what_a_dead_one_left(warden: Warden, images: Path) -> None:
    warden.started("dead")
    left = images / "left"
    left.touch(mode=0o600)
    uid = warden.status("dead")["uid"]
    os.chown(left, uid, uid)
    warden.libvirt.destroy("dead")
    warden.command("unenrol", "dead")
    warden.libvirt.undefine("dead")
    warden.started("dead", uuid="0a0b0c0d-0000-4000-8000-000000000002")
    assert as_user("vmw-dead", lambda: os.open(left, os.O_RDONLY)) == "PermissionError"


@pytest.mark.parametrize("act", ["shutdown", "destroy"])
def test_a_guest_that_ends_leaves_nothing(warden: Warden, images: Path, act: str) -> None:
    disk = qcow2(images / "web01.qcow2", mode=0o644)
    before = owner(disk)
    warden.started("web01", disks=[Disk(disk)])
    uuid = warden.status("web01")["uuid"]
    if act == "shutdown":
        warden.libvirt.virsh("qemu-monitor-command", "web01", '{"execute": "quit"}', check=False)
    else:
        warden.libvirt.virsh("destroy", "web01", "--graceful")
    warden.await_release(uuid)
    assert owner(disk) == before


def test_libvirts_directories_are_its_own_again_after_removal(warden: Warden) -> None:
    state = PATHS.libvirt_state
    warden.libvirt.restart()
    before = {path: owner(path) for path in [state, *state.rglob("*/")]}
    warden.started("web01")
    assert owner(state / "save").startswith("0:")
    warden.libvirt.destroy("web01")
    try:
        assert remove(PATHS, lambda _: None, lambda _: None)
        assert {path: owner(path) for path in before} == before
    finally:
        install()
