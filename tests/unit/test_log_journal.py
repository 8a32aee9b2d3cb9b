# SPDX-License-Identifier: GPL-2.0-or-later
"""What is logged: fields in the journal, one line in syslog, nothing that breaks out of either."""

from __future__ import annotations

import ast
import re
import sys
import types
import uuid
from pathlib import Path

import pytest

from virtwarden import log

REPOSITORY = Path(__file__).parents[2]
HOSTILE = 'a\nevent=verified\x1b[2J "b"'


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fields of what is sent to the journal."""
    sent: list[str] = []
    fake = types.SimpleNamespace(sendv=lambda *fields: sent.extend(fields))
    monkeypatch.setitem(sys.modules, "systemd", types.SimpleNamespace(_journal=fake))
    monkeypatch.setitem(sys.modules, "systemd._journal", fake)
    monkeypatch.setattr(log, "JOURNAL", Path("/"))
    return sent


@pytest.fixture
def syslog(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(log.syslog, "syslog", lambda level, line: lines.append((level, line)))
    return lines


def test_the_journal_gets_each_value_as_a_field(journal: list[str]) -> None:
    log.event(log.Level.ERROR, "refused", domain="web01", uuid="1-2", op="start", reason=HOSTILE)
    for field in (
        "PRIORITY=3",
        f"MESSAGE_ID={log.EVENTS['refused']}",
        "SYSLOG_IDENTIFIER=virt-warden",
        "DOMAIN_NAME=web01",
        "DOMAIN_UUID=1-2",
        "VIRT_WARDEN_EVENT=refused",
        "VIRT_WARDEN_OP=start",
        f"VIRT_WARDEN_REASON={HOSTILE}",
    ):
        assert field in journal
    (message,) = [field for field in journal if field.startswith("MESSAGE=")]
    assert "\n" not in message
    assert "\x1b" not in message


def test_a_name_that_is_no_text_is_logged(
    journal: list[str], syslog: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded here as both would encode it: an escaped guest can execute such a file."""
    log.event(log.Level.CRITICAL, "breach", promise="runs /tmp/\udc80")
    assert "VIRT_WARDEN_PROMISE=runs /tmp/\\udc80" in journal
    monkeypatch.setattr(log, "JOURNAL", Path("/nowhere"))
    log.event(log.Level.CRITICAL, "breach", promise="runs /tmp/\udc80")
    for text in (*journal, *(line for _, line in syslog)):
        text.encode()


def test_without_a_journal_syslog_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, syslog: list[tuple[int, str]]
) -> None:
    monkeypatch.setattr(log, "JOURNAL", Path("/nowhere"))
    log.event(log.Level.CRITICAL, "breach", domain="web01", promise=HOSTILE)
    ((level, line),) = syslog
    assert level == 2
    assert line.startswith("event=breach domain=web01 promise=")
    assert line.isprintable()


def test_a_journal_that_does_not_take_it_loses_nothing(
    journal: list[str], syslog: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(sys.modules["systemd._journal"], "sendv", refuse)
    log.event(log.Level.NOTICE, "undone", domain="web01", changes=3)
    assert syslog == [(5, "event=undone domain=web01 changes=3")]


def logged_events() -> set[str]:
    """Every event that the code names in a call that logs it."""
    found = set()
    for file in (REPOSITORY / "virtwarden").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _is_logging(node):
                words = [a.value for a in node.args if isinstance(a, ast.Constant)]
                found |= {word for word in words if isinstance(word, str)}
    return found


def _is_logging(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    name = call.func.id if isinstance(call.func, ast.Name) else name
    return name in ("event", "_log")


def test_every_event_that_is_logged_has_an_id_and_every_id_an_event() -> None:
    assert logged_events() == set(log.EVENTS)


def test_no_two_events_have_the_same_id() -> None:
    assert len({uuid.UUID(number) for number in log.EVENTS.values()}) == len(log.EVENTS)


def test_the_reference_tells_of_every_event_by_name_and_id() -> None:
    reference = (REPOSITORY / "docs" / "log.md").read_text()
    told = dict(re.findall(r"^\| `([a-z-]+)` \| `([0-9a-f]{32})` \|", reference, re.MULTILINE))
    assert told == log.EVENTS
