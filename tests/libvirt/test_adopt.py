# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks`: volumes made and filled, without losing a byte, whenever it is killed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2, raw
from tests.libvirt.vault import KEY, Vault, eventually, opened
from tests.libvirt.warden import ENFORCING, POLICY, Warden, set_policy
from virtwarden.luks import adoption
from virtwarden.paths import Paths
from virtwarden.system import cryptsetup
from virtwarden.system.keys import Secret

PATHS = Paths()
NODE = "/dev/mapper/vmw-web01-vda"
MODHEX = re.compile(r"^    ((?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8})$", re.MULTILINE)

pytestmark = pytest.mark.usefixtures("dm")


@pytest.fixture
def container(warden: Warden, images: Path) -> Iterator[Path]:
    """Where the policy wants the disk, with its key; neither is there yet."""
    policy(images)
    yield images / "web01.luks"
    warden.libvirt.remove_domains()
    assert opened() == []
    shutil.rmtree(PATHS.state / "adoptions", ignore_errors=True)


def policy(images: Path, key: str = "") -> None:
    said = key or f'key.file = "{images}/keys/web01"'
    entry = f'[domain.disks.vda]\nluks = "{images}/web01.luks"\n{said}\n'
    set_policy(f'{ENFORCING}[[domain]]\nmatch = "web01"\n{entry}')


def luks(warden: Warden, *words: str) -> tuple[int, str]:
    done = warden.command("luks", *words, check=False)
    return done.returncode, done.stdout + done.stderr


def written(path: Path, form: str) -> str:
    """Put something into an image, and give the digest of what its guest reads."""
    for offset, size in (
        (0, "1k"),
        (512 * 3, "512"),
        (5 * 2**20 + 1024, "2M"),
        (2**23 - 512, "512"),
    ):
        command = f"write -P {offset % 251 + 1} {offset} {size}"
        run("qemu-io", "-f", form, "-c", command, str(path))
    flat = path.with_suffix(".flat")
    run("qemu-img", "convert", "-f", form, "-O", "raw", str(path), str(flat))
    digest = hashlib.sha256(flat.read_bytes()).hexdigest()
    flat.unlink()
    return digest


def content(warden: Warden, size: int) -> str:
    """The digest of what the running domain's container holds."""
    with Path(NODE).open("rb") as node:
        return hashlib.sha256(node.read(size)).hexdigest()


