# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook where the service does not answer: it does the work by itself, or says why not."""

from __future__ import annotations

import ast
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import hook_script
import pytest
from hook_script import Answer, call_hook, does

from virtwarden.paths import Paths
from virtwarden.service import ask, wire

pytestmark = pytest.mark.process  # it is a program of its own

STEPS = ["prepare", "start", "started", "reconnect", "stopped", "release", "restore", "migrate"]
REFUSED = ["prepare", "start"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The socket of a service that is not there; what the hook does by itself is."""
    socket = tmp_path / "hook.sock"
    does(socket, hook_script.WORK)
    return socket


@pytest.mark.parametrize("length", [0, 1, 100_000, 4 * 1024 * 1024 + 1])
def test_who_does_the_work_gets_what_libvirt_gave(path: Path, length: int) -> None:
    does(path, "import os, sys; print(*map(os.fsencode, sys.argv[1:]), len(sys.stdin.read()))")
    arguments = [b"caf\xe9 one", b"prepare", b"begin", b"-"]
    answer = call_hook(path, b"x" * length, arguments)
    said = b"b'caf\\xe9 one' b'prepare' b'begin' b'-' %d\n" % length
    assert answer == Answer(0, said, b"")


def test_xml_that_never_ends_is_read_no_further_than_it_may_be_long(path: Path) -> None:
    does(path, "import sys; print(len(sys.stdin.read()))")
    assert call_hook(path, b"x" * 50_000_000) == Answer(0, b"%d\n" % (4 * 1024 * 1024 + 1), b"")


@pytest.mark.parametrize("step", ["prepare", "reconnect"])
def test_no_environment_tells_who_does_the_work_what_to_import(path: Path, step: str) -> None:
    does(path, "import sys; print(sys.flags.isolated)")
    assert call_hook(path, arguments=["web01", step]) == Answer(0, b"1\n", b"")


def test_xml_of_which_the_kernel_takes_a_part_at_a_time_arrives_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where who writes is stopped, and goes on."""
    some = hook_script.ASK.replace(
        "posix.write(descriptor, content)", "posix.write(descriptor, content[:50_000])"
    )
    assert some != hook_script.ASK
    monkeypatch.setattr(hook_script, "ASK", some)
    does(path, "import sys; print(len(sys.stdin.read()))")
    assert call_hook(path, b"x" * 1_000_000) == Answer(0, b"1000000\n", b"")


def test_what_it_says_and_how_it_ends_is_the_hooks(path: Path) -> None:
    does(path, "import sys; print('<domain/>'); print('refused', file=sys.stderr); sys.exit(1)")
    assert call_hook(path) == Answer(1, b"<domain/>\n", b"refused\n")


def test_nothing_hinders_who_does_not_read_the_xml(path: Path) -> None:
    does(path, "")
    assert call_hook(path, b"x" * 1_000_000) == Answer(0, b"", b"")


@pytest.mark.parametrize("length", [1, 60_000, 100_000, 1_000_000])
def test_nothing_is_said_of_xml_that_nobody_took(path: Path, length: int) -> None:
    """It would stand beside the refusal, or in its place."""
    does(path, "import os, sys, time; os.close(0); time.sleep(0.2); sys.exit('refused')")
    assert call_hook(path, b"x" * length) == Answer(1, b"", b"refused\n")
    answer = call_hook(path, b"x" * length, PYTHON="/nonexistent/python3")
    assert b"Broken pipe" not in answer.stderr


DEATHS = {
    "killed": "import os; os.kill(os.getpid(), 9)",
    "failed": "raise MemoryError",
    "broken": "this is no Python",
}


@pytest.mark.parametrize("python", ["/usr/bin/python3", "/nonexistent/python3"])
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("length", [1, 1_000_000])
@pytest.mark.parametrize("step", ["reconnect", "restore"])
def test_no_vm_ends_and_no_saved_memory_is_lost_because_who_does_the_work_died(
    path: Path, step: str, length: int, death: str, python: str
) -> None:
    """libvirt makes an end of either where the hook fails at that step."""
    does(path, DEATHS[death])
    logger = path.with_name("logger")
    logger.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{path}.log\n')
    logger.chmod(0o755)
    path.with_name("web'\n01.save").touch()
    places = {"PYTHON": python, "LOGGER": str(logger), "SAVES": str(path.parent)}
    arguments = ["web'\n01", step, "begin", "-"]
    answer = call_hook(path, b"x" * length, arguments, **places)
    assert (answer.code, answer.stdout) == (0, b"")
    logged = Path(f"{path}.log").read_text()
    assert logged.startswith("-t|virt-warden|-p|authpriv.crit|event=failed domain='web??01' op=")
    assert logged.count("\n") == 0
    assert ("No such file" in logged) == ("nonexistent" in python)


def test_a_vm_named_as_a_step_is_no_step(path: Path) -> None:
    does(path, "import sys; sys.exit(1)")
    assert call_hook(path, arguments=["restore", "reconnect"], LOGGER="/bin/true").code == 0


def test_what_is_refused_at_restore_is_refused(path: Path) -> None:
    """The memory of `virsh restore FILE` stays, whatever its hook does."""
    does(path, "import sys; sys.stderr.write('no'); sys.exit(1)")
    assert call_hook(path, arguments=["web01", "restore"]) == Answer(1, b"", b"no")


def test_no_managed_save_is_lost_for_a_python_that_cannot_begin(path: Path, tmp_path: Path) -> None:
    """It exits as one that refuses, and libvirt 11.3 would delete what was saved."""
    does(path, "")
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'lost sys.stderr' >&2\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / "web01.save").touch()
    places = {"PYTHON": str(python), "SAVES": str(tmp_path)}
    assert call_hook(path, arguments=["web01", "restore"], **places).code == 0
    assert call_hook(path, arguments=["db01", "restore"], **places).code == 1


