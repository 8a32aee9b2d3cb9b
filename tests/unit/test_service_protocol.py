# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook and the service never act both, and one of them always does."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import hook_script
import pytest
from hook_script import BY_ITSELF, CALL, XML, Answer, call_hook
from hypothesis import given
from hypothesis import strategies as st

from virtwarden import hook
from virtwarden.domain.model import XML_LIMIT_BYTES
from virtwarden.paths import Paths
from virtwarden.service import ask as hooks_side
from virtwarden.service import wire
from virtwarden.service.answer import answer
from virtwarden.service.turns import Turns

pytestmark = pytest.mark.process  # the hook is a program of its own

LONG = b"x" * (XML_LIMIT_BYTES + 1)

Acted = list[tuple[list[str], bytes, bool]]


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> Acted:
    """What the service did: arguments and XML, and whether somebody still waited for it."""
    calls: Acted = []

    def main(
        arguments: list[str],
        stdin: BinaryIO,
        stdout: BinaryIO,
        stderr: TextIO,
        paths: Paths,
        is_wanted: Callable[[], bool],
        dismiss: Callable[[], None],
    ) -> int:
        calls.append((arguments, stdin.read(), is_wanted()))
        stdout.write(b"<answered/>")
        stderr.write("refused: \udcff ü\n")
        return 1

    monkeypatch.setattr(hook, "main", main)
    return calls


@contextmanager
def served(path: Path, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    """A service of the test's own, which serves one call."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            serve(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=accept)
        thread.start()
        yield
        thread.join()


def ask(path: Path, serve: Callable[[socket.socket], object], xml: bytes = XML) -> Answer:
    with served(path, serve):
        return call_hook(path, xml)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    socket = tmp_path / "hook.sock"
    hook_script.does(socket, hook_script.WORK)
    return socket


class Asked(Turns):
    """Turns that say who asked for them."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths)
        self.calls: list[str] = []

    def take(self, domain: str) -> bool:
        self.calls.append(f"take {domain}")
        return super().take(domain)

    def end(self, domain: str) -> None:
        self.calls.append(f"end {domain}")
        super().end(domain)


@pytest.fixture
def turns(tmp_path: Path) -> Asked:
    return Asked(replace(Paths(), run=tmp_path))


@pytest.mark.parametrize("xml", [XML, b"", LONG], ids=["short", "none", "long"])
def test_what_the_service_answers_is_the_hooks_answer(
    path: Path, acted: Acted, xml: bytes, turns: Asked
) -> None:
    answered = ask(path, lambda connection: answer(connection, Paths(), turns), xml)
    assert answered == Answer(1, b"<answered/>", "refused: \\udcff ü\n".encode())
    assert acted == [(CALL, xml, True)]


def test_a_call_of_which_the_kernel_takes_a_part_at_a_time_arrives_whole(
    path: Path, acted: Acted, turns: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the hook is stopped, and goes on."""
    call = "connection.connect(SERVICE)"
    small = f"{call}; connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 4096)"
    assert call in hook_script.ASK
    monkeypatch.setattr(hook_script, "ASK", hook_script.ASK.replace(call, small))
    ask(path, lambda connection: answer(connection, Paths(), turns), LONG)
    assert acted == [(CALL, LONG, True)]


def test_a_name_that_is_not_utf8_arrives_as_it_is(path: Path, acted: Acted, turns: Asked) -> None:
    name = b"caf\xe9"
    with served(path, lambda connection: answer(connection, Paths(), turns)):
        call_hook(path, arguments=[name, b"release"])
    assert acted[0][0] == [name.decode(errors="surrogateescape"), "release"]


def test_where_nobody_listens_the_hook_does_it_by_itself(path: Path) -> None:
    assert call_hook(path) == BY_ITSELF
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    assert call_hook(path) == BY_ITSELF


@pytest.mark.parametrize("xml", [XML, LONG], ids=["short", "long"])
def test_a_service_that_does_not_offer_in_time_is_left(path: Path, xml: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert call_hook(path, xml, OFFER_SECONDS=1) == BY_ITSELF


def test_a_service_that_says_a_byte_at_a_time_is_left_in_time(path: Path) -> None:
    """However little each byte is waited for."""
    said = []

    def serve(connection: socket.socket) -> None:
        for _ in range(3):
            wire.receive(connection)
        with suppress(OSError):
            for byte in b"\0\0\0\x20" + b"offer" * 6:
                connection.sendall(bytes([byte]))
                said.append(byte)
                threading.Event().wait(0.3)

    with served(path, serve):
        assert call_hook(path, OFFER_SECONDS=1) == BY_ITSELF
    assert len(said) < 10


def test_a_service_to_which_no_call_gets_through_is_left(path: Path) -> None:
    """As where it hangs, and hooks that left it fill its queue."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        assert call_hook(path) == BY_ITSELF


def test_a_service_that_comes_back_too_late_finds_nobody_and_does_nothing(
    acted: Acted, turns: Asked
) -> None:
    hooks_end, services_end = socket.socketpair()
    with services_end:
        wire.send(hooks_end, wire.VERSION, "\0".join(CALL).encode(), XML)
        hooks_end.close()
        answer(services_end, Paths(), turns)
    assert acted == []


def test_a_hook_that_died_after_it_took_the_offer_wants_nothing_any_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, turns: Asked
) -> None:
    taken = threading.Event()
    wanted = []

    def main(*arguments: Any) -> int:
        is_wanted = arguments[-2]
        wanted.append(is_wanted())
        taken.set()
        while is_wanted():
            pass
        return 0

    monkeypatch.setattr(hook, "main", main)
    with (
        served(path, lambda connection: answer(connection, Paths(), turns)),
        socket.socket(socket.AF_UNIX) as dying,
    ):
        dying.connect(str(path))
        wire.send(dying, wire.VERSION, "\0".join(CALL).encode(), XML)
        assert wire.receive(dying) == wire.OFFER
        wire.send(dying, wire.TAKE)
        taken.wait()
    assert wanted == [True]


def test_a_hook_that_is_dismissed_goes_on_while_the_service_does(
    path: Path, monkeypatch: pytest.MonkeyPatch, turns: Asked
) -> None:
    answered = threading.Event()
    done = []

    def main(*arguments: Any) -> int:
        dismiss = arguments[-1]
        dismiss()
        answered.wait()
        done.append("verified")
        return 0

    monkeypatch.setattr(hook, "main", main)
    with served(path, lambda connection: answer(connection, Paths(), turns)):
        assert call_hook(path, arguments=["web01", "started"]) == Answer(0, b"", b"")
        assert done == []
        answered.set()
    assert done == ["verified"]


@pytest.mark.parametrize(
    ("op", "code", "asked"),
    [
        ("prepare", 0, ["take web01"]),
        ("start", 0, []),
        ("started", 0, ["end web01"]),
        ("stopped", 0, ["end web01"]),
        ("release", 0, ["end web01"]),
        ("reconnect", 0, []),
        ("prepare", 1, ["take web01", "end web01"]),
        ("start", 1, ["end web01"]),
    ],
)
def test_a_start_has_its_turn_until_it_is_done_or_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, turns: Asked, op: str, code: int, asked: list[str]
) -> None:
    def main(*arguments: Any) -> int:
        *_, is_wanted, _ = arguments
        assert is_wanted()
        return code

    monkeypatch.setattr(hook, "main", main)
    with served(path, lambda connection: answer(connection, Paths(), turns)):
        assert call_hook(path, arguments=["web01", op, "begin", "-"]) == Answer(code, b"", b"")
    assert turns.calls == asked


