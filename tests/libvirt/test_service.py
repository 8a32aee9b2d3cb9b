# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden.service: whatever is defined comes under guard with nobody doing anything."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.service import Service
from tests.host.service import service as running_service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, Warden, as_user, set_policy
from virtwarden.changes import WriteFile, journal
from virtwarden.paths import Paths
from virtwarden.system import users

PATHS = Paths()
WRAPPER = str(PATHS.wrapper_dir / "qemu-system-x86_64")
SECONDS = 20


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_DNS, name))


def define(warden: Warden, syslog: Syslog, name: str, **parts: object) -> None:
    """Define a domain; it is enrolled when this returns."""
    warden.libvirt.define(domain_xml(name, **parts))  # type: ignore[arg-type]
    syslog.wait_for(f"event=enrolled domain={name} ", SECONDS)


def let_it_catch_up(warden: Warden, syslog: Syslog, barrier: str) -> None:
    """Wait until all events so far were seen to: libvirt sends them in order."""
    define(warden, syslog, barrier)


def count(syslog: Syslog, what: str) -> int:
    return sum(what in line for line in syslog.lines())


def test_a_domain_that_is_defined_starts_protected(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    define(warden, syslog, "web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
    warden.libvirt.start("web01")
    account = users.account("vmw-web01")
    assert account is not None
    assert set(warden.qemu("web01").uids) == {account.uid}
    assert warden.status("web01")["breaches"] == []


def in_libvirts_file(name: str) -> str:
    return (PATHS.libvirt_config / f"{name}.xml").read_text()


def test_before_libvirt_runs_its_files_are_enrolled_so_that_what_it_starts_by_itself_is_guarded(
    warden: Warden, syslog: Syslog, images: Path
) -> None:
    policy = '[[domain]]\nmatch = "folder"\nmode = "permissive"\n'
    set_policy('managed = ["*", "!other"]\n' + policy)
    shared = (
        "<filesystem type='mount' accessmode='mapped'>"
        f"<source dir='{images}'/><target dir='share'/></filesystem>"
    )
    warden.libvirt.define(domain_xml("web01", disks=[Disk(qcow2(images / "web01.qcow2"))]))
    warden.libvirt.define(domain_xml("other"))
    warden.libvirt.define(domain_xml("weak", vnc=Vnc(password="abc")))
    warden.libvirt.define(domain_xml("folder", extra_devices=shared))
    warden.libvirt.define(domain_xml("gone", disks=[Disk(images / "gone.qcow2")]))
    left = {name: in_libvirts_file(name) for name in ("other", "weak", "folder", "gone")}
    mode = (PATHS.libvirt_config / "web01.xml").stat().st_mode
    warden.libvirt.stop()
    with running_service():
        assert "<warden:enrolment" in in_libvirts_file("web01")
        assert (PATHS.libvirt_config / "web01.xml").stat().st_mode == mode
        assert {name: in_libvirts_file(name) for name in left} == left
        assert count(syslog, "event=enrolled") == 1
    warden.libvirt.restart()
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_domains_that_were_there_before_are_enrolled_running_ones_from_their_next_start_on(
    warden: Warden, syslog: Syslog
) -> None:
    set_policy(LEFT_ALONE)
    for name in ("off", "running"):
        warden.libvirt.define(domain_xml(name))
    warden.libvirt.start("running")
    set_policy(ENFORCING)
    with running_service():
        for name, holds in (("off", "now"), ("running", '"from its next start on"')):
            assert f"holds={holds}" in syslog.wait_for(f"event=enrolled domain={name} ", SECONDS)
        (breach,) = warden.status("running")["breaches"]
        assert "unguarded until its next start, for which it is enrolled" in breach
        warden.libvirt.destroy("running")
        for name in ("off", "running"):
            warden.libvirt.start(name)
            assert warden.status(name)["breaches"] == []


def test_a_definition_over_an_enrolled_domain_is_enrolled_again(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    user = warden.status("web01")["user"]
    warden.libvirt.destroy("web01")
    syslog.clear()
    define(warden, syslog, "web01", memory_mib=96, disks=[Disk(qcow2(images / "new.qcow2"))])
    warden.libvirt.start("web01")
    assert warden.status("web01")["user"] == user
    assert warden.status("web01")["breaches"] == []


def test_virsh_edit_keeps_the_enrolment_and_what_was_edited(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    for edit, left in (("s/<vcpu.*/<vcpu>2<\\/vcpu>/", 2), ("/warden:/d", 3)):
        run("env", f"EDITOR=sed -i -e '{edit}'", "virsh", "edit", "web01")
        let_it_catch_up(warden, syslog, f"barrier{left}")
        xml = warden.libvirt.xml("web01", "--inactive")
        assert "<vcpu placement='static'>2</vcpu>" in xml
        assert "<warden:emulator>/usr/bin/qemu-system-x86_64</warden:emulator>" in xml
        assert f"<emulator>{WRAPPER}</emulator>" in xml
    warden.libvirt.start("web01")


def test_a_disk_that_is_added_for_the_next_start_alone_is_made_known(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    define(warden, syslog, "web01")
    disk = qcow2(images / "vdb.qcow2")
    syslog.clear()
    options = ("--config", "--subdriver", "qcow2")
    warden.libvirt.virsh("attach-disk", "web01", str(disk), "vdb", *options)
    syslog.wait_for("event=enrolled domain=web01 ", SECONDS)
    warden.libvirt.start("web01")
    assert disk.stat().st_uid == warden.status("web01")["uid"]


def test_enrolling_does_not_make_work_for_itself(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    kept = Path("/etc/libvirt/qemu/web01.xml").stat().st_mtime_ns
    for number in range(3):
        let_it_catch_up(warden, syslog, f"barrier{number}")
    assert count(syslog, "event=enrolled domain=web01 ") == 1
    assert Path("/etc/libvirt/qemu/web01.xml").stat().st_mtime_ns == kept


def test_an_image_is_asked_only_once_what_it_is_based_on(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    """A guest that took over its QEMU can write any base's name into its own image."""
    secret = raw(images / "secret.img")
    image = qcow2(images / "evil.qcow2")
    define(warden, syslog, "evil", disks=[Disk(image)])
    qcow2(images / "forged.qcow2", backing=secret, backing_format="raw").replace(image)
    run("env", "EDITOR=sed -i -e 's/<vcpu.*/<vcpu>2<\\/vcpu>/'", "virsh", "edit", "evil")
    let_it_catch_up(warden, syslog, "barrier")
    warden.command("enrol", "evil")
    assert str(secret) not in warden.libvirt.xml("evil", "--inactive")
    warden.libvirt.virsh("start", "evil", check=False)
    assert as_user("vmw-evil", secret.read_bytes) == "PermissionError"


@pytest.mark.parametrize("lines", ["", "/<source file/"])
def test_a_disk_that_is_another_file_now_is_looked_at(
    warden: Warden, syslog: Syslog, service: Service, images: Path, lines: str
) -> None:
    """Replaced in all the XML, notes and all, or where the disk names it."""
    define(warden, syslog, "web01", disks=[Disk(qcow2(images / "old.qcow2"))])
    base = qcow2(images / "base.qcow2")
    qcow2(images / "new.qcow2", backing=base, backing_format="qcow2")
    syslog.clear()
    run("env", f"EDITOR=sed -i -e '{lines}s/old.qcow2/new.qcow2/'", "virsh", "edit", "web01")
    line = syslog.wait_for("event=enrolled domain=web01 ", SECONDS)
    assert str(base) in line
    warden.libvirt.start("web01")
    assert base.stat().st_uid == 0
    warden.libvirt.destroy("web01")


def test_an_image_that_its_own_guest_could_write_is_not_asked(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    """A snapshot's overlay, merged since, is a file that nobody has looked at; QEMU wrote it."""
    secret = raw(images / "secret.img")
    define(warden, syslog, "evil", disks=[Disk(qcow2(images / "old.qcow2"))])
    warden.libvirt.start("evil")
    forged = qcow2(images / "new.qcow2", backing=secret, backing_format="raw")
    os.chown(forged, warden.status("evil")["uid"], 0)
    syslog.clear()
    run("env", "EDITOR=sed -i -e '/<source file/s/old.qcow2/new.qcow2/'", "virsh", "edit", "evil")
    line = syslog.wait_for("event=enrolled domain=evil ", SECONDS)
    assert str(secret) not in line
    os.chown(forged, 0, 0)
    warden.libvirt.destroy("evil")
    let_it_catch_up(warden, syslog, "barrier")
    assert str(secret) not in warden.libvirt.xml("evil", "--inactive")


def test_a_domain_that_is_renamed_keeps_its_user(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    before = warden.status("web01")
    warden.libvirt.destroy("web01")
    warden.libvirt.virsh("domrename", "web01", "shop01")
    let_it_catch_up(warden, syslog, "barrier")
    assert count(syslog, "event=forgotten") == 0
    warden.libvirt.start("shop01")
    after = warden.status("shop01")
    assert (after["user"], after["uid"]) == (before["user"], before["uid"])
    assert after["breaches"] == []


def test_a_domain_that_is_undefined_leaves_nothing_but_its_spent_uid(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    first = warden.status("web01")["uid"]
    warden.libvirt.destroy("web01")
    warden.libvirt.undefine("web01")
    assert "user=vmw-web01" in syslog.wait_for("event=forgotten", SECONDS)
    assert users.account("vmw-web01") is None
    assert not PATHS.domain_state(uuid_of("web01")).exists()
    syslog.clear()
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["uid"] > first


def test_a_running_domain_that_is_undefined_is_forgotten_when_it_stops(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    warden.libvirt.virsh("undefine", "web01")
    let_it_catch_up(warden, syslog, "barrier")
    assert users.account("vmw-web01") is not None
    assert warden.status("web01")["breaches"] == []
    warden.libvirt.destroy("web01")
    syslog.wait_for("event=forgotten", SECONDS)
    assert users.account("vmw-web01") is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_happened_while_libvirt_was_away_is_made_up_for(
    warden: Warden, syslog: Syslog, service: Service, how: signal.Signals
) -> None:
    define(warden, syslog, "gone")
    define(warden, syslog, "running")
    for name in ("gone", "running"):
        warden.libvirt.start(name)
    warden.libvirt.destroy("gone")
    if how is signal.SIGKILL:
        warden.libvirt.kill()
    else:
        warden.libvirt.stop()
    syslog.wait_for("event=disconnected", SECONDS)
    syslog.clear()
    Path("/etc/libvirt/qemu/gone.xml").unlink()
    Path("/etc/libvirt/qemu/came.xml").write_text(domain_xml("came"))
    warden.libvirt.restart()
    syslog.wait_for("event=enrolled domain=came ", SECONDS)
    assert f"uuid={uuid_of('gone')}" in syslog.wait_for("event=forgotten", SECONDS)
    assert warden.status("running")["breaches"] == []
    let_it_catch_up(warden, syslog, "barrier")


def test_what_happened_while_the_service_was_away_is_made_up_for(
    warden: Warden, syslog: Syslog
) -> None:
    with running_service():
        define(warden, syslog, "gone")
        warden.libvirt.start("gone")
        warden.libvirt.destroy("gone")
    warden.libvirt.undefine("gone")
    warden.libvirt.define(domain_xml("left"))
    left_over = WriteFile(f"{PATHS.state}/left-over", "", user="")
    with journal.locked(PATHS, uuid_of("left")):
        journal.perform(PATHS, uuid_of("left"), [left_over])
    with running_service():
        syslog.wait_for("event=forgotten", SECONDS)
        syslog.wait_for("event=enrolled domain=left ", SECONDS)
        let_it_catch_up(warden, syslog, "barrier")
    assert users.account("vmw-gone") is None
    assert not Path(left_over.path).exists()


def test_a_broken_policy_is_logged_once_and_a_mended_one_holds_at_once(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    set_policy("managed = 1\n")
    warden.libvirt.define(domain_xml("web01"))
    assert "policy.toml:1: managed" in syslog.wait_for("event=broken-policy", SECONDS)
    warden.libvirt.define(domain_xml("web02"))
    set_policy(ENFORCING)
    for name in ("web01", "web02"):
        syslog.wait_for(f"event=enrolled domain={name} ", SECONDS)
    assert count(syslog, "event=broken-policy") == 1


def test_an_edit_of_managed_takes_domains_in_and_lets_them_go(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    set_policy(LEFT_ALONE)
    before = {}
    for name in ("ours", "theirs"):
        warden.libvirt.define(domain_xml(name))
        before[name] = warden.libvirt.xml(name)
    set_policy('managed = ["ours"]\n')
    syslog.wait_for("event=enrolled domain=ours ", SECONDS)
    warden.libvirt.start("ours")
    warden.libvirt.destroy("ours")
    assert warden.libvirt.xml("theirs") == before["theirs"]
    set_policy('managed = ["theirs"]\n')
    syslog.wait_for("event=enrolled domain=theirs ", SECONDS)
    syslog.wait_for("event=forgotten", SECONDS)
    assert warden.libvirt.xml("ours") == before["ours"]
    assert users.account("vmw-ours") is None
    for name in ("ours", "theirs"):
        warden.libvirt.start(name)


def test_a_domain_whose_image_is_not_there_is_logged_once_and_tried_again(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    image = images / "web01.qcow2"
    xml = domain_xml("web01", disks=[Disk(image)])
    for number in range(2):
        warden.libvirt.define(xml)
        assert str(image) in syslog.wait_for("event=not-enrolled domain=web01 ", SECONDS)
        let_it_catch_up(warden, syslog, f"barrier{number}")
    assert count(syslog, "event=not-enrolled") == 1
    qcow2(image)
    warden.libvirt.define(xml)
    syslog.wait_for("event=enrolled domain=web01 ", SECONDS)
    warden.libvirt.start("web01")


def test_a_domain_whose_password_is_easily_guessed_is_not_enrolled_until_it_is_another(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    warden.libvirt.define(domain_xml("web01", vnc=Vnc(password="P@ssw0rd")))
    said = syslog.wait_for("event=not-enrolled domain=web01 ", SECONDS)
    assert "the password of its display" in said
    assert "P@ssw0rd" not in "".join(syslog.lines())
    define(warden, syslog, "web01", vnc=Vnc(password="rT7%kq2Z"))


def test_no_start_and_no_stop_depends_on_the_service(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    warden.libvirt.start("web01")
    service.signal(signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    warden.libvirt.destroy("web01")
    assert journal.records(PATHS, uuid_of("web01")) == []
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_a_service_whose_listener_died_ends_in_order_for_systemd_to_start_it_anew(
    warden: Warden, syslog: Syslog, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_service() as service:
        (listener,) = service.children()
        os.kill(listener, signal.SIGKILL)
        assert service.wait() == 1
    syslog.wait_for("what listens to libvirt died", SECONDS)
    assert capfd.readouterr().err == ""


def test_a_second_service_is_refused(service: Service, warden: Warden) -> None:
    done = warden.command("service", check=False)
    assert done.returncode == 1
    assert "another service listens" in done.stderr


def test_a_managed_domain_that_is_unenrolled_by_hand_is_not_lost(
    warden: Warden, syslog: Syslog, service: Service
) -> None:
    define(warden, syslog, "web01")
    syslog.clear()
    said = warden.command("unenrol", "web01").stdout
    assert "still manages it: exclude it there" in said
    assert "policy.toml:1" in said
    syslog.wait_for("event=enrolled domain=web01 ", SECONDS)
