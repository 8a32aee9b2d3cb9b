"""The hook where the service does not answer: it does the work by itself, or says why not."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import doors
import pytest
from doors import Answer, does, door

pytestmark = pytest.mark.process  # it is a program of its own

STEPS = ["prepare", "start", "started", "reconnect", "stopped", "release", "restore", "migrate"]
REFUSED = ["prepare", "start"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The socket of a service that is not there; what the hook does by itself is."""
    socket = tmp_path / "hook.sock"
    doors.share(socket).mkdir()
    return socket


@pytest.mark.parametrize("length", [0, 1, 100_000, 4 * 1024 * 1024 + 1])
def test_who_does_the_work_gets_what_libvirt_gave(path: Path, length: int) -> None:
    does(path, "import os, sys; print(*map(os.fsencode, sys.argv[1:]), len(sys.stdin.read()))")
    arguments = [b"caf\xe9 one", b"prepare", b"begin", b"-"]
    answer = door(path, b"x" * length, arguments)
    said = b"b'caf\\xe9 one' b'prepare' b'begin' b'-' %d\n" % length
    assert answer == Answer(0, said, b"")


def test_xml_that_never_ends_is_read_no_further_than_it_may_be_long(path: Path) -> None:
    does(path, "import sys; print(len(sys.stdin.read()))")
    assert door(path, b"x" * 50_000_000) == Answer(0, b"%d\n" % (4 * 1024 * 1024 + 1), b"")


@pytest.mark.parametrize("step", ["prepare", "reconnect"])
def test_no_environment_tells_who_does_the_work_what_to_import(path: Path, step: str) -> None:
    does(path, "import sys; print(sys.flags.isolated)")
    assert door(path, arguments=["web01", step]) == Answer(0, b"1\n", b"")