def test_what_asks_nothing_of_the_guards_waits_for_no_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch, turns: Asked
) -> None:
    monkeypatch.setattr(hook, "main", lambda *_: 0)
    assert ask(path, lambda connection: answer(connection, Paths(), turns)) == Answer(0, b"", b"")
    assert turns.calls == []


def offering(*then: bytes) -> Callable[[socket.socket], None]:
    """A service that offers, sends this once it was taken, and hangs up."""

    def serve(connection: socket.socket) -> None:
        for _ in range(3):
            wire.receive(connection)
        wire.send(connection, wire.OFFER)
        assert wire.receive(connection) == wire.TAKE
        for raw in then:
            connection.sendall(raw)

    return serve


NUMBER = b"\0\0\0\x010"
TOO_LONG = wire._LONGEST_PART + 1


@pytest.mark.parametrize(
    "said",
    [
        (),
        (NUMBER,),
        (NUMBER, b"\0\0\0\x05abc"),
        (b"\0\0\0\x03yes", b"\0\0\0\0", b"\0\0\0\0"),
        (b"\0\0\0\x0210", b"\0\0\0\0", b"\0\0\0\0"),
        (b"\0\0\0\x03256", b"\0\0\0\0", b"\0\0\0\0"),  # 0 to who reads an exit code
        (b"\xff\xff\xff\xff",),
        (NUMBER, TOO_LONG.to_bytes(4, "big"), b"x" * TOO_LONG, b"\0\0\0\0"),
    ],
)
def test_what_a_service_that_dies_while_it_acts_left_undone_the_hook_does(
    path: Path, said: tuple[bytes, ...]
) -> None:
    assert ask(path, offering(*said)) == BY_ITSELF