@pytest.mark.parametrize("step", [step for step in STEPS if step != "reconnect"])
def test_who_is_killed_at_its_work_has_not_done_it(path: Path, step: str) -> None:
    does(path, DEATHS["killed"])
    assert call_hook(path, arguments=["web01", step]).code == -9


def test_who_looks_at_a_running_vm_and_finds_no_fault_is_not_told_of(path: Path) -> None:
    does(path, "import sys; sys.stdin.read()")
    logged = path.with_name("logged")
    logger = path.with_name("logger")
    logger.write_text(f"#!/bin/sh\ntouch {logged}\n")
    logger.chmod(0o755)
    answer = call_hook(path, arguments=["web01", "reconnect"], LOGGER=str(logger))
    assert answer == Answer(0, b"", b"")
    assert not logged.exists()


def test_nothing_that_the_hook_opened_is_left_to_who_does_the_work(path: Path) -> None:
    # The fourth is that of the directory.
    does(path, "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = call_hook(path, OFFER_SECONDS=1)
    assert answer == Answer(0, b"[0, 1, 2, 3]\n", b"")


def test_no_alarm_is_left_that_would_end_who_does_the_work(path: Path) -> None:
    does(path, "import signal; print(signal.getitimer(signal.ITIMER_REAL))")
    assert call_hook(path) == Answer(0, b"(0.0, 0.0)\n", b"")


@pytest.mark.parametrize("step", STEPS)
def test_a_hook_that_a_removal_left_lets_every_domain_pass(path: Path, step: str) -> None:
    shutil.rmtree(hook_script.share(path))
    assert call_hook(path, arguments=["web01", step, "begin", "-"]) == Answer(0, b"", b"")


@pytest.mark.parametrize("step", STEPS)
def test_without_what_does_the_work_starts_are_refused_and_nothing_else(
    path: Path, step: str
) -> None:
    shutil.rmtree(hook_script.share(path) / "virtwarden")
    answer = call_hook(path, arguments=["web\x1b01", step, "begin", "-"])
    if step not in REFUSED:
        assert answer == Answer(0, b"", b"")
        return
    assert (answer.code, answer.stdout) == (1, b"")
    assert answer.stderr.startswith(b"virt-warden refuses web?01: its files are not all there (")
    assert b"ModuleNotFoundError: No module named 'virtwarden'" in answer.stderr
    assert b"; fix: install virt-warden and python3 again, or remove " in answer.stderr
    assert answer.stderr.count(b"\n") == 1


@pytest.mark.parametrize("step", STEPS)
def test_without_python_starts_are_refused_and_nothing_else(path: Path, step: str) -> None:
    answer = call_hook(path, arguments=["web01", step], PYTHON="/nonexistent/python3")
    assert answer.code == (1 if step in REFUSED else 0)
    assert (b"install virt-warden and python3 again" in answer.stderr) == (step in REFUSED)
    assert (b"directory: '/nonexistent/python3'" in answer.stderr) == (step in REFUSED)
    assert answer.stderr.count(b"\n") == (1 if step in REFUSED else 0)


@pytest.mark.parametrize("file", ["hook.py", "service/wire.py", "service/__init__.py"])
@pytest.mark.parametrize("half", ["", "def", "raise OSError(5, 'I/O\\nerror')", "\0"])
@pytest.mark.parametrize("step", STEPS)
def test_with_half_its_files_starts_are_refused_and_nothing_else(
    path: Path, step: str, half: str, file: str
) -> None:
    broken = hook_script.share(path) / "virtwarden" / file
    if half:
        broken.write_text(half)
    elif file != "service/__init__.py":  # a package does without
        broken.unlink()
    else:
        shutil.rmtree(broken.parent)
    logger = path.with_name("logger")
    logger.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{path}.log\n')
    logger.chmod(0o755)
    answer = call_hook(path, arguments=["web01", step], LOGGER=str(logger))
    assert (answer.code, answer.stdout) == (1 if step in REFUSED else 0, b"")
    assert (b"its files are not all there" in answer.stderr) == (step in REFUSED)
    assert answer.stderr.count(b"\n") == (1 if step in REFUSED else 0)
    assert ("event=failed" in _read(f"{path}.log")) == (step not in REFUSED)


def _read(file: str) -> str:
    return Path(file).read_text() if Path(file).exists() else ""


@pytest.mark.parametrize("step", STEPS)
def test_where_nothing_can_be_logged_no_step_fails_for_that(path: Path, step: str) -> None:
    does(path, "def")
    answer = call_hook(path, arguments=["web01", step], LOGGER="/nonexistent/logger")
    assert answer.code == (1 if step in REFUSED else 0)
    assert step in REFUSED or b"refuses" not in answer.stderr


@pytest.mark.parametrize("op", ["start", "started", "stopped", "port-deleted", "updated"])
@pytest.mark.parametrize("place", ["network", "network.d/virt-warden"])
def test_what_else_befalls_a_network_is_none_of_a_domains_steps(
    path: Path, op: str, place: str
) -> None:
    """libvirt says `start` of networks as well, with XML that is no domain's."""
    assert call_hook(path, arguments=["dmz", op, "begin", "-"], called=place) == Answer(0, b"", b"")
    assert call_hook(path, arguments=["dmz", "port-created"], called=place) == hook_script.BY_ITSELF


IN_ITSELF = {"_socket", "posix", "sys", "time"}
"""What every Python has in itself, Debian's of 12 and 13 too."""


def test_it_imports_nothing_but_its_own_and_what_python_has_in_itself() -> None:
    """A start waits for each import three times; and a module of others might be anybody's."""
    ours = {"virtwarden.service.ask", "virtwarden.service"}
    for text in (hook_script.SCRIPT, hook_script.ASK, *map(_text, hook_script.BEHIND)):
        assert _imports(ast.parse(text).body) <= IN_ITSELF | ours
    assert {*sys.builtin_module_names} >= IN_ITSELF


def _text(name: str) -> str:
    return (hook_script.REPOSITORY / name).read_text()


def _imports(statements: list[ast.stmt]) -> set[str]:
    """What is imported whatever happens: not in a function, nor for who checks types alone."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            found.add(str(statement.module))
        elif isinstance(statement, ast.Try):
            found |= _imports(statement.body)
    return found


def test_it_starts_without_what_python_loads_from_files(path: Path) -> None:
    """What was loaded when the service answered is what a bare Python has, and ours."""
    told = path.with_name("told")
    end = "    posix._exit(code)"
    assert end in hook_script.ASK
    tell = f"    open({str(told)!r}, 'w').write(' '.join(sys.modules))"
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as listener:
        patch.setattr(hook_script, "ASK", hook_script.ASK.replace(end, f"{tell}\n{end}"))
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer_one, args=[listener])
        thread.start()
        assert call_hook(path) == Answer(0, b"", b"")
        thread.join()
    bare = subprocess.run(
        ["/usr/bin/python3", "-ISB", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {*told.read_text().split()} - {*bare.stdout.split()}
    ours = {"virtwarden", "virtwarden.service", "virtwarden.service.ask", "virtwarden.service.wire"}
    assert loaded == ours | {"_socket"}


def _answer_one(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        for _ in range(3):
            wire.receive(connection)
        wire.send(connection, wire.OFFER)
        wire.receive(connection)
        wire.send(connection, b"0", b"", b"")


@pytest.mark.parametrize("step", STEPS)
def test_neither_environment_nor_directory_nor_locale_says_what_it_imports(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for name in ("posix", "_socket", "time", "virtwarden", "site", "sitecustomize", "encodings"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    (tmp_path / "hooks").mkdir()
    for name in ("posix", "_socket", "time", "virtwarden"):
        (tmp_path / "hooks" / f"{name}.py").write_text("raise SystemExit(3)")
    for name, value in {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "site.py"),
        "PYTHONINSPECT": "1",
        "LC_ALL": "nowhere.KOI8-R",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    does(path, "import os, sys; print(*map(os.fsencode, sys.argv[1:])); sys.exit()")
    said = b"b'caf\\xe9' b'%s'\n" % step.encode()
    assert call_hook(path, arguments=[b"caf\xe9", step]) == Answer(0, said, b"")


def test_the_hook_and_the_service_look_for_a_managed_save_at_one_place() -> None:
    assert str(Paths().managed_save("web01")) == f"{ask.SAVES}/web01.save"
