# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox on kernels of every age: what the wrapper asks for, and does where there is none."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
import wrapped
from test_wrapper_argv import real, ticket_of

SANDBOX = {
    "required": True,
    "execute": ["/usr/bin/qemu-system-x86_64"],
    "read": ["/usr"],
    "write": ["/dev/null"],
    "bind": [5900],
    "connect": [],
}


class Kernel:
    """A kernel whose Landlock is of some ABI; it writes down what it is asked for."""

    def __init__(self, abi: int) -> None:
        self.abi = abi
        self.calls: list[tuple[int, tuple[Any, ...]]] = []

    def __call__(self, number: int, *arguments: Any) -> int:
        self.calls.append((number, arguments))
        if number == wrapped.landlock.NR_LANDLOCK_CREATE_RULESET and arguments[0] is None:
            wrapped.landlock._ctypes.set_errno(0 if self.abi > 0 else errno.EOPNOTSUPP)
            return self.abi
        return 0 if number != wrapped.landlock.NR_LANDLOCK_CREATE_RULESET else 1000

    def handled(self) -> tuple[int, ...]:
        (attributes,) = [
            a[0] for n, a in self.calls if n == wrapped.landlock.NR_LANDLOCK_CREATE_RULESET and a[0]
        ]
        return struct.unpack("=3Q", attributes)

    def restricts(self) -> bool:
        return any(number == wrapped.landlock.NR_LANDLOCK_RESTRICT_SELF for number, _ in self.calls)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Kernel:
    found = Kernel(request.param)
    monkeypatch.setattr(wrapped.landlock, "call", found)
    monkeypatch.setattr(wrapped.landlock.os, "close", lambda _: None)
    return found


@pytest.mark.parametrize("kernel", [-1, 0], indirect=True)
def test_a_required_sandbox_that_the_kernel_has_not_is_a_refusal(kernel: Kernel) -> None:
    with pytest.raises(wrapped.refusal.Refusal, match="this kernel has no Landlock") as refusal:
        wrapped.landlock.confine(ticket_of(landlock=SANDBOX), [])
    assert 'sandbox = "auto"' in refusal.value.fix
    assert not kernel.restricts()


@pytest.mark.parametrize("kernel", [-1], indirect=True)
def test_elsewhere_the_log_says_that_there_is_none(
    kernel: Kernel, capfd: pytest.CaptureFixture[str]
) -> None:
    wrapped.landlock.confine(ticket_of(landlock=SANDBOX | {"required": False}), [])
    assert "starts without a sandbox" in capfd.readouterr().err
    assert not kernel.restricts()


@pytest.mark.parametrize("kernel", [0, 1, 7], indirect=True)
def test_another_program_is_confined_where_the_kernel_can(kernel: Kernel) -> None:
    wrapped.landlock.confine_to("web01", [(wrapped.landlock.READ, ["/usr"])], required=False)
    assert kernel.restricts() == (kernel.abi > 0)
    if kernel.abi == 0:
        with pytest.raises(wrapped.refusal.Refusal, match="this kernel has no Landlock"):
            wrapped.landlock.confine_to("web01", [], required=True)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7, 99], indirect=True)
def test_the_kernel_is_asked_for_all_that_it_knows_and_no_more(kernel: Kernel) -> None:
    wrapped.landlock.confine(ticket_of(landlock=SANDBOX), [])
    files, ports, scoped = kernel.handled()
    assert kernel.restricts()
    assert files.bit_count() == {1: 13, 2: 14, 3: 15, 4: 15}.get(kernel.abi, 16)
    assert ports == (3 if kernel.abi >= 4 else 0)
    assert scoped == (3 if kernel.abi >= 6 else 0)


@pytest.mark.parametrize("kernel", [6], indirect=True)
def test_ports_that_are_not_limited_are_not_handled(kernel: Kernel) -> None:
    wrapped.landlock.confine(ticket_of(landlock=SANDBOX | {"bind": None, "connect": None}), [])
    assert kernel.handled()[1] == 0


@pytest.mark.parametrize("kernel", [6], indirect=True)
def test_the_sandbox_says_how_much_the_kernel_gave(
    kernel: Kernel, capfd: pytest.CaptureFixture[str]
) -> None:
    wrapped.landlock.confine(ticket_of(landlock=SANDBOX), [])
    assert "Landlock 6" in capfd.readouterr().err