def test_an_answer_is_waited_for_however_long_it_takes(path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        offering()(connection)
        threading.Event().wait(1.2)
        wire.send(connection, b"0", b"", b"")

    with served(path, serve):
        assert call_hook(path, OFFER_SECONDS=1) == Answer(0, b"", b"")


def test_a_service_that_says_nonsense_is_waited_for_until_it_is_gone(path: Path) -> None:
    begun = path.with_name("begun")
    hook_script.does(path, f"open({str(begun)!r}, 'w'); {hook_script.WORK}")
    too_early = []

    def serve(connection: socket.socket) -> None:
        offering(b"\xff\xff\xff\xff", b"x" * 100_000)(connection)
        threading.Event().wait(0.5)
        too_early.append(begun.exists())

    assert ask(path, serve) == BY_ITSELF
    assert too_early == [False]


@pytest.mark.parametrize(
    "line",
    [
        "connection.settimeout(OFFER_SECONDS)",
        "connection.connect(SERVICE)",
        "if wire.peer_uid(connection)",
        "wire.send(connection, wire.VERSION",
        "return wire.receive(connection, until)",
        "connection.settimeout(None)",
        "wire.send(connection, wire.TAKE)",
    ],
)
def test_a_hook_that_is_stopped_until_its_time_is_up_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """It takes an offer that is there, or does its work by itself; it never ends of that."""
    late = r"\1import time; time.sleep(1.1)\n\1\2"
    text, found = re.subn(rf"^( *)({re.escape(line)})", late, hook_script.ASK, flags=re.M)
    assert found == 1
    monkeypatch.setattr(hook_script, "ASK", text)
    took = []

    def serve(connection: socket.socket) -> None:
        with suppress(EOFError, ConnectionResetError):
            offering()(connection)
            took.append(True)
            wire.send(connection, b"0", b"answered", b"")

    with served(path, serve):
        answered = call_hook(path, OFFER_SECONDS=1)
    assert answered == (Answer(0, b"answered", b"") if took else BY_ITSELF)
    path.unlink()
    assert call_hook(path, OFFER_SECONDS=1) == BY_ITSELF


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_a_service_that_hangs_up_before_it_offers_is_left(path: Path, parts: int) -> None:
    """The hook may be writing at that moment."""

    def serve(connection: socket.socket) -> None:
        for _ in range(parts):
            wire.receive(connection)

    assert ask(path, serve, LONG) == BY_ITSELF


def test_a_service_that_offers_something_else_is_not_taken(path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        for _ in range(3):
            wire.receive(connection)
        wire.send(connection, b"do it yourself")
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.receive(connection)

    assert ask(path, serve) == BY_ITSELF


@pytest.mark.parametrize("step", ["prepare", "reconnect"])
def test_a_service_that_is_left_knows_it_before_the_hook_does_its_work(
    path: Path, step: str
) -> None:
    """`reconnect` is done by a child, for which the hook waits."""
    known = path.with_name("known")
    hook_script.does(path, f"import os\nwhile not os.path.exists({str(known)!r}): pass\n")

    def serve(connection: socket.socket) -> None:
        for _ in range(3):
            wire.receive(connection)
        wire.send(connection, b"do it yourself")
        with suppress(EOFError, ConnectionResetError):
            wire.receive(connection)
        known.touch()

    with served(path, serve):
        assert call_hook(path, arguments=["web01", step]) == Answer(0, b"", b"")


def test_a_socket_that_is_not_roots_is_told_nothing(path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        assert connection.recv(1) == b""

    with served(path, serve):
        assert call_hook(path, SERVICE_UID=os.getuid() + 1) == BY_ITSELF


def test_a_hook_of_another_version_is_left_to_do_its_work_by_itself(
    acted: Acted, turns: Asked
) -> None:
    hooks_end, services_end = socket.socketpair()
    with hooks_end, services_end:
        wire.send(hooks_end, wire.VERSION + b"0", "\0".join(CALL).encode(), XML, wire.TAKE)
        answer(services_end, Paths(), turns)
        services_end.close()
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.receive(hooks_end)
    assert acted == []


TAKEN = len(wire.TAKE).to_bytes(4, "big") + wire.TAKE


@given(garbage=st.binary(max_size=64) | st.just(TAKEN), whole=st.booleans())
def test_nothing_but_a_whole_call_makes_the_service_act(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, whole: bool
) -> None:
    turns = Turns(replace(Paths(), run=tmp_path_factory.getbasetemp()))
    acted: list[object] = []

    def main(*arguments: object) -> int:
        acted.append(arguments)
        return 0

    hooks_end, services_end = socket.socketpair()
    with hooks_end, services_end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "main", main)
        if whole:
            wire.send(hooks_end, wire.VERSION, b"web01", XML)
        hooks_end.sendall(garbage)
        hooks_end.shutdown(socket.SHUT_WR)
        answer(services_end, Paths(), turns)
    assert bool(acted) == (whole and garbage.startswith(TAKEN))


def test_the_hook_knows_what_the_service_does() -> None:
    assert Path(hooks_side.SERVICE) == Paths().hook_socket
    assert hooks_side.SERVICE_UID == 0
    assert hooks_side.OFFER_SECONDS == 2
    assert hooks_side.XML_LIMIT_BYTES == XML_LIMIT_BYTES < wire._LONGEST_PART
