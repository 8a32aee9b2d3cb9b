# SPDX-License-Identifier: GPL-2.0-or-later
"""The wrapper of swtpm and swtpm_setup: what it makes of a command line, and of root's note."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import wrapped

LOG = "/var/log/swtpm/libvirt/qemu/web01-swtpm.log"
SOCKET = "/run/libvirt/qemu/swtpm/1-web01-swtpm.sock"
STATE = "/var/lib/libvirt/swtpm/b3d64a2b-8b6a-5164-bcec-3f7ba519d18c/tpm2"
# As libvirt 9.0 and 11.3 write it.
SWTPM = [
    *("socket", "--ctrl", f"type=unixio,path={SOCKET},mode=0600"),
    *("--tpmstate", f"dir={STATE},mode=0600,lock", "--log", f"file={LOG},level=5"),
    *("--terminate", "--tpm2"),
]
CREATE = [
    *("--tpm2", "--tpm-state", STATE, "--vmid", "web01:b3d64a2b", "--logfile", LOG),
    *("--createek", "--create-ek-cert", "--lock-nvram", "--not-overwrite"),
]
RECONFIGURE = [
    *("--tpm2", "--tpm-state", STATE, "--logfile", LOG),
    *("--pcr-banks", "sha384", "--reconfigure"),
]
NOTE = {
    "version": 1,
    "name": "web01",
    "mode": "enforcing",
    "required": True,
    "socket": SOCKET,
    "execute": ["/usr/bin/swtpm"],
    "read": ["/usr"],
    "write": [STATE],
}
tpm = wrapped.tpm


class BecameError(BaseException):  # main() takes every Exception for one of its own
    """What the wrapper executes in its place."""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where root's notes are; what is executed is raised."""

    def execute(program: str, words: list[str], environment: dict[bytes, bytes]) -> None:
        raise BecameError(program, words, environment)

    tmp_path.chmod(0o711)
    look = tpm.note_of
    monkeypatch.setattr(tpm, "note_of", lambda name: look(name, str(tmp_path), os.getuid()))
    monkeypatch.setattr(tpm, "execute", execute)
    monkeypatch.setattr(tpm, "tighten_process", lambda: None)
    monkeypatch.setattr(tpm, "with_socket", lambda words, _: [*words, "with-socket"])
    return tmp_path


def write(notes: Path, **fields: Any) -> None:
    file = notes / "web01.json"
    file.write_text(json.dumps(NOTE | fields))
    file.chmod(0o644)


def becomes(
    monkeypatch: pytest.MonkeyPatch, program: str, words: list[str]
) -> tuple[str, list[str], list[Any]]:
    """What it executes with which arguments, and what it was confined to before."""
    confined: list[Any] = []
    monkeypatch.setattr(tpm, "confine_to", lambda name, to, required: confined.append(to))
    monkeypatch.setattr(tpm, "say", lambda *words: confined.append(words))
    with pytest.raises(BecameError) as became:
        tpm.main([f"/usr/lib/virt-warden/bin/{program}", *words])
    return became.value.args[0], became.value.args[1], confined


def test_a_managed_vms_swtpm_is_confined(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(notes)
    program, words, (allowed,) = becomes(monkeypatch, "swtpm", SWTPM)
    assert (program, words) == ("/usr/bin/swtpm", [*SWTPM, "with-socket"])
    assert [paths for _, paths in allowed] == [["/usr/bin/swtpm"], ["/usr"], [STATE]]


def test_a_setup_that_reads_what_the_guest_wrote_is_too(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(notes)
    program, _, (allowed,) = becomes(monkeypatch, "swtpm_setup", RECONFIGURE)
    assert program == "/usr/bin/swtpm_setup"
    assert allowed[-1][1] == [STATE, "/tmp"]
    file = notes / "state"
    words = [f"file://{file}" if word == STATE else word for word in CREATE]
    assert becomes(monkeypatch, "swtpm_setup", words)[2] == []
    file.write_text("state")
    assert len(becomes(monkeypatch, "swtpm_setup", words)[2]) == 1


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("swtpm", ["socket", "--print-capabilities"]),
        ("swtpm_setup", ["--tpm2", "--print-capabilities"]),
        ("swtpm_setup", CREATE),
        # As a swtpm_setup runs it that libvirt found before this wrapper was there.
        ("swtpm", ["socket", "--ctrl", "type=unixio,clientfd=5", "--log", f"file={LOG}"]),
        ("swtpm", []),
    ],
)
def test_what_reads_no_guests_state_is_executed_as_it_is(
    notes: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: list[str]
) -> None:
    write(notes)
    assert becomes(monkeypatch, program, words) == (f"/usr/bin/{program}", words, [])