@pytest.mark.parametrize("kernel", [6], indirect=True)
def test_without_a_word_of_it_in_the_ticket_there_is_none(
    kernel: Kernel, capfd: pytest.CaptureFixture[str]
) -> None:
    wrapped.landlock.confine(ticket_of(landlock=None), [])
    assert kernel.calls == []
    assert capfd.readouterr().err == ""


def test_only_what_the_command_line_names_is_handed_on() -> None:
    _, argv = real("nics")
    named = wrapped.process.named_descriptors(wrapped.argv.parse_argv(argv))
    words = ["-netdev", '{"type":"tap","fds":"40:41","vhostfds":"42:43"}', "-incoming", "fd:44"]
    more = wrapped.process.named_descriptors(wrapped.argv.parse_argv([*argv, *words]))
    assert more - named == {40, 41, 42, 43, 44}
    assert {0, 1, 2} < named


def test_a_descriptor_that_is_named_only_later_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The memory of a saved guest, which libvirt names when QEMU runs already."""
    closed: list[tuple[int, int]] = []
    monkeypatch.setattr(wrapped.process, "close_on_exec", lambda *ends: closed.append(ends))
    _, argv = real("restore")
    words = ["-incoming", "defer"]
    assert words == argv[argv.index("-incoming") :][:2]
    wrapped.process.tighten_descriptors(ticket_of(passthrough=False), wrapped.argv.parse_argv(argv))
    assert closed == []
    argv = [word for word in argv if word not in words]
    wrapped.process.tighten_descriptors(ticket_of(passthrough=False), wrapped.argv.parse_argv(argv))
    assert closed != []


# Memory and certificates: places that qemu.conf names


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The rights that the sandbox gives, by path."""
    rights: dict[str, int] = {}
    monkeypatch.setattr(
        wrapped.landlock,
        "allow_path",
        lambda _, path, given: rights.update({path: rights.get(path, 0) | given}),
    )
    return rights


@pytest.mark.parametrize("kernel", [6], indirect=True)
@pytest.mark.parametrize("below", ["", "/pc.ram"])
def test_qemu_makes_its_guests_memory_where_libvirt_says_and_nowhere_beside_it(
    kernel: Kernel, opened: dict[str, int], tmp_path: Any, below: str
) -> None:
    """libvirt names a directory of huge pages itself, and a file of memory_backing_dir."""
    home = tmp_path / "libvirt/qemu/3-web01"
    home.mkdir(parents=True)
    words = ["-object", f'{{"qom-type":"memory-backend-file","mem-path":"{home}{below}"}}']
    options = wrapped.argv.parse_argv(words)
    ticket = ticket_of(landlock=SANDBOX, memory=[str(tmp_path)])
    assert [*wrapped.hostfiles.check_files(ticket, options)] == []
    assert [*wrapped.hostfiles.check_files(ticket_of(), options)] != []
    wrapped.landlock.confine(ticket, options)
    make_file = 1 << 8
    assert opened[str(home)] & make_file
    assert not opened.get(str(home.parent), 0)


@pytest.mark.parametrize("path", ["4-db01", "3-web01/../4-db01", "../../etc"])
def test_another_domains_memory_is_not_its_own(path: str) -> None:
    words = ["-object", f"memory-backend-file,id=a,mem-path=/srv/ram/libvirt/qemu/{path}"]
    found = wrapped.hostfiles.check_files(
        ticket_of(memory=["/srv/ram"]), wrapped.argv.parse_argv(words)
    )
    assert len([*found]) == 1


@pytest.mark.parametrize("kernel", [6], indirect=True)
def test_certificates_are_read_where_qemu_conf_has_them(
    kernel: Kernel, opened: dict[str, int]
) -> None:
    words = ["-object", '{"qom-type":"tls-creds-x509","id":"t","dir":"/srv/pki"}']
    words += ["-spice", "port=5900,x509-dir=/srv/spice"]
    wrapped.landlock.confine(ticket_of(landlock=SANDBOX), wrapped.argv.parse_argv(words))
    for path in ("/srv/pki", "/srv/spice"):
        assert opened[path] == wrapped.landlock.READ
