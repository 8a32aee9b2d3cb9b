# SPDX-License-Identifier: GPL-2.0-or-later
"""The wrapper's part in the filters of system calls: which it sets, in which order, and how."""

from __future__ import annotations

from typing import Any

import pytest
import wrapped
from test_wrapper_argv import real, ticket_of

FILTERS = [
    {"code": "aa" * 16, "log": True, "incoming": True},
    {"code": "bb" * 8, "log": True, "incoming": False},
    {"code": "cc" * 8, "log": False, "incoming": True},
]


@pytest.fixture
def set_filters(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    monkeypatch.setattr(wrapped.calls, "set_filter", lambda *what: found.append(what))
    return found


def limited(name: str, filters: Any) -> None:
    _, argv = real(name)
    given = {"call": 317, "filters": filters} if filters is not None else None
    wrapped.calls.limit_calls(ticket_of(system_calls=given), wrapped.argv.parse_argv(argv))


def test_the_filters_of_the_ticket_are_set_in_its_order(
    set_filters: list[tuple[int, int, bytes]],
) -> None:
    limited("plain", FILTERS)
    assert set_filters == [
        (317, 2, b"\xaa" * 16),
        (317, 2, b"\xbb" * 8),
        (317, 0, b"\xcc" * 8),
    ]


def test_what_takes_in_a_guests_state_may_have_tcp(
    set_filters: list[tuple[int, int, bytes]],
) -> None:
    limited("restore", FILTERS)
    assert [code[:1] for _, _, code in set_filters] == [b"\xaa", b"\xcc"]


def test_without_a_word_of_it_in_the_ticket_there_is_no_filter(
    set_filters: list[tuple[int, int, bytes]],
) -> None:
    limited("plain", None)
    assert set_filters == []


def test_a_kernel_that_takes_no_filter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any) -> int:
        asked.append(arguments)
        return -1

    monkeypatch.setattr(wrapped.calls, "syscall", refuse)
    with pytest.raises(OSError, match="seccomp"):
        wrapped.calls.set_filter(317, 2, b"\xaa" * 24)
    ((call, operation, flags, program),) = asked
    assert (call, operation, flags) == (317, 1, 2)
    # struct sock_fprog: three instructions of eight bytes.
    assert (program[:2], len(program)) == ((3).to_bytes(2, "little"), 16)


def test_qemus_own_filter_is_insisted_on() -> None:
    _, argv = real("plain")
    options = wrapped.argv.parse_argv(argv)
    assert wrapped.calls.insist_on_filter(options) == []
    place = argv.index("-sandbox")
    bare = wrapped.argv.parse_argv(argv[:place] + argv[place + 2 :])
    assert wrapped.calls.insist_on_filter(bare) == ["-sandbox", argv[place + 1]]


def test_qemu_conf_cannot_switch_qemus_own_filter_off(capfd: pytest.CaptureFixture[str]) -> None:
    ticket, argv = real("plain")
    place = argv.index("-sandbox")
    off = [*argv[:place], "-sandbox", "off", *argv[place + 2 :]]
    options = wrapped.argv.parse_argv(off)
    assert [str(each) for each in wrapped.review.check_argv(ticket, options)] == []
    kept = wrapped.calls.without_off(ticket, options)
    assert [option for option in options if option not in kept] == [options[place_of(options)]]
    assert wrapped.calls.insist_on_filter(kept) == ["-sandbox", argv[place + 1]]
    assert "seccomp_sandbox = 0 in /etc/libvirt/qemu.conf" in capfd.readouterr().err
    assert wrapped.calls.without_off(ticket | {"passthrough": True}, options) == options
    honest = wrapped.argv.parse_argv(argv)
    assert wrapped.calls.without_off(ticket, honest) == honest
    assert capfd.readouterr().err == ""


def place_of(options: Any) -> int:
    return next(at for at, option in enumerate(options) if option.name == "sandbox")