class TestFormat:
    def test_a_new_volume_is_luks2_with_argon2id_and_a_recovery_passphrase(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        warden.libvirt.define(domain_xml("web01"))
        code, said = luks(warden, "format", "web01", "vda", "--size", "8M")
        assert code == 0
        header = cryptsetup.header(str(container))
        assert (header.version, header.pbkdfs) == ("LUKS2", ("argon2id", "argon2id"))
        assert (header.cipher, header.key_bits) == ("aes-xts-plain64", 512)
        (recovery,) = MODHEX.findall(said)
        cryptsetup.test(str(container), Secret(recovery.encode()))
        key = images / "keys" / "web01"
        assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o400, 0o700)
        cryptsetup.test(str(container), Secret(key.read_bytes()))
        assert f"virsh attach-disk web01 {NODE} vda" in said
        command = said.partition("virsh ")[2].split()
        warden.libvirt.virsh(*command)
        warden.command("enrol", "web01")
        warden.libvirt.start("web01")
        assert opened() == ["vmw-web01-vda"]
        assert Path(NODE).stat().st_uid == warden.status("web01")["uid"]

    def test_something_that_is_there_is_not_overwritten(
        self, warden: Warden, container: Path
    ) -> None:
        warden.libvirt.define(domain_xml("web01"))
        container.write_bytes(bytes(2**20) + b"photos" + bytes(24 * 2**20))
        before = container.read_bytes()
        code, said = luks(warden, "format", "web01", "vda")
        assert code == 1
        assert "it is not empty, and its content would be lost" in said
        assert container.read_bytes() == before
        assert luks(warden, "format", "web01", "vda", "--force")[0] == 0

    def test_a_full_disk_is_told_and_leaves_no_file(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        warden.libvirt.define(domain_xml("web01"))
        run("mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", str(images))
        try:
            code, said = luks(warden, "format", "web01", "vda", "--size", "8M")
            assert code == 1
            assert "No space left" in said
            assert f"df -h {images}" in said
            assert list(images.iterdir()) == []
        finally:
            run("umount", str(images))

    def test_a_passphrase_that_is_refused_leaves_no_container(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        policy(images, "key.ask = 60")
        warden.libvirt.define(domain_xml("web01"))
        command = ("/usr/sbin/virt-warden", "luks", "format", "web01", "vda", "--size", "8M")
        done = run(*command, stdin="short\n", check=False)
        assert done.returncode == 1
        assert "a passphrase needs 12 letters" in done.stderr
        assert not container.exists()

    def test_what_a_running_domain_uses_is_not_formatted(self, vault: Vault) -> None:
        vault.enrol()
        vault.warden.libvirt.start("web01")
        code, said = luks(vault.warden, "format", "web01", "vda", "--force")
        assert code == 1
        assert "it is open as /dev/mapper/vmw-web01-vda" in said

    def test_without_a_place_in_the_policy_nothing_is_made(self, warden: Warden) -> None:
        warden.libvirt.define(domain_xml("web01"))
        code, said = luks(warden, "format", "web01", "vdz")
        assert code == 1
        assert "[domain.disks.vdz]" in said

    def test_a_credential_is_made_for_it(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        policy(images, f'key.credential = "{images}/creds/web01"')
        disk = Disk(NODE, format="raw", kind="block")
        warden.enrolled("web01", disks=[disk])
        assert luks(warden, "format", "web01", "vda", "--size", "8M")[0] == 0
        warden.libvirt.start("web01")


class TestAdopt:
    @pytest.mark.parametrize("form", ["raw", "qcow2"])
    def test_a_disk_moves_into_its_container_byte_for_byte(
        self, warden: Warden, container: Path, images: Path, form: str
    ) -> None:
        old = (raw if form == "raw" else qcow2)(images / "old.img", "8M")
        digest = written(old, form)
        before = old.read_bytes()
        warden.enrolled("web01", disks=[Disk(old, format=form)])
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 0, said
        assert digest in said
        assert "100 %" in said
        assert old.read_bytes() == before
        assert opened() == []
        warden.libvirt.start("web01")
        assert content(warden, 8 * 2**20) == digest
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        assert "unencrypted" in warden.command("luks", "status", "web01", check=False).stdout
        code, said = luks(warden, "adopt", "web01", "vda", "--remove-old")
        assert code == 0, said
        assert not old.exists()
        assert adoption.unfinished(PATHS, warden.status("web01")["uuid"]) == ()
        warden.command("luks", "status", "web01")

    def test_the_former_disk_stays_while_the_key_does_not_open_the_container(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = qcow2(images / "old.qcow2", "8M")
        warden.enrolled("web01", disks=[Disk(old)])
        assert luks(warden, "adopt", "web01", "vda")[0] == 0
        key = images / "keys" / "web01"
        good = key.read_bytes()
        key.chmod(0o600)
        key.write_text("written over by mistake")
        before = old.read_bytes()
        code, said = luks(warden, "adopt", "web01", "vda", "--remove-old")
        assert (code, old.read_bytes()) == (1, before)
        assert "wrong key" in said
        key.write_bytes(good)
        assert luks(warden, "adopt", "web01", "vda", "--remove-old")[0] == 0
        assert not old.exists()

    def test_a_disk_on_a_base_moves_whole_and_the_base_stays(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        base = qcow2(images / "base.qcow2", "8M")
        written(base, "qcow2")
        old = qcow2(images / "old.qcow2", backing=base)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 9 2M 1M", str(old))
        digest = written(old, "qcow2")
        before = base.read_bytes()
        warden.enrolled("web01", disks=[Disk(old)])
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 0, said
        assert luks(warden, "adopt", "web01", "vda", "--remove-old")[0] == 0
        assert base.read_bytes() == before
        warden.libvirt.start("web01")
        assert content(warden, 8 * 2**20) == digest

    def test_what_the_guest_wrote_into_its_image_is_not_followed(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        secret = raw(images / "secret.img", "8M")
        run("qemu-io", "-f", "raw", "-c", "write -P 66 0 8M", str(secret))
        old = qcow2(images / "old.qcow2", "8M")
        warden.enrolled("web01", disks=[Disk(old)])
        run("qemu-img", "rebase", "-u", "-b", str(secret), "-F", "raw", str(old))
        assert luks(warden, "adopt", "web01", "vda")[0] == 0
        warden.libvirt.start("web01")
        assert content(warden, 8 * 2**20) == hashlib.sha256(bytes(8 * 2**20)).hexdigest()

    @pytest.mark.parametrize("named", ["data file", "base"])
    def test_what_is_written_into_the_image_after_it_was_checked_is_not_followed_either(
        self, warden: Warden, container: Path, images: Path, named: str
    ) -> None:
        """By a process that the VM's user left behind, with the disk open."""
        secret = raw(images / "secret.img", "8M")
        run("qemu-io", "-f", "raw", "-c", "write -P 66 0 8M", str(secret))
        kept = hashlib.sha256(secret.read_bytes()).hexdigest()
        forged = images / "forged.qcow2"
        options = {
            "data file": ["-o", f"data_file={secret},data_file_raw=on", str(forged), "8M"],
            "base": ["-b", str(secret), "-F", "raw", str(forged)],
        }
        run("qemu-img", "create", "-q", "-f", "qcow2", *options[named])
        run("qemu-io", "-f", "raw", "-c", "write -P 66 0 8M", str(secret))
        old = qcow2(images / "old.qcow2", "8M")
        warden.enrolled("web01", disks=[Disk(old)])
        script = images / "late.py"
        script.write_text(LATE)
        command = ("/usr/bin/python3", "-IB", str(script), str(forged), str(old))
        done = run(*command, check=False)
        assert kept not in done.stdout
        if named == "data file":
            assert f"QEMU does not open {old}" in done.stderr
        else:
            assert hashlib.sha256(bytes(8 * 2**20)).hexdigest() in done.stdout
        assert opened() == []
        readers = run("pgrep", "-f", "^/usr/bin/qemu-storage-daemon", check=False)
        assert readers.stdout == ""

    def test_a_file_that_everybody_may_read_is_no_part_of_the_disk(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        images.chmod(0o755)
        public = raw(images / "public.img", "8M", mode=0o644)
        forged = images / "forged.qcow2"
        options = ("-o", f"data_file={public},data_file_raw=on", str(forged), "8M")
        run("qemu-img", "create", "-q", "-f", "qcow2", *options)
        old = qcow2(images / "old.qcow2", "8M")
        warden.enrolled("web01", disks=[Disk(old)])
        script = images / "late.py"
        script.write_text(LATE)
        done = run("/usr/bin/python3", "-IB", str(script), str(forged), str(old), check=False)
        assert "its data lies in another file" in done.stderr

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda old: run("qemu-img", "snapshot", "-c", "s1", str(old)), "it holds snapshots"),
            (lambda old: old.unlink(), "it is not there"),
        ],
    )
    def test_a_disk_that_would_lose_something_is_refused(
        self, warden: Warden, container: Path, images: Path, spoil: object, words: str
    ) -> None:
        old = qcow2(images / "old.qcow2", "8M")
        warden.enrolled("web01", disks=[Disk(old)])
        spoil(old)  # type: ignore[operator]
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 1
        assert words in said
        assert not container.exists()

    def test_a_domain_that_runs_is_refused(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        set_policy(ENFORCING)
        warden.started("web01", disks=[Disk(qcow2(images / "old.qcow2"))])
        policy(images)
        assert "virsh shutdown web01" in luks(warden, "adopt", "web01", "vda")[1]

    def test_a_container_that_is_too_small_is_refused_before_anything_is_done(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        warden.enrolled("web01", disks=[Disk(raw(images / "old.img", "8M"), format="raw")])
        container.write_bytes(bytes(20 * 2**20))
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 1
        assert f"and {24 * 2**20} are needed" in said
        assert container.read_bytes() == bytes(20 * 2**20)
        assert luks(warden, "adopt", "web01", "vda", "--abort")[0] == 1

    def test_it_can_be_given_up(self, warden: Warden, container: Path, images: Path) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        killed(images, "copying")
        assert "luks adopt of this disk is not finished" in warden.refusal("web01")
        assert luks(warden, "adopt", "web01", "vda", "--abort")[0] == 0
        assert "or remove [domain.disks.vda] from the policy" in warden.refusal("web01")
        set_policy(ENFORCING)
        warden.libvirt.start("web01")
        assert opened() == []

    def test_the_former_disk_is_not_removed_while_another_domain_uses_it(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        assert luks(warden, "adopt", "web01", "vda")[0] == 0
        warden.libvirt.define(domain_xml("db01", disks=[Disk(old, format="raw")]))
        code, said = luks(warden, "adopt", "web01", "vda", "--remove-old")
        assert code == 1
        assert "domain db01 uses it, as disk vda" in said
        assert old.exists()

    def test_the_former_disk_is_not_removed_under_a_vm_that_runs_with_it(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        assert luks(warden, "adopt", "web01", "vda")[0] == 0
        warden.started("db01", disks=[Disk(old, format="raw")])
        warden.libvirt.define(domain_xml("db01"))
        code, said = luks(warden, "adopt", "web01", "vda", "--remove-old")
        assert code == 1
        assert "domain db01 uses it, as disk vda" in said
        assert old.exists()

    def test_another_disk_of_the_same_name_is_not_removed(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        assert luks(warden, "adopt", "web01", "vda")[0] == 0
        run("qemu-io", "-f", "raw", "-c", "write -P 5 1M 4k", str(old))
        before = old.read_bytes()
        code, said = luks(warden, "adopt", "web01", "vda", "--remove-old")
        assert code == 1
        assert "it is not the disk that was copied, or it changed since" in said
        assert old.read_bytes() == before

    @pytest.mark.parametrize("mode", ["permissive", "disabled"])
    def test_a_domain_that_could_start_meanwhile_is_refused(
        self, warden: Warden, container: Path, images: Path, mode: str
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        policy(images)
        text = POLICY.read_text()
        POLICY.write_text(text.replace('match = "web01"\n', f'match = "web01"\nmode = "{mode}"\n'))
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 1
        assert "web01 could start during the copy" in said
        assert not container.exists()

    def test_a_disk_that_others_could_swap_is_not_read(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        theirs = images / "theirs"
        theirs.mkdir()
        old = raw(theirs / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        theirs.chmod(0o777)
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 1
        assert "another user can swap it" in said
        assert not container.exists()

    def test_what_is_in_use_already_cannot_be_given_up(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        killed(images, "defined")
        code, said = luks(warden, "adopt", "web01", "vda", "--abort")
        assert code == 1
        assert "already has the container" in said
        assert luks(warden, "adopt", "web01", "vda")[0] == 0

    def test_a_disk_that_somebody_writes_meanwhile_is_not_taken_for_copied(
        self, warden: Warden, container: Path, images: Path
    ) -> None:
        old = raw(images / "old.img", "8M")
        warden.enrolled("web01", disks=[Disk(old, format="raw")])
        killed(images, "copied")
        run("qemu-io", "-f", "raw", "-c", "write -P 5 1M 4k", str(old))
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 1
        assert "something wrote to the disk meanwhile" in said
        digest = hashlib.sha256(old.read_bytes()).hexdigest()
        code, said = luks(warden, "adopt", "web01", "vda")
        assert code == 0, said
        assert digest in said


# Where the command is killed: before or after each thing it does for good.
MOMENTS = [
    *("begun", "room", "formatted", "key added", "shown", "opened", "copying", "copied"),
    *("compared", "defined", "done"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_loses_nothing_and_the_next_run_goes_on(
    warden: Warden, container: Path, images: Path, moment: str
) -> None:
    old = raw(images / "old.img", "8M")
    digest = written(old, "raw")
    before = old.read_bytes()
    warden.enrolled("web01", disks=[Disk(old, format="raw")])
    killed(images, moment)
    assert old.read_bytes() == before
    code, said = luks(warden, "adopt", "web01", "vda")
    assert code == 0, said
    assert digest in said
    assert old.read_bytes() == before
    assert opened() == []
    warden.libvirt.start("web01")
    assert content(warden, 8 * 2**20) == digest
    uuid = warden.status("web01")["uuid"]
    (state,) = adoption.unfinished(PATHS, uuid)
    assert state.phase is adoption.Phase.DONE


def killed(images: Path, moment: str) -> None:
    """Run `luks adopt web01 vda`, and kill it at this moment."""
    script = images / "killed.py"
    script.write_text(KILLED)
    command = ["/usr/bin/python3", "-IB", str(script), moment]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    script.unlink()


KILLED = """
import os, signal, sys
sys.path.insert(0, "/usr/share/virt-warden")
from virtwarden.adoption import copying, steps
from virtwarden.changes import journal
from virtwarden.luks import adoption, creation, volumes
from virtwarden.cli.main import main
from virtwarden.system import cryptsetup

copying._CHUNK_BYTES = 2**20
copying._CHECKPOINT_BYTES = 2**21
MOMENTS = {
    "begun": (adoption, "store", 1),
    "room": (volumes, "make_room", 1),
    "formatted": (cryptsetup, "format_container", 1),
    "key added": (cryptsetup, "add_key", 1),
    "shown": (creation, "_show", 1),
    "opened": (journal, "perform", 1),
    "copying": (copying, "_write", 5),
    "copied": (copying, "_copy", 1),
    "compared": (copying, "_compare", 1),
    "defined": (steps, "define", 1),
    "done": (adoption, "store", 8),
}
module, name, times = MOMENTS[sys.argv[1]]
act = getattr(module, name)
calls = 0

def then_die(*arguments, **more):
    global calls
    result = act(*arguments, **more)
    calls += 1
    if calls == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(module, name, then_die)
main(["luks", "adopt", "web01", "vda"])
"""


LATE = """
import sys
sys.path.insert(0, "/usr/share/virt-warden")
from pathlib import Path
from virtwarden.cli.main import main
from virtwarden.system import blocks

forged, image = map(Path, sys.argv[1:])
act = blocks._served

def late(chain):
    with image.open("r+b") as file:
        file.write(forged.read_bytes())
    return act(chain)

blocks._served = late
sys.exit(main(["luks", "adopt", "web01", "vda"]))
"""


def test_a_start_during_an_adoption_is_refused(
    warden: Warden, container: Path, images: Path
) -> None:
    old = raw(images / "old.img", "8M")
    warden.enrolled("web01", disks=[Disk(old, format="raw")])
    script = images / "slow.py"
    script.write_text(KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "signal.pause()"))
    command = ["/usr/bin/python3", "-IB", str(script), "copying"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            eventually(lambda: len(opened()))
            assert "luks adopt of this disk is not finished" in warden.refusal("web01")
            warden.command("recover")
            code, said = luks(warden, "adopt", "web01", "vda", "--abort")
            assert code == 1
            assert "another virt-warden luks adopt is working on this disk" in said
            warden.enrolled("db01", disks=[Disk(old, format="raw")])
            assert "web01 (luks adopt) also uses it" in warden.refusal("db01")
            assert opened() == ["vmw-web01-vda"]
        finally:
            running.send_signal(signal.SIGKILL)
    warden.libvirt.undefine("db01")
    assert "changes undone" in warden.command("recover").stdout
    assert opened() == []
    assert luks(warden, "adopt", "web01", "vda")[0] == 0


class TestStatus:
    def test_each_volume_is_told_with_cipher_key_state_and_since_when(self, vault: Vault) -> None:
        vault.enrol()
        (off,) = json.loads(vault.warden.command("luks", "status", "--json").stdout)
        assert off["state"] == "locked"
        assert off["container"] == str(vault.container)
        assert off["cipher"] == "LUKS2 aes-xts-plain64 512 bits"
        assert off["key"] == f"key.file = '{vault.key}'"
        vault.warden.libvirt.start("web01")
        before = int(run("date", "+%s").stdout)
        (on,) = json.loads(vault.warden.command("luks", "status", "--json").stdout)
        assert on["state"] == "open"
        assert before - 60 <= on["since"] <= before
        vault.warden.libvirt.destroy("web01")
        (again,) = json.loads(vault.warden.command("luks", "status", "--json", "web01").stdout)
        assert again["state"] == "locked"
        assert on["since"] <= again["since"] <= int(run("date", "+%s").stdout)
        table = vault.warden.command("luks", "status").stdout.splitlines()
        assert table[0].split()[:4] == ["DOMAIN", "DISK", "STATE", "SINCE"]
        assert table[1].split()[:3] == ["web01", "vda", "locked"]

    def test_one_that_is_open_though_its_domain_is_off_is_told(self, vault: Vault) -> None:
        vault.enrol()
        opening = ("open", "--type", "luks", "--key-file=-", str(vault.container))
        run("cryptsetup", *opening, "vmw-web01-vda", stdin=KEY)
        try:
            code, said = luks(vault.warden, "status")
            assert code == 1
            assert "it is open, but its domain does not run" in said
        finally:
            run("cryptsetup", "close", "vmw-web01-vda")

    def test_a_damaged_header_is_told(self, vault: Vault) -> None:
        vault.enrol()
        vault.container.write_bytes(bytes(2**20))
        code, said = luks(vault.warden, "status")
        assert code == 1
        assert "luksHeaderRestore" in said

    def test_a_disk_in_the_clear_is_told_where_the_policy_requires_encryption(
        self, warden: Warden, images: Path
    ) -> None:
        set_policy(f'{ENFORCING}[storage]\nencryption = "required"\n')
        warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
        code, said = luks(warden, "status")
        assert code == 1
        assert "unencrypted" in said
