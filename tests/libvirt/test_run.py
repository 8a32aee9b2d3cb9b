# SPDX-License-Identifier: GPL-2.0-or-later
"""An outside command ends, is ended, or was never there; and what is said of it."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from tests.host.namespace import require_private_host
from virtwarden.errors import CommandError
from virtwarden.system.run import output, run

SHELL = "/bin/sh"
STUBBORN = "trap '' TERM; echo not yet >&2; while :; do sleep 0.1; done"


def failure(*command: str, timeout: int = 30) -> CommandError:
    with pytest.raises(CommandError) as failed:
        run(*command, timeout=timeout)
    return failed.value


def test_one_that_fails_says_how() -> None:
    found = failure(SHELL, "-c", "echo first >&2; echo last >&2; exit 3")
    assert (found.code, found.said) == (3, "last")
    assert "failed with exit code 3: last" in str(found)
    assert failure(SHELL, "-c", "kill -SEGV $$").code == -11


def test_one_that_is_late_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """The pipe's last writer is gone when it can be read to its end."""
    require_private_host()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    found = failure(SHELL, "-c", f"exec 9>{pipe}; (trap '' TERM; sleep 60) & wait", timeout=1)
    assert found.code == 124
    assert "did not end in 1 s" in str(found)
    os.set_blocking(reader, True)
    before = time.monotonic()
    assert os.read(reader, 1) == b""
    assert time.monotonic() - before < 10
    os.close(reader)


def test_one_that_will_not_end_is_killed() -> None:
    found = failure(SHELL, "-c", STUBBORN, timeout=1)
    assert (found.code, found.said) == (137, "not yet")
    assert "did not end in 1 s" in str(found)


def test_one_that_ends_well_when_it_is_told_to_was_late_all_the_same() -> None:
    found = failure(SHELL, "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done", timeout=1)
    assert found.code == 124


def test_one_that_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a dead disk; what waits for it holds the domain's journal, and libvirt."""
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    before = time.monotonic()
    found = failure("/bin/sleep", "20", timeout=1)
    assert time.monotonic() - before < 15
    assert found.code == 137
    assert "did not end in 1 s, nor when it was killed" in str(found)


@pytest.mark.parametrize("how", ["missing", "not to be executed", "without its interpreter"])
def test_one_that_cannot_be_run_is_named(tmp_path: Path, how: str) -> None:
    program = tmp_path / "program"
    if how != "missing":
        program.write_text("#!/nonexistent\n")
        program.chmod(0o755 if how == "without its interpreter" else 0o644)
    found = failure(str(program))
    assert found.code == 127
    assert f"{program} cannot be run" in str(found)


def test_it_reads_what_it_is_given_and_inherits_what_is_named() -> None:
    assert output("/bin/cat", stdin=bytes(300_000)) == bytes(300_000)
    assert run("/bin/true", stdin="x" * 300_000) == ""
    reader, writer = os.pipe()
    told = output("/bin/bash", "-c", f"echo heard >&{writer}; ls /proc/$$/fd", inherited=(writer,))
    assert os.read(reader, 100) == b"heard\n"
    assert set(map(int, told.split())) & {reader, writer} == {writer}
    assert not os.get_inheritable(writer)
    os.close(reader)
    os.close(writer)


def test_its_end_is_seen_at_once() -> None:
    """And not every 0.1 s, as sh would look by itself."""
    took = []
    for _ in range(25):
        before = time.monotonic()
        run("/bin/true")
        took.append(time.monotonic() - before)
    assert statistics.median(took) < 0.08
