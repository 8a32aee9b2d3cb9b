# SPDX-License-Identifier: GPL-2.0-or-later
"""What `virt-warden console` prints opens the console in a real viewer, at the first try."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.consoled import account, console_service
from tests.host.xserver import Picture, XServer, from_png, x_server
from tests.libvirt.test_spice import port_of, set_password
from tests.libvirt.warden import ENFORCING, Warden, set_policy, until

PASSWORD = "alice-s own 1"
HOME = Path("/home/alice")
POLICY = f'{ENFORCING}[console]\noperators = ["alice"]\n'
SPICE = "<graphics type='spice' autoport='yes'/>"
VNC = "<graphics type='vnc'/>"


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[XServer]:
    with x_server(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def _newcomer(warden: Warden) -> Iterator[None]:
    """An operator who never looked at a console."""
    set_policy(POLICY)
    with account("alice", PASSWORD), console_service():
        yield


def as_alice(command: str, stdin: str = "") -> str:
    return run("runuser", "-l", "alice", "-c", command, stdin=stdin).stdout


def printed() -> list[str]:
    """The lines that she is told, each a command or what to know of the one before."""
    said = as_alice("/usr/sbin/virt-warden console web01", f"{PASSWORD}\n").splitlines()
    return [line.strip() for line in said if line.startswith("  ")]


def guests_screen(warden: Warden, directory: Path, name: str = "web01") -> Picture:
    """What the guest shows, once there is anything to see."""
    file = directory / "guest.png"
    seen: list[Picture] = []

    def is_something() -> bool:
        warden.libvirt.virsh("screenshot", name, str(file))
        seen.append(from_png(file.read_bytes()))
        return seen[-1].is_something

    until(is_something)
    return seen[-1]


def test_the_first_command_shows_spice(warden: Warden, screen: XServer, tmp_path: Path) -> None:
    warden.started("web01", extra_devices=SPICE)
    guest = guests_screen(warden, tmp_path)
    with screen.running("alice", HOME, shlex.split(printed()[0])):
        assert screen.comes_to_show(guest)
    assert not (HOME / "web01.vv").exists()


def test_a_spice_tickets_viewer_takes_no_other_vm_for_the_one_of_the_ticket(
    warden: Warden, screen: XServer, tmp_path: Path
) -> None:
    """Also where the other one, which broke out, knows the password and sits at the address."""
    warden.started("web01", extra_devices=SPICE)
    warden.started("evil", extra_devices=SPICE)
    command = printed()[0]
    file = HOME / "web01.vv"
    written = file.read_text()
    (password,) = re.findall("^password=(.*)$", written, re.MULTILINE)
    set_password(warden, "evil", password)
    for name, is_shown in (("evil", False), ("web01", True)):
        port, guest = port_of(warden, name), guests_screen(warden, tmp_path, name)
        file.write_text(re.sub("^tls-port=.*$", f"tls-port={port}", written, flags=re.MULTILINE))
        with screen.running("alice", HOME, shlex.split(command)):
            seen = screen.comes_to_show(guest, 60 if is_shown else 6)
            assert seen is is_shown


def test_the_first_command_shows_vnc_and_asks_for_the_password_that_is_told(
    warden: Warden, screen: XServer, tmp_path: Path
) -> None:
    warden.started("web01", extra_devices=VNC)
    guest = guests_screen(warden, tmp_path)
    command, note, *_ = printed()
    typed = {"VNC_USERNAME": "", "VNC_PASSWORD": note.removeprefix("asks for a password: ")}
    with screen.running("alice", HOME, shlex.split(command), typed):
        assert screen.comes_to_show(guest)


def test_remote_viewer_shows_vnc_after_the_step_that_is_told_once(
    warden: Warden, screen: XServer, tmp_path: Path
) -> None:
    if run("dpkg-query", "-W", "-f", "${Version}", "libgvnc-1.0-0").stdout >= "1.4":
        pytest.skip("gtk-vnc asks for a CA from 1.4 on, and virt-viewer 11 has none for it")
    warden.started("web01", extra_devices=VNC)
    guest = guests_screen(warden, tmp_path)
    told = printed()
    (step,) = [line for line in told if line.startswith("mkdir")]
    as_alice(step)
    told = printed()
    assert step not in told
    (viewer,) = [line for line in told if line.startswith("remote-viewer")]
    with screen.running("alice", HOME, shlex.split(viewer)):
        assert screen.comes_to_show(guest)


@pytest.mark.parametrize("kind", ["spice", "vnc"])
@pytest.mark.parametrize("listen", ["address", "none"])
def test_an_admin_of_the_host_sees_it_without_a_password_as_libvirt_has_asked_already(
    warden: Warden, screen: XServer, tmp_path: Path, kind: str, listen: str
) -> None:
    graphics = f"<graphics type='{kind}'><listen type='{listen}'/></graphics>"
    warden.started("web01", extra_devices=graphics)
    guest = guests_screen(warden, tmp_path)
    attach = ("virt-viewer", "--attach", "-c", "qemu:///system", "web01")
    with screen.running("root", Path("/root"), attach):
        assert screen.comes_to_show(guest)
