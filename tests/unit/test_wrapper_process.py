# SPDX-License-Identifier: GPL-2.0-or-later
"""The wrapper as libvirt runs it: as a VM's user, in a mount namespace with a /run of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_wrapper_argv import real, vnc_values
from wrapped import WRAPPER

pytestmark = pytest.mark.process

VM = 70001
# What no start of an enrolled domain imports.
OTHERS = ("adoption.py", "helper.py", "tpm.py")
FILES = [file for file in sorted(WRAPPER.glob("*.py")) if file.name != "emulator.py"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

STUB = """#!/usr/bin/python3 -IS
import json, os, resource, sys
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "argv": sys.argv[1:], "environment": dict(os.environ), "umask": status["Umask"],
    "no_new_privs": status["NoNewPrivs"], "uid": status["Uid"].split(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in ("7", "8", "1000")
            if os.path.exists(f"/proc/self/fd/{fd}")},
}))
"""

# What root does for the VM in the host's stead; 7 is a descriptor as libvirt passes taps, the
# others are as somebody forgot to close them.
HOST = """
mount -t tmpfs -o mode=755 tmpfs /run
cp -a "$1"/. /run
chmod 755 /run
shift
exec 7</dev/zero 8</etc/shadow 1000</etc/shadow
exec setpriv --reuid $UID_ --regid 70001 --groups $GROUPS_ --inh-caps=-all "$@"
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    path.parent.chmod(0o755)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the wrapper with this ticket and command line; a stub is the emulator."""
    executable(tmp_path / "lib/qemu-system-x86_64", (WRAPPER / "emulator.py").read_text())
    for file in FILES:
        shutil.copy(file, tmp_path / "lib")
    executable(tmp_path / "bin/qemu-system-x86_64", STUB)
    (tmp_path / "virt-warden").mkdir()
    (tmp_path / "virt-warden").chmod(0o711)

    def start(
        ticket: dict[str, Any] | None, argv: list[str], *, uid: int = VM, groups: str = "70001,106"
    ) -> subprocess.CompletedProcess[str]:
        if ticket is not None:
            cell = tmp_path / "virt-warden" / ticket["uuid"]
            cell.mkdir(mode=0o750)
            (cell / "ticket.json").write_text(json.dumps(ticket))
            (cell / "ticket.json").chmod(0o640)
            for path in (cell, cell / "ticket.json"):
                os.chown(path, 0, VM)
        wrapper = "/run/lib/qemu-system-x86_64"
        return subprocess.run(
            ["unshare", "-m", "bash", "-ec", HOST, "host", tmp_path, wrapper, *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/h", "FOO": "bar"}
            | {"UID_": str(uid), "GROUPS_": groups},
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def case(fixture: str, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    ticket, argv = real(fixture)
    return {**ticket, "emulator": "/run/bin/qemu-system-x86_64", **fields}, argv


def test_an_honest_start_becomes_the_emulator_tightened(run: Run) -> None:
    tls = "/run/virt-warden/tls"
    ticket, argv = case("vnc", tls_dir=tls, password=True)
    done = run(ticket, [*argv, "-add-fd", "set=0,fd=7"])
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert vnc_values(told["argv"]) == [
        "vnc=127.0.0.1:0,audiodev=audio1,tls-creds=vmw-vnc-tls,password=on"
    ]
    assert told["uid"] == [str(VM)] * 4
    assert told["no_new_privs"] == "1"
    assert told["umask"] == "0077"
    assert told["core"] == [0, 0]
    assert told["fds"] == {"7": "/dev/zero"}
    assert {*told["environment"]} - {"LC_CTYPE"} == {"HOME", "LC_ALL", "PATH"}


def test_python_leaves_no_signal_ignored(run: Run, tmp_path: Path) -> None:
    executable(tmp_path / "bin/shell", "#!/bin/sh\ngrep SigIgn /proc/$$/status")
    ticket, argv = case("plain", emulator="/run/bin/shell")
    ignored = int(run(ticket, argv).stdout.split()[1], 16)
    assert not [s for s in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << (s - 1)]


def test_a_violation_is_one_line_and_nothing_runs(run: Run) -> None:
    ticket, argv = case("plain")
    done = run(ticket, [*argv, "-device", "e1000,mac=52:54:00:00:00:66", "-gdb", "tcp::1"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "virt-warden refuses plain: the NIC with MAC 52:54:00:00:00:66 was not reviewed; fix: "
        "'virsh edit plain' (or the file that it is created from): remove it from "
        "<qemu:commandline>; or allow it in the policy, by "
        'exceptions = ["qemu-commandline"] under a [[domain]] for plain\n'
    )


def test_permissive_says_each_violation_and_tightens_all_the_same(run: Run) -> None:
    ticket, argv = case("vnc", mode="permissive", password=True)
    done = run(ticket, [*argv, "-device", "e1000,mac=52:54:00:00:00:66", "-gdb", "tcp::1"])
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("virt-warden would refuse vnc: ") for line in lines)
    told = json.loads(done.stdout)
    assert told["no_new_privs"] == "1"
    assert "password=on" in vnc_values(told["argv"])[0]


def test_disabled_touches_nothing(run: Run) -> None:
    ticket, argv = case("vnc", mode="disabled", password=True, tls_dir="/x")
    done = run(ticket, [*argv, "-gdb", "tcp::1"])
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["argv"] == [*argv, "-gdb", "tcp::1"]
    assert told["no_new_privs"] == "0"
    assert told["environment"]["FOO"] == "bar"


@pytest.mark.parametrize("mode", ["enforcing", "permissive", "disabled"])
def test_without_its_ticket_no_mode_lets_it_start(run: Run, mode: str) -> None:
    ticket, argv = case("plain", mode=mode)
    ticket["uuid"] = "00000000-0000-4000-8000-0000000000ff"
    done = run(ticket, argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refuses plain: the hook wrote no ticket" in done.stderr
    assert "'virt-warden unenrol plain'" in done.stderr


def test_another_user_is_refused(run: Run) -> None:
    done = run(*case("plain"), uid=VM + 1)
    assert done.returncode == 1
    assert f"runs as uid [{VM + 1}], not as {VM}" in done.stderr


def test_root_is_refused(run: Run) -> None:
    done = run(*case("plain"), uid=0)
    assert done.returncode == 1
    assert "runs as uid [0]" in done.stderr


def test_a_group_too_many_is_refused(run: Run) -> None:
    done = run(*case("plain"), groups="70001,106,6")
    assert "is in groups [6]" in done.stderr


def test_a_user_who_may_not_read_the_ticket_hears_why(run: Run) -> None:
    ticket, argv = case("plain")
    done = run(ticket, argv, uid=VM + 1, groups="106")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_an_emulator_that_others_can_write_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bin/qemu-system-x86_64").chmod(0o757)
    assert "is not root's alone to write" in run(*case("plain")).stderr


def test_an_emulator_of_somebody_elses_is_refused(run: Run, tmp_path: Path) -> None:
    os.chown(tmp_path / "bin/qemu-system-x86_64", VM, VM)
    assert "is not root's alone to write" in run(*case("plain")).stderr


def test_the_wrapper_does_not_execute_itself(run: Run, tmp_path: Path) -> None:
    ticket, argv = case("plain")
    (tmp_path / "bin/link").symlink_to("../lib/qemu-system-x86_64")
    assert "is this wrapper again" in run(ticket | {"emulator": "/run/bin/link"}, argv).stderr


def test_an_emulator_that_is_not_there_is_named(run: Run) -> None:
    ticket, argv = case("plain")
    done = run(ticket | {"emulator": "/nonexistent/qemu"}, argv)
    assert "/nonexistent/qemu cannot be executed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.root
def test_a_probe_is_the_real_qemus_to_answer(run: Run) -> None:
    done = run(None, ["--version"], uid=64055)
    assert done.stdout.startswith("QEMU emulator version")


@pytest.mark.root
def test_neither_a_probe_nor_a_guest_is_refused(run: Run) -> None:
    done = run(None, ["-machine", "q35", "-drive", "file=/etc/shadow"])
    assert done.returncode == 1
    assert done.stderr.startswith("virt-warden refuses DOMAIN: its command line has no -uuid")


def test_a_fault_of_our_own_is_one_line_and_a_refusal(run: Run, tmp_path: Path) -> None:
    installed = tmp_path / "lib/process.py"
    broken = installed.read_text().replace(
        "def capabilities() -> int:", "def capabilities() -> int:\n    1 / 0"
    )
    installed.write_text(broken)
    done = run(*case("plain"))
    assert done.returncode == 1
    assert done.stderr.startswith("virt-warden refuses plain: internal error: ZeroDivisionError")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", [f.name for f in FILES if f.name not in OTHERS])
def test_half_a_wrapper_is_one_line_and_a_refusal(run: Run, tmp_path: Path, missing: str) -> None:
    (tmp_path / "lib" / missing).unlink()
    done = run(*case("plain"))
    assert done.returncode == 1
    assert done.stderr.startswith("virt-warden refuses this start: its wrapper's files are not all")
    assert done.stderr.count("\n") == 1


def test_where_it_could_it_leaves_no_bytecode(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lib").chmod(0o777)
    assert run(*case("plain")).returncode == 0
    assert not (tmp_path / "lib/__pycache__").exists()


def test_a_line_stays_one_line_whatever_the_name(run: Run) -> None:
    ticket, _ = case("plain", name="a\nb{x}\x1b[31m")
    done = run(ticket, ["-uuid", ticket["uuid"], "-name", "guest=a\nb{x}\x1b[31m", "-s"])
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "refuses a?b{x}?[31m: " in done.stderr


def test_a_long_line_still_ends_in_what_mends_it(run: Run) -> None:
    ticket, argv = case("plain")
    said = run(ticket, [*argv, "-gdb", "x" * 10_000]).stderr
    assert len(said) < 1000
    assert "; fix: 'virsh edit plain'" in said
