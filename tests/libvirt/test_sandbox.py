# SPDX-License-Identifier: GPL-2.0-or-later
"""The Landlock sandbox: what a QEMU that was taken over reaches, asked from inside it.

The wrapper is executed as libvirt executes it, with the ticket of a running domain, but for the
emulator: a probe in its place tries everything. As root, with no other guard in the way, it is the
sandbox alone that refuses.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.host.domain import Disk, Vnc
from tests.host.images import qcow2, raw
from tests.libvirt.warden import Warden, set_policy
from virtwarden.paths import Paths

PATHS = Paths()
PROBE = Path(__file__).with_name("probe.py")
DENIED = "Permission denied"
NOT_PERMITTED = "Operation not permitted"
CLOSED = "Bad file descriptor"
# A number that no argument of QEMU's has.
LEAKED = 900
SANDBOX = 'managed = ["*"]\nsandbox = "{}"\n'
Tries = list[tuple[str, object]]


@pytest.fixture
def sandboxed(warden: Warden, images: Path) -> Warden:
    """Two VMs in their sandboxes."""
    set_policy(SANDBOX.format("required"))
    base = qcow2(images / "base.qcow2")
    overlay = qcow2(images / "web01.qcow2", backing=base, backing_format="qcow2")
    warden.started("web01", disks=[Disk(overlay)])
    warden.started("db01", disks=[Disk(raw(images / "db01.img"), format="raw")])
    return warden


def probe(warden: Warden, tries: Tries, *, as_root: bool) -> list[str]:
    """Have the probe, in the place of web01's QEMU, try all this."""
    status = warden.status("web01")
    ticket = PATHS.cell(status["uuid"]) / "ticket.json"
    honest = ticket.read_text()
    forged: dict[str, Any] = json.loads(honest)
    probe_file = Path("/usr/lib/virt-warden-probe")
    ticket.write_text(json.dumps(forged | _in_place_of_qemu(forged, probe_file, as_root=as_root)))
    argv = warden.qemu("web01").arguments[1:]
    identity = [] if as_root else ["setpriv", *_identity(status)]
    try:
        with _installed(probe_file), _leaked("/etc/shadow"):
            done = subprocess.run(
                [*identity, str(PATHS.wrapper_dir / "qemu-system-x86_64"), *argv],
                input=json.dumps(tries),
                capture_output=True,
                text=True,
                check=False,
                pass_fds=[LEAKED],
            )
    finally:
        ticket.write_text(honest)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def _in_place_of_qemu(ticket: dict[str, Any], emulator: Path, *, as_root: bool) -> dict[str, Any]:
    executed = [*ticket["landlock"]["execute"], str(emulator), os.path.realpath("/usr/bin/python3")]
    return {
        "emulator": str(emulator),
        "landlock": ticket["landlock"] | {"execute": executed},
        # They would refuse half of it first: test_calls.py
        "system_calls": None,
        # Permissive, so that root may be who runs it.
        **({"mode": "permissive"} if as_root else {}),
    }


def _identity(status: dict[str, Any]) -> list[str]:
    uid = str(status["uid"])
    return ["--reuid", uid, "--regid", uid, "--init-groups", "--inh-caps=-all"]


@contextmanager
def _leaked(path: str) -> Iterator[None]:
    """A descriptor that whoever starts QEMU has forgotten to close."""
    handle = os.open(path, os.O_RDONLY)
    os.dup2(handle, LEAKED)
    os.close(handle)
    try:
        yield
    finally:
        os.close(LEAKED)


@contextmanager
def _installed(path: Path) -> Iterator[None]:
    path.write_bytes(PROBE.read_bytes())
    path.chmod(0o755)
    try:
        yield
    finally:
        path.unlink()


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def abstract() -> Iterator[str]:
    name = "warden-test-outside"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield name


