# SPDX-License-Identifier: GPL-2.0-or-later
"""What the policy says holds for real starts, broken policies and forged ones included."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.syslog import Syslog
from tests.libvirt.warden import (
    ENFORCING,
    LEFT_ALONE,
    PATHS,
    POLICY,
    Warden,
    damaged_authority,
    set_policy,
)
from tests.libvirt.wire import plain, wire
from virtwarden.system import users

BROKEN = 'managed = ["*"]\nmode = "enforcing"\n[network]\nbackend = "iptables"\n'
HOOK = "/etc/libvirt/hooks/qemu"
MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"


class TestBrokenPolicy:
    def test_refuses_a_managed_start_with_its_line_until_it_is_mended(self, warden: Warden) -> None:
        warden.enrolled("web01")
        set_policy(BROKEN)
        line = warden.refusal("web01")
        assert f"{POLICY}:4: network.backend" in line
        assert "allowed: " in line
        set_policy(ENFORCING)
        warden.libvirt.start("web01")

    def test_touches_no_running_vm_and_its_stop_undoes_all(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qcow2(images / "web01.qcow2")
        qemu = warden.started("web01", disks=[Disk(disk)])
        uuid = warden.status("web01")["uuid"]
        set_policy(BROKEN)
        warden.libvirt.kill()
        warden.libvirt.restart()
        assert warden.qemu("web01") == qemu
        warden.libvirt.destroy("web01")
        assert disk.owner() == "root"
        assert not (PATHS.domain_state(uuid) / "run.journal").exists()

    def test_hides_no_running_vm_from_the_status(self, warden: Warden) -> None:
        qemu = warden.started("web01")
        set_policy(BROKEN)
        said = subprocess.run(
            ["virt-warden", "status"], capture_output=True, text=True, check=False
        )
        assert said.returncode == 1
        assert f"{POLICY}:4: network.backend" in said.stderr
        _, web01, *_ = said.stdout.splitlines()
        assert web01.split()[:3] == ["web01", "running", "enforcing"]
        assert web01.split()[-2:] == [str(qemu.pid), "all"]

    def test_lets_those_start_whom_the_last_good_one_left_alone(
        self, warden: Warden, syslog: Syslog
    ) -> None:
        set_policy('managed = ["*", "!theirs"]\n')
        warden.enrolled("web01")
        warden.libvirt.define(domain_xml("theirs"))
        set_policy(BROKEN)
        warden.libvirt.start("theirs")
        assert f"{POLICY}:4: network.backend" in syslog.wait_for("event=broken-policy")
        assert f"{POLICY}:4" in warden.refusal("web01")

    def test_refuses_all_where_none_was_good_since_the_boot(self, warden: Warden) -> None:
        warden.libvirt.define(domain_xml("web01"))
        set_policy(BROKEN)
        PATHS.policy_cache.unlink()
        assert f"{POLICY}:4" in warden.refusal("web01")

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda: POLICY.chmod(0o666), "others than root may write it"),
            (lambda: os.chown(POLICY, 65534, 0), "it belongs to uid 65534, not to root"),
            (lambda: POLICY.parent.chmod(0o777), "others than root may write it"),
        ],
        ids=["writable", "another's", "in a writable directory"],
    )
    def test_is_one_that_others_could_have_written(
        self, warden: Warden, spoil: Callable[[], None], reason: str
    ) -> None:
        warden.enrolled("web01")
        spoil()
        try:
            assert reason in warden.refusal("web01")
        finally:
            POLICY.parent.chmod(0o755)
        set_policy(ENFORCING)
        warden.libvirt.start("web01")


def test_a_drop_in_holds_from_the_next_start_on_and_wins(warden: Warden) -> None:
    warden.enrolled("web01", vnc=Vnc(listen="0.0.0.0"))  # noqa: S104
    warden.refusal("web01")
    drop_in = PATHS.policy_dir / "50-open.toml"
    drop_in.write_text('[[domain]]\nmatch = "web01"\nconsole.listen = ["0.0.0.0"]\n')
    try:
        warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
    finally:
        drop_in.unlink()
    assert warden.status("web01")["breaches"] == []
    warden.libvirt.destroy("web01")
    warden.refusal("web01")


class TestUnmanaged:
    def test_costs_the_reading_of_the_policy_alone(self, warden: Warden) -> None:
        """None of what guards need is even imported, from the second start after a boot on."""
        set_policy(LEFT_ALONE)
        shutil.rmtree(PATHS.run, ignore_errors=True)
        warden.libvirt.define(domain_xml("theirs"))
        xml = warden.libvirt.xml("theirs")
        for _ in range(2):
            told = run(
                "/usr/bin/python3",
                "-I",
                "-X",
                "importtime",
                HOOK,
                "theirs",
                "prepare",
                "begin",
                "-",
                stdin=xml,
            ).stderr
        imported = {line.rpartition("|")[2].strip() for line in told.splitlines()}
        assert "virtwarden.policy.cache" in imported
        for dear in ("lxml", "sh", "tomllib", "jsonschema", "virtwarden.lifecycle", "libvirt"):
            assert dear not in imported

    def test_runs_as_libvirt_runs_it_and_nothing_is_done_for_it(
        self, warden: Warden, images: Path, bridge: str, syslog: Syslog
    ) -> None:
        set_policy(LEFT_ALONE)
        disk = qcow2(images / "theirs.qcow2", mode=0o644)
        nic = Nic(MAC, bridge, queues=2)
        warden.libvirt.define(domain_xml("theirs", disks=[Disk(disk)], nics=[nic], vnc=Vnc()))
        warden.libvirt.start("theirs")
        uuid = warden.status("theirs")["uuid"]
        assert disk.owner() == "libvirt-qemu"
        assert disk.stat().st_mode & 0o777 == 0o644
        with wire(warden.libvirt, "theirs", MAC, bridge) as tap:
            assert tap.passes(plain(OTHER_MAC)) == [plain(OTHER_MAC)]
        assert not PATHS.cell(uuid).exists()
        assert not PATHS.domain_state(uuid).exists()
        assert syslog.lines() == []


class TestPermissive:
    POLICY = f'mode = "permissive"\n{ENFORCING}'

    def test_starts_what_enforcing_would_refuse_and_says_each_reason(
        self, warden: Warden, syslog: Syslog
    ) -> None:
        spice = "<graphics type='spice' autoport='yes' listen='::'/>"
        user_net = f"<interface type='user'><mac address='{MAC}'/></interface>"
        warden.enrolled("web01", extra_devices=spice + user_net)
        warden.refusal("web01")
        set_policy(self.POLICY)
        syslog.clear()
        warden.libvirt.start("web01")
        told = [line for line in syslog.lines() if "event=would-refuse" in line]
        assert any("SPICE would listen on ::" in line for line in told)
        assert any("nothing can filter what it sends" in line for line in told)

    def test_guards_what_it_can(
        self, warden: Warden, images: Path, bridge: str, syslog: Syslog
    ) -> None:
        set_policy(self.POLICY)
        disk = qcow2(images / "web01.qcow2", mode=0o644)
        nic = Nic(MAC, bridge, queues=2)
        vnc = Vnc(listen="0.0.0.0")  # noqa: S104
        warden.started("web01", disks=[Disk(disk)], nics=[nic], vnc=vnc)
        assert "VNC would listen on" in syslog.wait_for("event=would-refuse")
        assert (disk.owner(), disk.stat().st_mode & 0o777) == ("vmw-web01", 0o600)
        with wire(warden.libvirt, "web01", MAC, bridge) as tap:
            assert tap.passes(plain(OTHER_MAC), plain(MAC)) == [plain(MAC)]
        warden.libvirt.destroy("web01")
        assert (disk.owner(), disk.stat().st_mode & 0o777) == ("root", 0o644)

    def test_starts_though_something_cannot_be_done(self, warden: Warden, syslog: Syslog) -> None:
        """Without an authority there is no certificate, and so no TLS."""
        set_policy(self.POLICY)
        warden.enrolled("web01", vnc=Vnc())
        with damaged_authority():
            warden.libvirt.start("web01")
        assert "domain=web01" in syslog.wait_for("event=would-refuse")
        assert "not VeNCrypt alone" in syslog.wait_for("event=breach")

    def test_starts_one_that_is_not_enrolled(self, warden: Warden, syslog: Syslog) -> None:
        set_policy(self.POLICY)
        warden.libvirt.define(domain_xml("web01"))
        warden.libvirt.start("web01")
        assert "it is not enrolled" in syslog.wait_for("event=would-refuse")


class TestDisabled:
    def test_guards_nothing_yet_an_enrolled_domain_starts(
        self, warden: Warden, images: Path, bridge: str
    ) -> None:
        set_policy(f'mode = "disabled"\n{ENFORCING}')
        disk = qcow2(images / "web01.qcow2", mode=0o644)
        nic = Nic(MAC, bridge, queues=2)
        qemu = warden.started("web01", disks=[Disk(disk)], nics=[nic], vnc=Vnc())
        assert qemu.umask != 0o077
        assert not any("tls-creds" in word for word in qemu.arguments)
        assert disk.stat().st_mode & 0o777 == 0o644
        with wire(warden.libvirt, "web01", MAC, bridge) as tap:
            assert tap.passes(plain(OTHER_MAC)) == [plain(OTHER_MAC)]
        standing = warden.status("web01")
        assert (standing["mode"], standing["guards"], standing["breaches"]) == ("disabled", [], [])

    def test_leaves_alone_what_is_not_enrolled(self, warden: Warden) -> None:
        set_policy(f'mode = "disabled"\n{ENFORCING}')
        warden.libvirt.define(domain_xml("bare"))
        warden.libvirt.start("bare")
        assert users.account("vmw-bare") is None


class TestForgedCache:
    """Someone leaves a compiled policy, by which nothing is managed, where ours is kept."""

    @pytest.fixture
    def forged(self, warden: Warden) -> Iterator[Path]:
        """A cache that would be believed for the policy of now, were it root's own."""
        warden.enrolled("web01", vnc=Vnc(listen="0.0.0.0"))  # noqa: S104
        warden.refusal("web01")
        honest = PATHS.policy_cache.read_text()
        file = Path("/tmp/forged.json")
        file.write_text(honest.replace('["*"]', "[]"))
        assert file.read_text() != honest
        yield file
        file.unlink()

    def test_is_believed_where_root_wrote_it(self, warden: Warden, forged: Path) -> None:
        """So that the tests below are about who wrote it."""
        shutil.copy(forged, PATHS.policy_cache)
        PATHS.policy_cache.chmod(0o600)
        done = warden.libvirt.virsh("start", "web01", check=False)
        assert "virt-warden refuses web01: VNC" not in done.stderr

    def test_of_another_user_is_ignored(self, warden: Warden, forged: Path) -> None:
        shutil.copy(forged, PATHS.policy_cache)
        PATHS.policy_cache.chmod(0o600)
        os.chown(PATHS.policy_cache, 65534, 65534)
        assert "VNC would listen on" in warden.refusal("web01")

    def test_that_others_may_write_is_ignored(self, warden: Warden, forged: Path) -> None:
        shutil.copy(forged, PATHS.policy_cache)
        PATHS.policy_cache.chmod(0o666)
        assert "VNC would listen on" in warden.refusal("web01")

    def test_behind_a_symlink_is_ignored(self, warden: Warden, forged: Path) -> None:
        PATHS.policy_cache.unlink()
        PATHS.policy_cache.symlink_to(forged)
        assert "VNC would listen on" in warden.refusal("web01")
        assert not PATHS.policy_cache.is_symlink()
        assert '["*"]' not in forged.read_text()

    def test_cannot_be_put_there_by_a_vms_user(self, warden: Warden) -> None:
        warden.started("evil")
        account = users.account("vmw-evil")
        assert account is not None
        for attempt in (f"echo > {PATHS.policy_cache}", f"mv -f /tmp/x {PATHS.policy_cache}"):
            done = subprocess.run(
                ["/bin/sh", "-c", f"touch /tmp/x && {attempt}"],
                user=account.uid,
                group=account.gid,
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Permission denied" in done.stderr