def test_xml_of_which_the_kernel_takes_a_part_at_a_time_arrives_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where who writes is stopped, and goes on."""
    some = doors.SOURCE.replace("syswrite STDOUT, $xml", "syswrite STDOUT, $xml, 50_000")
    assert some != doors.SOURCE
    monkeypatch.setattr(doors, "SOURCE", some)
    does(path, "import sys; print(len(sys.stdin.read()))")
    assert door(path, b"x" * 1_000_000) == Answer(0, b"1000000\n", b"")


def test_what_it_says_and_how_it_ends_is_the_hooks(path: Path) -> None:
    does(path, "import sys; print('<domain/>'); print('refused', file=sys.stderr); sys.exit(1)")
    assert door(path) == Answer(1, b"<domain/>\n", b"refused\n")


def test_nothing_hinders_who_does_not_read_the_xml(path: Path) -> None:
    does(path, "")
    assert door(path, b"x" * 1_000_000) == Answer(0, b"", b"")


@pytest.mark.parametrize("length", [1, 60_000, 100_000, 1_000_000])
def test_nothing_is_said_of_xml_that_nobody_took(path: Path, length: int) -> None:
    """It would stand beside the refusal, or in its place."""
    does(path, "import os, sys, time; os.close(0); time.sleep(0.2); sys.exit('refused')")
    assert door(path, b"x" * length) == Answer(1, b"", b"refused\n")
    answer = door(path, b"x" * length, PYTHON="'/nonexistent/python3'")
    assert b"Broken pipe" not in answer.stderr


DEATHS = {
    "killed": "import os; os.kill(os.getpid(), 9)",
    "failed": "raise MemoryError",
    "broken": "this is no Python",
}


@pytest.mark.parametrize("python", ["/usr/bin/python3", "/nonexistent/python3"])
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("length", [1, 1_000_000])
def test_no_running_vm_ends_because_who_looks_at_it_died(
    path: Path, length: int, death: str, python: str
) -> None:
    """libvirt ends it where a hook fails at `reconnect`."""
    does(path, DEATHS[death])
    logger = path.with_name("logger")
    logger.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{path}.log\n')
    logger.chmod(0o755)
    places = {"PYTHON": f"'{python}'", "LOGGER": f"'{logger}'"}
    arguments = ["web'\n01", "reconnect", "begin", "-"]
    answer = door(path, b"x" * length, arguments, **places)
    assert (answer.code, answer.stdout) == (0, b"")
    logged = Path(f"{path}.log").read_text()
    assert logged.startswith("-t|virt-warden|-p|authpriv.crit|event=failed domain='web??01' op=")
    assert logged.count("\n") == 0
    assert ("No such file" in logged) == ("nonexistent" in python)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "reconnect"])
def test_who_is_killed_at_its_work_has_not_done_it(path: Path, step: str) -> None:
    does(path, DEATHS["killed"])
    assert door(path, arguments=["web01", step]).code == -9


def test_who_looks_at_a_running_vm_and_finds_no_fault_is_not_told_of(path: Path) -> None:
    does(path, "import sys; sys.stdin.read()")
    logger = f"'{path.with_name('none')}'"
    assert door(path, arguments=["web01", "reconnect"], LOGGER=logger) == Answer(0, b"", b"")


def test_nothing_that_the_hook_opened_is_left_to_who_does_the_work(path: Path) -> None:
    # The fourth is that of the directory.
    does(path, "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = door(path, OFFER_SECONDS=1)
    assert answer == Answer(0, b"[0, 1, 2, 3]\n", b"")


def test_no_alarm_is_left_that_would_end_who_does_the_work(path: Path) -> None:
    does(path, "import signal; print(signal.getitimer(signal.ITIMER_REAL))")
    assert door(path) == Answer(0, b"(0.0, 0.0)\n", b"")


@pytest.mark.parametrize("step", STEPS)
def test_a_hook_that_a_removal_left_lets_every_domain_pass(path: Path, step: str) -> None:
    doors.share(path).rmdir()
    assert door(path, arguments=["web01", step, "begin", "-"]) == Answer(0, b"", b"")


@pytest.mark.parametrize("step", STEPS)
def test_without_what_does_the_work_starts_are_refused_and_nothing_else(
    path: Path, step: str
) -> None:
    answer = door(path, arguments=["web\x1b01", step, "begin", "-"])
    if step not in REFUSED:
        assert answer == Answer(0, b"", b"")
        return
    assert (answer.code, answer.stdout) == (1, b"")
    assert answer.stderr.startswith(b"virt-warden refuses web?01: its hook cannot run ")
    assert b"by_itself.py (No such file or directory); to mend: install " in answer.stderr
    assert answer.stderr.count(b"\n") == 1


@pytest.mark.parametrize("step", STEPS)
def test_without_python_starts_are_refused_and_nothing_else(path: Path, step: str) -> None:
    does(path, doors.WORK)
    answer = door(path, arguments=["web01", step], PYTHON="'/nonexistent/python3'")
    assert answer.code == (1 if step in REFUSED else 0)
    assert (b"install virt-warden and python3 again" in answer.stderr) == (step in REFUSED)


@pytest.mark.parametrize("half", ["", "def", "raise OSError(5, 'I/O\\nerror')"])
@pytest.mark.parametrize("step", STEPS)
def test_with_half_its_files_starts_are_refused_and_nothing_else(
    tmp_path: Path, step: str, half: str
) -> None:
    source = (doors.REPOSITORY / "hooks" / "by_itself.py").read_text()
    copy = tmp_path / "by_itself.py"
    copy.write_text(source.replace("/usr/share/virt-warden", str(tmp_path)))
    (tmp_path / "virtwarden").mkdir()
    if half:
        (tmp_path / "virtwarden" / "hook.py").write_text(half)
    done = subprocess.run(
        [sys.executable, "-I", copy, "web01", step], capture_output=True, text=True, check=False
    )
    assert done.returncode == (1 if step in REFUSED else 0)
    assert ("its files are not all there" in done.stderr) == (step in REFUSED)
    assert done.stderr.count("\n") == (1 if step in REFUSED else 0)


@pytest.mark.parametrize("op", ["start", "started", "stopped", "port-deleted", "updated"])
@pytest.mark.parametrize("place", ["network", "network.d/virt-warden"])
def test_what_else_befalls_a_network_is_none_of_a_domains_steps(
    path: Path, op: str, place: str
) -> None:
    """libvirt says `start` of networks as well, with XML that is no domain's."""
    does(path, doors.WORK)
    assert door(path, arguments=["dmz", op, "begin", "-"], called=place) == Answer(0, b"", b"")
    assert door(path, arguments=["dmz", "port-created"], called=place) == doors.BY_ITSELF


def test_it_loads_no_module_of_perls_which_might_be_anybodys() -> None:
    assert not re.search(r"^\s*(use|require|no)\b", doors.SOURCE, re.M)