@pytest.mark.parametrize("as_root", [True, False], ids=["the-sandbox-alone", "with-all-else"])
def test_a_qemu_that_was_taken_over_reaches_nothing_of_others(
    sandboxed: Warden, images: Path, listener: int, abstract: str, as_root: bool
) -> None:
    other = sandboxed.libvirt.pid("db01")
    # Those that libvirt opens for QEMU, as far as it gets any: by the second a guest chooses whom
    # other VMs take it for.
    for device in (Path("/dev/vhost-net"), Path("/dev/vhost-vsock")):
        device.touch()
        device.chmod(0o666)
    tries: dict[tuple[str, object], str] = {
        ("read", str(images / "db01.img")): DENIED,
        ("write", str(images / "db01.img")): DENIED,
        ("read", "/etc/shadow"): DENIED,
        ("write", "/dev/net/tun"): DENIED,
        ("write", "/dev/vhost-net"): DENIED,
        ("write", "/dev/vhost-vsock"): DENIED,
        ("list", "/home"): DENIED,
        ("list", "/root"): DENIED,
        ("list", "/etc"): DENIED,
        ("read", str(PATHS.policy)): DENIED,
        ("write", str(images / "base.qcow2")): DENIED,
        ("write", "/usr/bin/qemu-img"): DENIED,
        ("execute", "/bin/true"): DENIED,
        ("connect", listener): DENIED,
        ("bind", listener + 1 if listener < 65535 else 1025): DENIED,
        ("abstract", abstract): NOT_PERMITTED,
        ("signal", other): NOT_PERMITTED,
        ("trace", other): NOT_PERMITTED,
        ("read", f"/proc/{other}/environ"): DENIED,
        ("inherited", LEAKED): CLOSED,
    }
    found = probe(sandboxed, list(tries), as_root=as_root)
    assert dict(zip(tries, found, strict=True)) == tries


def test_it_reaches_what_is_its_own(sandboxed: Warden, images: Path) -> None:
    tries: Tries = [
        ("write", str(images / "web01.qcow2")),
        ("read", str(images / "base.qcow2")),
        ("read", "/usr/share/seabios/bios-256k.bin"),
        ("write", "/dev/null"),
        ("list", "/proc/self/task"),
    ]
    assert probe(sandboxed, tries, as_root=False) == [""] * len(tries)


def test_what_the_sandbox_refuses_is_allowed_without_it(
    warden: Warden, images: Path, listener: int
) -> None:
    """Else the tests above would prove nothing."""
    set_policy(SANDBOX.format("required"))
    warden.started("web01")
    tries: Tries = [("read", "/etc/shadow"), ("connect", listener), ("execute", "/bin/true")]
    ticket = PATHS.cell(warden.status("web01")["uuid"]) / "ticket.json"
    done = json.loads(ticket.read_text())
    assert probe(warden, tries, as_root=True) == [DENIED, DENIED, DENIED]
    done["landlock"]["read"] += ["/etc/shadow"]
    done["landlock"]["execute"] += ["/bin/true"]
    done["landlock"]["connect"] = None
    ticket.write_text(json.dumps(done))
    assert probe(warden, tries, as_root=True) == ["", "", ""]


def test_a_sandboxed_domain_has_its_console(warden: Warden) -> None:
    set_policy(SANDBOX.format("required"))
    warden.started("web01", vnc=Vnc())
    assert warden.status("web01")["breaches"] == []


def test_a_disk_is_plugged_in_from_the_directories_of_the_policy_alone(
    warden: Warden, images: Path
) -> None:
    (images / "media").mkdir(mode=0o711)
    for directory in (images, images / "media"):
        raw(directory / "more.img")
    set_policy(SANDBOX.format("required") + f'[landlock]\ndirectories = ["{images / "media"}"]\n')
    warden.started("web01", extra_devices="<controller type='scsi' model='virtio-scsi'/>")
    attach = ("attach-disk", "web01", "--subdriver", "raw")
    refused = warden.libvirt.virsh(*attach, str(images / "more.img"), "sda", check=False)
    assert DENIED in refused.stderr
    warden.libvirt.virsh(*attach, str(images / "media" / "more.img"), "sdb")


def test_without_svirt_auto_is_a_sandbox_and_off_is_none(warden: Warden) -> None:
    for sandbox, expected in (("auto", True), ("off", False)):
        set_policy(SANDBOX.format(sandbox))
        warden.started("web01")
        ticket = PATHS.cell(warden.status("web01")["uuid"]) / "ticket.json"
        assert (json.loads(ticket.read_text())["landlock"] is not None) is expected
        warden.libvirt.destroy("web01")


def test_a_label_that_is_required_and_missing_is_a_refusal(warden: Warden) -> None:
    set_policy('managed = ["*"]\n[mac]\nsvirt = "required"\n')
    warden.enrolled("web01")
    line = warden.refusal("web01")
    assert "it has no AppArmor or SELinux label of its own" in line
    assert 'svirt = "preferred"' in line or "security_driver" in line
