# SPDX-License-Identifier: GPL-2.0-or-later
"""Where keys come from, in the private host: a Tang server, a TPM2, a person who is asked."""

from __future__ import annotations

import configparser
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.command import run
from tests.host.namespace import require_private_host

_SECONDS = 30
_BETWEEN_LOOKS_SECONDS = 0.01
_QUESTIONS = Path("/run/systemd/ask-password")


@contextmanager
def tang(directory: Path, port: int = 7500) -> Iterator[str]:
    """A Tang server with keys of its own; its URL."""
    require_private_host()
    directory.mkdir()
    run("/usr/libexec/tangd-keygen", str(directory))
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
    with _running("socat", listen, f"EXEC:/usr/libexec/tangd {directory}", port=port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def tpm(directory: Path) -> Iterator[None]:
    """A TPM2 where tpm2-tss looks for one by itself once it has found no device (tss2-tctildr)."""
    require_private_host()
    directory.mkdir()
    state = ("--tpm2", "--tpmstate", f"dir={directory}", "--flags", "not-need-init,startup-clear")
    ports = ("--server", "type=tcp,port=2321", "--ctrl", "type=tcp,port=2322")
    with _running("swtpm", "socket", *state, *ports, port=2322):
        yield


@contextmanager
def person(answers: str | None) -> Iterator[list[str]]:
    """Somebody at a terminal, who answers all that is asked so, or not at all; the questions."""
    require_private_host()
    asked: list[str] = []
    gone = threading.Event()
    there = threading.Thread(target=_answer, args=(answers, asked, gone))
    there.start()
    try:
        yield asked
    finally:
        gone.set()
        there.join()


def _answer(answer: str | None, asked: list[str], gone: threading.Event) -> None:
    """https://systemd.io/PASSWORD_AGENTS/"""
    seen: set[Path] = set()
    while not gone.wait(_BETWEEN_LOOKS_SECONDS):
        for question in set(_QUESTIONS.glob("ask.*")) - seen:
            seen.add(question)
            said = configparser.RawConfigParser()
            said.read(question)
            asked.append(said["Ask"]["Message"])
            if answer is not None:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.sendto(f"+{answer}".encode(), said["Ask"]["Socket"])


@contextmanager
def _running(*command: str, port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _await_port(process, port)
        yield
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        # By what the kernel lists: to connect would be taken for a client's call.
        if f":{port:04X} " in Path("/proc/net/tcp").read_text():
            return
        time.sleep(_BETWEEN_LOOKS_SECONDS)
    raise RuntimeError(f"{process.args!r} does not listen")