@pytest.mark.parametrize("name", ["", "db01"])
def test_a_vm_without_a_note_is_left_alone(
    notes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name:
        write(notes, name=name)
    assert becomes(monkeypatch, "swtpm", SWTPM) == ("/usr/bin/swtpm", SWTPM, [])


def test_the_name_is_the_vms_also_where_it_is_long(notes: Path) -> None:
    name = "a" * 80
    write(notes, name=name)
    (notes / "web01.json").rename(notes / f"{name[:50]}.json")
    assert tpm.note_of(name)["name"] == name
    assert tpm.note_of(name[:60]) is None


@pytest.mark.parametrize(
    "fields", [{"mode": "disabled"}, {"write": "/"}, {"more": 1}, {"version": 2}]
)
def test_a_note_of_another_form_is_a_refusal(notes: Path, fields: dict[str, Any]) -> None:
    write(notes, **fields)
    with pytest.raises(wrapped.refusal.Refusal, match="malformed"):
        tpm.note_of("web01")


def test_a_note_that_others_may_write_is_a_refusal(notes: Path) -> None:
    write(notes)
    (notes / "web01.json").chmod(0o666)
    with pytest.raises(wrapped.refusal.Refusal, match="forged"):
        tpm.note_of("web01")


def test_a_refusal_is_one_line_on_stderr_and_in_the_log_of_the_setup(
    notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(notes, version=2)
    log = notes / "web01-swtpm.log"
    log.touch()
    words = [str(log) if word == LOG else word for word in RECONFIGURE]
    with pytest.raises(SystemExit) as ended:
        tpm.main(["/usr/lib/virt-warden/bin/swtpm_setup", *words])
    assert ended.value.code == 1
    assert capfd.readouterr().err.startswith("virt-warden refuses the TPM of web01: what root says")
    assert log.read_text().startswith("virt-warden refuses: what root says of its TPM is malformed")


def test_what_fails_keeps_only_an_enforced_vm_from_starting(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise OSError("no")

    monkeypatch.setattr(tpm, "tighten_process", fails)
    write(notes, mode="permissive")
    program, words, told = becomes(monkeypatch, "swtpm", SWTPM)
    assert (program, words) == ("/usr/bin/swtpm", SWTPM)
    assert "would refuse" in told[0][1]
    write(notes)
    with pytest.raises(SystemExit):
        becomes(monkeypatch, "swtpm", SWTPM)


def test_swtpm_gets_its_socket_open_and_for_its_owner_alone(tmp_path: Path) -> None:
    place = str(tmp_path / "sock")
    words = [word.replace(SOCKET, place) for word in SWTPM]
    ((was, now),) = [
        (a, b) for a, b in zip(words, tpm.with_socket(words, place), strict=True) if a != b
    ]
    kind, fd, mode = now.split(",")
    assert (kind, mode) == ("type=unixio", "mode=0600")
    assert was == f"type=unixio,path={place},mode=0600"
    assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
    os.close(int(fd.removeprefix("fd=")))
    assert tpm.with_socket(SWTPM, place) == SWTPM


def test_swtpm_setup_does_not_find_this_wrapper_on_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {b"PATH": f"{tpm.OWN_PATH}:/usr/bin".encode(), b"LC_ALL": b"C"}
    monkeypatch.setattr(tpm.os, "environ", given)
    assert tpm.environment() == {b"PATH": b"/usr/bin", b"LC_ALL": b"C"}
