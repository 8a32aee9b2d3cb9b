# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden's commands, as an admin uses them on a host with domains of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from tests.host import network
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.libvirt import Libvirt
from tests.libvirt.snapshots import snapshot
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, POLICY, Warden, set_policy
from virtwarden import lifecycle
from virtwarden.system import users

MAC = "52:54:00:00:00:01"
WRAPPER = "/usr/lib/virt-warden/qemu-system-x86_64"


def canonical(xml: str) -> str:
    """XML in one form only: what differs in it differs in meaning."""
    parser = etree.XMLParser(remove_blank_text=True)
    return str(etree.canonicalize(etree.tostring(etree.fromstring(xml, parser)).decode()))


class TestStatus:
    def test_each_domain_is_told_of_as_it_is(self, warden: Warden) -> None:
        set_policy('managed = ["*", "!theirs"]\n')
        qemu = warden.started("running", vnc=Vnc())
        warden.enrolled("enrolled")
        for name in ("bare", "theirs"):
            warden.libvirt.define(domain_xml(name))
        warden.libvirt.start("theirs")
        done = warden.command("status", "--json")
        found = {standing["name"]: standing for standing in json.loads(done.stdout)}
        running = found.pop("running")
        account = users.account("vmw-running")
        assert account is not None
        assert running.pop("console_until") > datetime.now(UTC).date().isoformat()
        process = running.pop("process")
        assert process["uids and gids"] == str(account.uid)
        assert (process["capabilities"], process["privileges"]) == ("none", "none to gain")
        assert (process["core dumps"], process["umask"]) == ("none", "077")
        assert process["system calls"] == "filtered by seccomp (4 filters)"
        assert running == {
            "name": "running",
            "uuid": warden.libvirt.virsh("domuuid", "running").stdout.strip(),
            "state": "running",
            "mode": "enforcing",
            "enrolled": True,
            "adopted": False,
            "user": "vmw-running",
            "uid": account.uid,
            "pid": qemu.pid,
            "console_ca": str(PATHS.console_ca / "ca-cert.pem"),
            "guards": [guard.NAME for guard in lifecycle.GUARDS],
            "breaches": [],
            "withheld": [],
            "watched": False,
        }
        told = {
            name: (standing["state"], standing["mode"], standing["enrolled"], standing["guards"])
            for name, standing in found.items()
        }
        assert told == {
            "enrolled": ("off", "enforcing", True, []),
            "bare": ("off", "enforcing", False, []),
            "theirs": ("running", "not managed", False, []),
        }

    def test_the_table_tells_the_same(self, warden: Warden) -> None:
        qemu = warden.started("running")
        warden.libvirt.define(domain_xml("bare"))
        head, *rows = warden.command("status").stdout.splitlines()
        assert head.split() == ["DOMAIN", "STATE", "MODE", "USER", "UID", "PID", "GUARDS"]
        told = {row.split()[0]: row.split()[1:] for row in rows}
        uid, pid = str(qemu.uids[0]), str(qemu.pid)
        assert told["running"] == ["running", "enforcing", "vmw-running", uid, pid, "all"]
        assert told["bare"] == ["off", "enforcing", "not", "enrolled", "-", "-", "-"]

    def test_of_a_domain_that_is_named_what_holds_its_process_is_told(self, warden: Warden) -> None:
        qemu = warden.started("running")
        told = warden.command("status", "running").stdout
        assert f"running, process {qemu.pid}:" in told
        lines = [line.split("  ", 2)[1:] for line in told.splitlines() if line.startswith("  ")]
        assert ["system calls", "    filtered by seccomp (5 filters)"] in lines
        assert "process" not in warden.command("status").stdout

    def test_a_domain_that_ran_before_it_was_enrolled_is_a_breach_until_it_starts_anew(
        self, warden: Warden
    ) -> None:
        set_policy(LEFT_ALONE)
        warden.libvirt.define(domain_xml("old"))
        warden.libvirt.start("old")
        set_policy(ENFORCING)
        assert "it runs unguarded" in warden.status("old")["breaches"][0]
        said = warden.command("enrol", "old").stdout
        assert "from its next start on" in said
        assert "it runs unguarded" in warden.status("old")["breaches"][0]
        warden.libvirt.destroy("old")
        warden.libvirt.start("old")
        assert warden.status("old")["breaches"] == []

    def test_no_other_user_than_root_may_ask(self, warden: Warden) -> None:
        done = subprocess.run(
            ["/usr/sbin/virt-warden", "status"],
            user="nobody",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "only root may do that" in done.stderr

    def test_a_domain_that_is_not_there_is_named(self, warden: Warden) -> None:
        done = warden.command("status", "ghost", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        fix = "see which there are: virsh list --all"
        assert done.stderr == f"virt-warden: there is no domain ghost; fix: {fix}\n"


class TestBrokenPromises:
    """Broken on a live VM, by root: `status` sees each, and sees when it is mended."""

    @pytest.fixture(scope="class")
    def live(self, libvirt: Libvirt) -> Iterator[Warden]:
        images = Path("/var/lib/libvirt/images/broken")
        images.mkdir(mode=0o711)
        set_policy(ENFORCING)
        warden = Warden(libvirt)
        base = qcow2(images / "base.qcow2")
        disk = qcow2(images / "web01.qcow2", backing=base)
        with network.bridge("br-broken") as bridge:
            warden.started("web01", disks=[Disk(disk)], nics=[Nic(MAC, bridge)])
            yield warden
            libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    @pytest.fixture
    def image(self, live: Warden) -> Path:
        return Path("/var/lib/libvirt/images/broken/web01.qcow2")

    def breaches(self, live: Warden, guard: str) -> str:
        """What status says is broken; that it says so in all its ways."""
        done = live.command("status", check=False)
        assert done.returncode == 1
        (standing,) = json.loads(live.command("status", "--json", check=False).stdout)
        assert guard not in standing["guards"]
        for breach in standing["breaches"]:
            assert f"! web01: {breach}" in done.stdout
        return "; ".join(standing["breaches"])

    @pytest.fixture(autouse=True)
    def _whole_before_and_after(self, live: Warden) -> Iterator[None]:
        assert live.command("status", check=False).returncode == 0
        yield
        assert live.command("status", check=False).returncode == 0

    def test_an_image_that_is_open_to_others(self, live: Warden, image: Path) -> None:
        image.chmod(0o644)
        assert f"{image} is open to everyone" in self.breaches(live, "storage")
        image.chmod(0o600)

    def test_an_image_that_is_anothers(self, live: Warden, image: Path) -> None:
        owner = image.stat()
        os.chown(image, 0, 0)
        assert f"{image} belongs to uid 0, not to vmw-web01" in self.breaches(live, "storage")
        os.chown(image, owner.st_uid, owner.st_gid)

    def test_a_base_that_the_vms_user_could_write(self, live: Warden, image: Path) -> None:
        base = image.with_name("base.qcow2")
        run("setfacl", "-m", "u:vmw-web01:rw", str(base))
        assert f"{base}, which VMs share, can be written" in self.breaches(live, "storage")
        run("setfacl", "-m", "u:vmw-web01:r", str(base))

    def test_a_filter_that_is_gone(self, live: Warden) -> None:
        table = self.table()
        kept = run("nft", "list", "table", *table).stdout
        run("nft", "delete", "table", *table)
        assert "nft knows no chain" in self.breaches(live, "network")
        run("nft", "-f", "-", stdin=kept)

    def test_a_filter_that_lets_all_through(self, live: Warden) -> None:
        table = self.table()
        kept = run("nft", "list", "table", *table).stdout
        run("nft", "insert", "rule", *table, self.chain(), "accept")
        assert "rules that virt-warden did not put there" in self.breaches(live, "network")
        run("nft", "-f", "-", stdin=f"delete table {' '.join(table)}\n{kept}")

    def table(self) -> list[str]:
        (line,) = run("nft", "list", "tables", "netdev").stdout.splitlines()
        return line.split()[1:]

    def chain(self) -> str:
        listed = run("nft", "list", "chains", "netdev").stdout
        return next(line.split()[1] for line in listed.splitlines() if "chain vmw-" in line)


class TestExplain:
    def test_it_tells_rules_with_their_lines_and_what_a_start_would_do_and_does_nothing(
        self, warden: Warden, images: Path, bridge: str
    ) -> None:
        set_policy(f'{ENFORCING}[[domain]]\nmatch = "to*"\nnetwork.vlan_tags = "allow"\n')
        disk = qcow2(images / "told.qcow2")
        warden.enrolled("told", disks=[Disk(disk)], nics=[Nic(MAC, bridge)], vnc=Vnc())
        trees = [images, PATHS.run, PATHS.state, PATHS.libvirt_state, Path("/etc/libvirt")]
        uuid = warden.status("told")["uuid"]
        before = snapshot(trees)
        said = warden.command("explain", "told").stdout
        assert snapshot(trees) == before
        assert f"  network.vlan_tags = allow   ({POLICY}:4)" in said
        assert "  network.mac_spoofing = deny   (built-in default)" in said
        for step in (
            "create user and group vmw-told (a uid of 70000 to 99999",
            f"give {disk} to vmw-told:vmw-told, mode 0600",
            "issue a console certificate for",
            f"drop what comes from its-tap with source MAC other than {MAC}",
            f"write {PATHS.cell(uuid)}/ticket.json",
            "end every process of user vmw-told after the stop",
        ):
            assert f"  - {step}" in said

    def test_it_does_what_it_told(self, warden: Warden, images: Path) -> None:
        disk = qcow2(images / "web01.qcow2")
        warden.enrolled("web01", disks=[Disk(disk)])
        assert (
            f"give {disk} to vmw-web01:vmw-web01, mode 0600"
            in warden.command("explain", "web01").stdout
        )
        warden.libvirt.start("web01")
        assert (disk.owner(), disk.stat().st_mode & 0o777) == ("vmw-web01", 0o600)

    def test_it_tells_every_refusal_in_the_words_of_the_start(
        self, warden: Warden, images: Path
    ) -> None:
        disk = qcow2(images / "web01.qcow2")
        warden.enrolled("web01", disks=[Disk(disk)], vnc=Vnc(listen="192.0.2.1"))
        disk.unlink()
        done = warden.command("explain", "web01", check=False)
        assert done.returncode == 1
        told = [line for line in done.stdout.splitlines() if "A start is refused" in line]
        assert len(told) == 2
        assert "it is not there" in told[0]
        assert "VNC would listen on 192.0.2.1" in told[1]
        assert "it is not there" in warden.refusal("web01")

    def test_a_domain_that_is_left_alone_is_told_so(self, warden: Warden) -> None:
        set_policy(LEFT_ALONE)
        warden.libvirt.define(domain_xml("web01"))
        said = warden.command("explain", "web01").stdout
        assert said == f"web01 is unmanaged ({POLICY}:1): virt-warden does not guard it.\n"


def everything(images: Path, bridge: str) -> str:
    """A domain whose XML has all that enrolment touches, and its neighbours."""
    base = qcow2(images / "base.qcow2")
    middle = qcow2(images / "middle.qcow2", backing=base)
    disks = [
        Disk(qcow2(images / "top.qcow2", backing=middle)),
        Disk(raw(images / "data.img"), target="vdb", format="raw"),
        Disk(raw(images / "quorum.img"), target="vdc", format="raw", shareable=True),
        Disk(raw(images / "cd.iso"), target="sda", format="raw", readonly=True, device="cdrom"),
    ]
    theirs = "<their:note xmlns:their='https://their.org/'>kept</their:note>"
    labels = (
        "<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>"
        f"<metadata>{theirs}</metadata>"
    )
    nics = [Nic(MAC, bridge)]
    return domain_xml("web01", disks=disks, nics=nics, vnc=Vnc(password="rT7%kq2Z"), extra=labels)


class TestEnrolment:
    @pytest.mark.parametrize("started_in_between", [False, True])
    def test_unenrolment_makes_the_xml_what_it_was(
        self, warden: Warden, images: Path, bridge: str, started_in_between: bool
    ) -> None:
        warden.libvirt.define(everything(images, bridge))
        before = self.stored(warden, "web01")
        warden.command("enrol", "web01")
        enrolled = self.stored(warden, "web01")
        assert enrolled != before
        assert WRAPPER in enrolled
        if started_in_between:
            warden.libvirt.start("web01")
            warden.libvirt.destroy("web01")
            assert self.stored(warden, "web01") == enrolled
        warden.command("unenrol", "web01")
        assert self.stored(warden, "web01") == before
        assert users.account("vmw-web01") is None

    def stored(self, warden: Warden, name: str) -> str:
        return canonical(warden.libvirt.xml(name, "--inactive", "--security-info"))

    def test_a_second_enrolment_alters_nothing(
        self, warden: Warden, images: Path, bridge: str
    ) -> None:
        warden.libvirt.define(everything(images, bridge))
        warden.command("enrol", "web01")
        enrolled = self.stored(warden, "web01")
        assert "is enrolled already" in warden.command("enrol", "web01").stdout
        assert self.stored(warden, "web01") == enrolled

    def test_all_are_enrolled_that_are_managed_and_all_unenrolled(self, warden: Warden) -> None:
        set_policy('managed = ["*", "!theirs"]\n')
        for name in ("one", "two", "theirs"):
            warden.libvirt.define(domain_xml(name))
        before = {name: self.stored(warden, name) for name in ("one", "two", "theirs")}
        warden.command("enrol", "--all")
        assert WRAPPER in self.stored(warden, "one")
        assert WRAPPER in self.stored(warden, "two")
        assert self.stored(warden, "theirs") == before["theirs"]
        warden.libvirt.start("one")
        warden.libvirt.destroy("one")
        warden.command("unenrol", "--all")
        assert {name: self.stored(warden, name) for name in before} == before
        assert users.account("vmw-one") is None

    def test_one_that_fails_does_not_keep_the_others_from_it(
        self, warden: Warden, images: Path
    ) -> None:
        warden.libvirt.define(domain_xml("a-bad", disks=[Disk(images / "missing.qcow2")]))
        warden.libvirt.define(domain_xml("good"))
        done = warden.command("enrol", "--all", check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("virt-warden: a-bad: ")
        assert "missing.qcow2" in done.stderr
        assert WRAPPER in self.stored(warden, "good")
        assert WRAPPER not in self.stored(warden, "a-bad")

    def test_it_says_all_that_the_next_start_is_refused_for_and_the_start_says_the_same(
        self, warden: Warden, images: Path
    ) -> None:
        share = f"<filesystem><source dir='{images}'/><target dir='x'/></filesystem>"
        link = images / "link.qcow2"
        link.symlink_to(qcow2(images / "real.qcow2"))
        xml = domain_xml("web01", disks=[Disk(link)]).replace("</devices>", f"{share}</devices>")
        warden.libvirt.define(xml)
        for state in ("is enrolled;", "is enrolled already;"):
            said = warden.command("enrol", "web01").stdout
            assert state in said.replace(": from its next start on;", ";")
            assert "can be started" not in said
            assert "is a symlink" in said
            assert "shares the host's directory" in said
        told = warden.command("explain", "web01", check=False).stdout
        for line in said.split("\n  - ")[1:]:
            assert line.strip() in told

    def test_a_domain_that_is_not_managed_is_not_enrolled(self, warden: Warden) -> None:
        set_policy(LEFT_ALONE)
        warden.libvirt.define(domain_xml("web01"))
        done = warden.command("enrol", "web01", check=False)
        assert done.returncode == 1
        assert "the policy does not manage web01" in done.stderr
        assert WRAPPER not in self.stored(warden, "web01")

    def test_a_running_domain_keeps_its_user_until_it_is_unenrolled_again(
        self, warden: Warden
    ) -> None:
        warden.started("web01")
        assert "from its next start on" in warden.command("unenrol", "web01").stdout
        assert users.account("vmw-web01") is not None
        assert warden.libvirt.virsh("domstate", "web01").stdout.strip() == "running"
        warden.libvirt.destroy("web01")
        assert "user vmw-web01 is removed" in warden.command("unenrol", "web01").stdout
        assert users.account("vmw-web01") is None

    @pytest.mark.parametrize("command", ["create", "define"])
    def test_xml_on_its_way_to_virsh_is_enrolled(
        self, warden: Warden, images: Path, command: str
    ) -> None:
        file = images / "web01.xml"
        file.write_text(domain_xml("web01", disks=[Disk(qcow2(images / "web01.qcow2"))]))
        enrolled = warden.command("enrol", "--xml", str(file)).stdout
        warden.libvirt.virsh(command, "/dev/stdin", stdin=enrolled)
        if command == "define":
            warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
        assert warden.qemu("web01").uids[0] == warden.status("web01")["uid"]

    def test_xml_that_libvirt_has_not_given_a_uuid_keeps_the_one_it_was_enrolled_with(
        self, warden: Warden
    ) -> None:
        tree = etree.fromstring(domain_xml("WEB01"))
        tree.remove(tree.find("uuid"))
        bare = etree.tostring(tree, encoding="unicode")
        enrolled = run("/usr/sbin/virt-warden", "enrol", "--xml", "-", stdin=bare).stdout
        warden.libvirt.virsh("create", "/dev/stdin", stdin=enrolled)
        assert warden.status("WEB01")["breaches"] == []

    def test_xml_for_a_host_without_virt_warden_is_what_it_was(
        self, warden: Warden, images: Path, tmp_path: Path
    ) -> None:
        warden.libvirt.define(domain_xml("web01", disks=[Disk(qcow2(images / "web01.qcow2"))]))
        before = warden.libvirt.xml("web01", "--inactive")
        warden.command("enrol", "web01")
        file = tmp_path / "web01.xml"
        file.write_text(warden.libvirt.xml("web01", "--inactive"))
        made = warden.command("unenrol", "--xml", str(file)).stdout
        assert canonical(made) == canonical(before)
        assert WRAPPER in warden.libvirt.xml("web01", "--inactive")
        done = warden.command("unenrol", "--xml", str(tmp_path / "none"), check=False)
        assert done.returncode == 1
        assert "No such file" in done.stderr

    def test_xml_that_is_not_one_is_refused_in_one_line(self, warden: Warden) -> None:
        done = run("/usr/sbin/virt-warden", "enrol", "--xml", "-", stdin="<domain>", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("virt-warden: the domain's XML cannot be read")
        assert done.stderr.count("\n") == 1


class TestUnenrolmentOfWhatLibvirtForgot:
    """A domain that is undefined leaves its user, which its files may still belong to."""

    def test_it_is_found_by_its_uuid(self, warden: Warden) -> None:
        warden.started("web01")
        uuid = warden.status("web01")["uuid"]
        warden.libvirt.destroy("web01")
        warden.libvirt.undefine("web01")
        assert users.account("vmw-web01") is not None
        warden.command("unenrol", uuid)
        assert users.account("vmw-web01") is None
        assert not PATHS.domain_state(uuid).exists()

    def test_all_means_these_too(self, warden: Warden) -> None:
        warden.started("web01")
        warden.started("web02")
        for name in ("web01", "web02"):
            warden.libvirt.destroy(name)
        warden.libvirt.undefine("web01")
        warden.command("unenrol", "--all")
        assert users.account("vmw-web01") is None
        assert users.account("vmw-web02") is None

    def test_a_transient_one_is_kept_while_it_runs(self, warden: Warden, images: Path) -> None:
        file = images / "web01.xml"
        file.write_text(domain_xml("web01"))
        enrolled = warden.command("enrol", "--xml", str(file)).stdout
        warden.libvirt.virsh("create", "/dev/stdin", stdin=enrolled)
        warden.command("unenrol", "--all")
        assert users.account("vmw-web01") is not None
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        warden.command("unenrol", "--all")
        assert users.account("vmw-web01") is None


class TestPolicyCheck:
    def test_a_good_one_is_told(self, warden: Warden) -> None:
        assert warden.command("policy", "check").stdout.startswith("The policy is valid.")

    def test_all_that_is_wrong_is_told_a_line_each(self, warden: Warden) -> None:
        set_policy('managed = ["*"]\nmoed = "enforcing"\n[console]\ntls = "on"\n')
        done = warden.command("policy", "check", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        first, second = done.stderr.splitlines()
        assert first.startswith(f"{POLICY}:2: moed: unknown key; did you mean mode?")
        assert second.startswith(f'{POLICY}:4: console.tls: "on" is not allowed')

    def test_it_needs_no_libvirt(self, warden: Warden) -> None:
        warden.libvirt.kill()
        assert warden.command("policy", "check").returncode == 0
        done = warden.command("status", check=False)
        assert "libvirt does not answer" in done.stderr
        warden.libvirt.restart()


class TestCheck:
    def test_where_all_can_be_kept_it_says_so(self, warden: Warden, images: Path) -> None:
        entry = '[[domain]]\nmatch = "web01"\n[domain.disks.vda]\nmapper = "vmw-a"\n'
        set_policy(f'{ENFORCING}{entry}[[domain]]\nmatch = "yet-to-come-*"\nmode = "permissive"\n')
        warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
        done = warden.command("check")
        assert "can do all that the policy asks for, for 1 managed domains" in done.stdout

    def test_what_the_policy_says_of_nobody_is_told(self, warden: Warden, images: Path) -> None:
        nics = '[domain.nics."52:54:00:99:99:99"]\naddresses = ["192.0.2.1"]\n'
        disks = '[domain.disks.vdz]\nmapper = "vmw-z"\n'
        unknown = '[[domain]]\nmatch = "wbe01"\nmode = "permissive"\n'
        set_policy(f'{ENFORCING}[[domain]]\nmatch = "web01"\n{nics}{disks}{unknown}')
        warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
        done = warden.command("check", check=False)
        assert done.returncode == 1
        assert "no managed domain has a NIC 52:54:00:99:99:99" in done.stdout
        assert "no domain that web01 matches has a disk vdz" in done.stdout
        assert f"{POLICY}:" in done.stdout
        assert "no managed domain is called wbe01" in done.stdout

    def test_a_start_that_would_be_refused_is_told(self, warden: Warden) -> None:
        warden.libvirt.define(domain_xml("web01", vnc=Vnc(listen="192.0.2.1")))
        done = warden.command("check", check=False)
        assert "web01 is refused:" in done.stdout
        assert "VNC would listen on 192.0.2.1" in done.stdout


class TestRecover:
    def test_what_runs_is_left(self, warden: Warden, images: Path) -> None:
        disk = qcow2(images / "web01.qcow2")
        warden.started("web01", disks=[Disk(disk)])
        assert warden.command("recover").stdout == ""
        assert "runs: nothing to recover" in warden.command("recover", "web01").stdout
        assert disk.owner() == "vmw-web01"
        assert warden.status("web01")["breaches"] == []


def test_a_domain_with_spice_on_a_host_without_it_is_told_which_package_has_it(
    warden: Warden,
) -> None:
    modules = [*Path("/usr/lib").glob("*/qemu/*spice*.so")]
    if not modules:
        pytest.skip("before Debian 13, SPICE is a part of QEMU itself")
    spice = "<graphics type='spice' autoport='yes'/>"
    warden.libvirt.define(domain_xml("web01", extra_devices=spice))
    aside = [module.rename(module.with_suffix(".aside")) for module in modules]
    try:
        warden.libvirt.restart()
        # libvirt refuses it by itself, before any hook.
        started = warden.libvirt.virsh("start", "web01", check=False)
        assert "spice graphics are not supported" in started.stderr
        said = warden.command("enrol", "web01", check=False).stderr
        assert "spice graphics are not supported" in said
        assert "apt install qemu-system-modules-spice" in said
    finally:
        for module in aside:
            module.rename(module.with_suffix(".so"))
        warden.libvirt.restart()
    warden.command("enrol", "web01")
