# SPDX-License-Identifier: GPL-2.0-or-later
"""The admin's programs in notify.d are run for what happens to running VMs."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Nic
from tests.host.namespace import CHECKOUT
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import Warden, until
from virtwarden import log
from virtwarden.paths import Paths
from virtwarden.watch import notify

SECONDS = 20
EXAMPLES = CHECKOUT / "packaging" / "notify"
HOSTILE = "$(touch /run/hacked); `touch /run/hacked`\n'\"\x1b[2J"
EVENT = {"VIRT_WARDEN_EVENT": "breach", "DOMAIN_NAME": "web01", "VIRT_WARDEN_PROMISE": HOSTILE}


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Paths().notify
    made.mkdir(mode=0o755)
    yield made
    run("rm", "-r", str(made))


def program(path: Path, body: str, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def test_a_restoration_runs_the_programs_with_its_fields(
    warden: Warden, syslog: Syslog, service: Service, bridge: str, directory: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    body = (
        f'[ "$VIRT_WARDEN_EVENT" != restored ] || {{ env > {said}.new && mv {said}.new {said}; }}'
    )
    program(directory / "10-first", body)
    warden.started("web01", nics=[Nic("52:54:00:00:00:01", bridge)])
    run("nft", "flush", "ruleset")
    until(said.exists)
    told = dict(line.split("=", 1) for line in said.read_text().splitlines())
    assert told["VIRT_WARDEN_EVENT"] == "restored"
    assert told["VIRT_WARDEN_BY"].startswith("nft[")
    assert told["PRIORITY"] == "4"
    assert told["MESSAGE"].startswith("event=restored ")


def test_what_an_event_says_is_in_the_environment_and_no_shell_reads_it(
    directory: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    program(directory / "10-first", f'printf %s "$VIRT_WARDEN_PROMISE" > {said}')
    assert notify.tell(directory, {**EVENT, "PATH": "/tmp"}) == []
    assert said.read_text() == HOSTILE
    assert not Path("/run/hacked").exists()


def test_only_what_nobody_but_root_can_write_is_run(directory: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    body = f"echo $0 >> {said}"
    honest = program(directory / "honest", body)
    program(directory / "writable", body, 0o775)
    os.chown(program(directory / "others", body), 65534, 65534)
    (directory / "link").symlink_to(honest)
    program(directory / "off", body, 0o644)
    program(directory / "backup~", body)
    program(directory / "old.dpkg-old", body)
    reasons = notify.tell(directory, EVENT)
    assert said.read_text().split() == [str(honest)]
    assert len(reasons) == 3
    for name, why in (("writable", "mode 0775"), ("others", "uid 65534"), ("link", "regular")):
        assert any(f"/{name} is not run" in reason and why in reason for reason in reasons)
    directory.chmod(0o777)
    said.unlink()
    assert "others than root may write it" in notify.tell(directory, EVENT)[0]
    assert not said.exists()


def test_one_that_fails_or_never_ends_keeps_the_others_from_nothing(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_SECONDS", 1)
    said = tmp_path / "said"
    program(directory / "10-fails", "echo no such server >&2; exit 3")
    program(directory / "20-hangs", "exec sleep 1000")
    program(directory / "30-works", f"touch {said}")
    failed, hung = notify.tell(directory, EVENT)
    assert "exit code 3: no such server" in failed
    assert "did not end in 1 s" in hung
    assert said.exists()


def test_nothing_is_run_where_nobody_wants_it(tmp_path: Path) -> None:
    assert notify.tell(tmp_path / "none", EVENT) == []


def test_a_failure_to_tell_is_logged_once_and_told_to_nobody(
    warden: Warden, syslog: Syslog, service: Service, directory: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    program(directory / "10-fails", f"echo $VIRT_WARDEN_EVENT >> {said}; exit 1")
    for _ in range(3):
        log.event(log.Level.WARNING, "stranger", uid=1)
    log.event(log.Level.NOTICE, "undone", changes=1)
    until(lambda: said.exists() and said.read_text().split() == ["stranger"] * 3)
    log.event(log.Level.WARNING, "left-alone", reason="the last one")
    until(lambda: said.read_text().split() == ["stranger"] * 3 + ["left-alone"])
    assert sum("op=notify" in line for line in syslog.lines()) == 1


def test_the_example_mails(directory: Path, tmp_path: Path) -> None:
    mailed = tmp_path / "mailed"
    sendmail = Path("/usr/sbin/sendmail")
    assert not sendmail.exists()
    try:
        program(sendmail, f'echo "$@" > {mailed}; cat >> {mailed}')
        run("install", str(EXAMPLES / "mail"), str(directory / "mail"))
        assert notify.tell(directory, {**EVENT, "DOMAIN_NAME": "web01\nBcc: x@example.org"}) == []
    finally:
        sendmail.unlink()
    head, _, body = mailed.read_text().partition("\n\n")
    assert head.splitlines()[1:] == [
        "To: root",
        "Subject: virt-warden: breach, web01Bcc: x@example.org",
    ]
    assert "VIRT_WARDEN_EVENT=breach" in body
    assert not Path("/run/hacked").exists()


def test_the_example_posts_json(directory: Path) -> None:
    posted: list[dict[str, str]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    settings = Path("/etc/virt-warden/webhook")
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        settings.write_text(f"http://127.0.0.1:{server.server_port}/\n")
        try:
            run("install", str(EXAMPLES / "webhook"), str(directory / "webhook"))
            assert notify.tell(directory, EVENT) == []
        finally:
            settings.unlink()
    assert posted == [EVENT]
