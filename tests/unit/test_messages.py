# SPDX-License-Identifier: GPL-2.0-or-later
"""What admins read: errors and log lines stay lines, whatever was put into them."""

from __future__ import annotations

import shlex
import syslog
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtwarden import errors, log
from virtwarden.errors import WardenError, printable
from virtwarden.words import shown

ANY = st.text(max_size=40)
HOSTILE = ["a\nb", "a\r\nb", "\x1b[2J", "\x9b2J", "\u2028", "\u202e", "\x00", "\ud800", "\t"]
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


# Errors


def test_an_error_says_what_is_wrong_where_and_what_mends_it() -> None:
    assert str(WardenError("it is open")) == "it is open"
    assert str(WardenError("it is open", where="disk vda")) == "disk vda: it is open"
    assert str(WardenError("it is open", fix="close it")) == "it is open; fix: close it"
    assert (
        str(WardenError("it is open", where="disk vda", fix="close it"))
        == "disk vda: it is open; fix: close it"
    )


@given(ANY, ANY, ANY)
def test_an_error_is_one_printable_line(what: str, where: str, fix: str) -> None:
    line = str(WardenError(what, where=where, fix=fix))
    assert line.isprintable()
    assert "\n" not in line


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_not_shown(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_letters_of_all_scripts_are_shown() -> None:
    assert printable("ünïcødé Ж 東京 ü") == "ünïcødé Ж 東京 ü"


def test_every_error_is_a_warden_error_and_says_in_its_docstring_what_it_is() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 6
    assert all(issubclass(kind, WardenError) and kind.__doc__ for kind in kinds)


@given(ANY)
def test_a_name_can_be_pasted_into_a_shell(name: str) -> None:
    (word,) = shlex.split(shown(name)) or [""]
    assert word == printable(name)


# The log


def fields(line: str) -> dict[str, str]:
    """The line as its reader takes it apart."""
    found = {}
    for pair in shlex.split(line.partition(" ")[2].replace("\\", "\\\\")):
        key, equals, value = pair.partition("=")
        assert equals
        assert key not in found
        found[key] = value
    return found


@given(ANY, ANY)
@quick
def test_no_value_makes_a_second_line_or_another_field(
    logged: list[str], one: str, other: str
) -> None:
    logged.clear()
    log.event(log.Level.WARNING, "refused", domain=one, reason=other)
    (line,) = logged
    assert line.isprintable()
    assert [*fields(line)] == ["event", "domain", "reason"]


@given(ANY, ANY)
@quick
def test_two_values_never_look_alike(logged: list[str], one: str, other: str) -> None:
    logged.clear()
    for value in (one, other):
        log.event(log.Level.NOTICE, "e", value=value)
    same = one.replace('"', "'") == other.replace('"', "'")
    assert (logged[0] == logged[1]) is same


def test_a_spelled_out_letter_cannot_be_written_by_hand(logged: list[str]) -> None:
    for value in ("\n", "\\x0a"):
        log.event(log.Level.NOTICE, "undone", value=value)
    assert logged[0] != logged[1]


def test_plain_words_need_no_quotes(logged: list[str]) -> None:
    log.event(log.Level.NOTICE, "verified", user="vmw-web01", uid=70000, guards="a,b", none="")
    assert logged == ['5 event=verified user=vmw-web01 uid=70000 guards=a,b none=""']


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_forge_a_line_is_spelled_out(logged: list[str], text: str) -> None:
    log.event(log.Level.NOTICE, "e", value=text)
    assert logged[0].isprintable()
    assert "\\x" in logged[0]


def test_levels_are_those_of_syslog_and_lines_go_where_logins_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(log.syslog, "openlog", lambda *words: calls.append(words))
    log.event(log.Level.CRITICAL, "breach")
    assert calls == [("virt-warden", syslog.LOG_PID, syslog.LOG_AUTHPRIV)]
    assert [level.value for level in log.Level] == [2, 3, 4, 5]
