# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook: every call that libvirt makes, and what comes back."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of

from virtwarden import hook, lifecycle, nextstart, policy
from virtwarden.changes import arrivals
from virtwarden.domain.model import XML_LIMIT_BYTES, read
from virtwarden.enrolment import enrol
from virtwarden.errors import HostError, Refusal
from virtwarden.guards import facts
from virtwarden.guards.base import Case, Op
from virtwarden.nextstart import NextStart
from virtwarden.paths import Paths

ME = os.getuid()
PREPARE = lifecycle.prepare
REPOSITORY = Path(__file__).parents[2]
STARTING = ["prepare", "start"]
COMING = ["restore", "migrate"]
AFTERWARDS = ["started", "reconnect"]
PASSED = ["stopped", "attach", "unheard-of", ""]
EVERY = [*STARTING, *COMING, *AFTERWARDS, *PASSED, "release"]


@dataclass
class Hook:
    """The hook on a host of values; `calls` are the steps of the lifecycle that it took."""

    paths: Paths
    calls: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    out: bytes = b""
    err: str = ""

    def call(self, op: str, xml: bytes | str | None = None, name: str = "web01") -> int:
        raw = xmls.domain() if xml is None else xml
        out, err = io.BytesIO(), io.StringIO()
        stdin = io.BytesIO(raw if isinstance(raw, bytes) else raw.encode())
        code = hook.main([name, op, "begin", "-"], stdin, out, err, self.paths)
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def write(self, text: str) -> None:
        self.paths.policy.write_text(text)
        self.paths.policy.chmod(0o600)


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hook:
    for name in ("etc", "etc/policy.d", "run", "state"):
        (tmp_path / name).mkdir(mode=0o755)
    paths = Paths(
        policy=tmp_path / "etc/policy.toml",
        policy_dir=tmp_path / "etc/policy.d",
        schema=REPOSITORY / "policy/schema.json",
        run=tmp_path / "run",
        state=tmp_path / "state",
        libvirt_state=tmp_path / "libvirt",
    )
    made = Hook(paths)
    monkeypatch.setattr(hook, "load", partial(policy.load, owner=ME))
    monkeypatch.setattr(hook, "last_good", partial(policy.last_good, owner=ME))
    monkeypatch.setattr(facts, "HostFacts", lambda paths: FakeHost())

    def spy(name: str) -> Callable[..., None]:
        def step(case: Case, **_: Any) -> None:
            made.calls.append(name)
            made.cases.append(case)

        return step

    for name in ("prepare", "start", "started", "reconnect"):
        monkeypatch.setattr(lifecycle, name, spy(name))
    monkeypatch.setattr(lifecycle, "release", lambda *words: made.calls.append("release"))
    made.write('managed = ["*"]\n')
    return made


# Every call of libvirt's


@pytest.mark.parametrize("op", [*STARTING, *AFTERWARDS])
def test_each_step_has_its_answer(called: Hook, op: str) -> None:
    assert called.call(op) == 0
    assert called.calls == [op]
    assert (called.out, called.err) == (b"", "")
    assert called.cases[0].op is (Op.STARTED if op == "reconnect" else Op(op))
    assert called.cases[0].domain.name == "web01"


@pytest.mark.parametrize("op", PASSED)
def test_a_step_that_is_not_ours_is_passed_without_a_look(called: Hook, op: str) -> None:
    called.write("broken")
    assert called.call(op, b"no xml") == 0
    assert called.calls == []
    assert (called.out, called.err) == (b"", "")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 0, ""),
        (["web01"], 0, ""),
        (["", "", "", ""], 0, ""),
        (["a", "prepare"] * 9, 1, "virt-warden refuses a: libvirt gave no XML on stdin; fix: "),
    ],
)
def test_arguments_that_libvirt_does_not_give_do_not_trip_it(
    called: Hook, arguments: list[str], code: int, line: str
) -> None:
    out, err = io.BytesIO(), io.StringIO()
    assert hook.main(arguments, io.BytesIO(), out, err, called.paths) == code
    assert called.calls == []
    assert out.getvalue() == b""
    assert err.getvalue().startswith(line)
    assert err.getvalue().count("\n") == bool(line)


def test_release_undoes_where_there_is_something_to_undo(called: Hook) -> None:
    assert called.call("release") == 0
    assert called.calls == []
    called.paths.domain_state(xmls.UUID).mkdir(parents=True)
    assert called.call("release") == 0
    assert called.calls == ["release"]


def test_release_needs_no_policy(called: Hook) -> None:
    called.paths.domain_state(xmls.UUID).mkdir(parents=True)
    called.write("broken")
    assert called.call("release") == 0
    assert called.calls == ["release"]


@pytest.mark.parametrize("op", EVERY)
def test_a_domain_that_is_not_managed_is_left_alone_unread(called: Hook, op: str) -> None:
    called.write('managed = ["*", "!web*"]\n')
    xml = xmls.domain() if op == "release" else b"not even xml"
    assert called.call(op, xml) == 0
    assert called.calls == []
    assert (called.out, called.err) == (b"", "")


@pytest.mark.parametrize("op", COMING)
def test_a_saved_or_migrated_domain_is_enrolled_on_its_way(
    called: Hook, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol.users, "account_of", lambda uuid: None)
    monkeypatch.setattr(enrol.users, "account", lambda name: None)
    assert called.call(op, xmls.domain(labels="", emulator="/usr/bin/qemu-system-x86_64")) == 0
    found = read(called.out)
    assert found.enrolment
    assert found.labels[0].label == "vmw-web01:vmw-web01"


def test_a_migrated_domain_is_noted_until_its_release(
    called: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol.users, "account_of", lambda uuid: None)
    monkeypatch.setattr(enrol.users, "account", lambda name: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)  # to root, who a developer need not be
    xml = xmls.domain(labels="", emulator="/usr/bin/qemu-system-x86_64")
    for op, is_noted in (("restore", False), ("migrate", True), ("prepare", True)):
        assert called.call(op, xml) == 0
        assert arrivals.is_noted(called.paths, xmls.UUID) is is_noted
    called.call("release")
    assert not arrivals.is_noted(called.paths, xmls.UUID)


@pytest.mark.parametrize("op", [*STARTING, *AFTERWARDS, "stopped", "release"])
def test_nothing_else_is_ever_said_on_stdout(called: Hook, op: str) -> None:
    """libvirt would take it for the domain's new XML."""
    called.call(op)
    assert called.out == b""


# Refusals and failures


def failing(monkeypatch: pytest.MonkeyPatch, op: str, error: BaseException) -> None:
    def step(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(lifecycle, op, step)


@pytest.mark.parametrize("op", STARTING)
@pytest.mark.parametrize(
    "error",
    [Refusal("the disk\nis open", where="disk vda", fix="close it"), HostError("full", fix="df")],
    ids=["refusal", "host"],
)
def test_a_refusal_is_one_line_for_the_admin_and_one_in_the_log(
    called: Hook, op: str, error: Exception, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    failing(monkeypatch, op, error)
    assert called.call(op) == 1
    assert called.err == f"virt-warden refuses web01: {error}\n"
    assert called.err.count("\n") == 1
    (line,) = logged
    assert "event=refused domain=web01" in line


@pytest.mark.parametrize("op", STARTING)
@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a\nbug"), KeyError("x"), RecursionError(), MemoryError(), OSError()],
)
def test_a_bug_of_ours_refuses_a_start_in_one_line(
    called: Hook, op: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, op, error)
    assert called.call(op) == 1
    assert called.err.startswith(
        f"virt-warden refuses web01: internal error: {type(error).__name__}"
    )
    assert called.err.count("\n") == 1
    assert "fix: report this; meanwhile: virt-warden unenrol" in called.err


@pytest.mark.parametrize("op", [*AFTERWARDS, "release"])
@pytest.mark.parametrize(
    "error", [Refusal("no", fix="x"), HostError("no"), ZeroDivisionError("a bug")]
)
def test_a_running_or_stopped_domain_is_never_failed(
    called: Hook, op: str, error: Exception, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """libvirt kills a domain whose hook fails at `reconnect`."""
    called.paths.domain_state(xmls.UUID).mkdir(parents=True)
    failing(monkeypatch, op, error)
    assert called.call(op) == 0
    assert (called.out, called.err) == (b"", "")
    (line,) = logged
    assert line.startswith("2 event=failed domain=web01")


@pytest.mark.parametrize("xml", [b"", b"no xml", b"<network/>", b"<domain><uuid>a</uuid></domain>"])
@pytest.mark.parametrize("op", [*STARTING, *COMING])
def test_xml_that_is_no_domain_refuses_a_start(called: Hook, op: str, xml: bytes) -> None:
    assert called.call(op, xml) == 1
    assert called.err.startswith("virt-warden refuses web01: ")
    assert called.out == b""
    assert called.calls == []


@pytest.mark.parametrize("trouble", ["policy", "xml", "bug", "required"])
def test_saved_memory_that_libvirt_would_delete_is_never_refused_before_prepare(
    called: Hook, logged: list[str], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    saved = called.paths.managed_save("web01")
    saved.parent.mkdir(parents=True)
    saved.touch()
    match trouble:
        case "policy":
            called.write(BROKEN)
        case "bug":
            monkeypatch.setattr(enrol, "enrol_xml", lambda *_: 1 / 0)
        case "required":
            called.write('[storage]\nencryption = "required"\n')
    assert called.call("restore", b"no xml" if trouble == "xml" else None) == 0
    assert called.err == ""
    if trouble != "required":
        assert "event=failed" in logged[-1]
        assert called.out == b""


@pytest.mark.parametrize("xml", [b"", b"no xml", b"<network/>"])
@pytest.mark.parametrize("op", [*AFTERWARDS, "release"])
def test_and_does_nothing_to_a_running_or_stopped_one(called: Hook, op: str, xml: bytes) -> None:
    assert called.call(op, xml) == 0
    assert called.calls == []


def test_a_call_without_xml_is_told_for_what_it_is(called: Hook) -> None:
    called.call("prepare", b"")
    assert "libvirt gave no XML on stdin; fix: do not call the hook by hand" in called.err


def test_no_more_of_stdin_is_read_than_a_domain_may_be_large(called: Hook) -> None:
    asked = []

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(size)
            return b"<" * (size or 0)

    err = io.StringIO()
    assert hook.main(["web01", "prepare"], Endless(), io.BytesIO(), err, called.paths) == 1
    assert asked == [XML_LIMIT_BYTES + 1]
    assert "larger than" in err.getvalue()


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "a\x9b31mb", "\u202eb", "a\u2028b", "\udcff", "a" * 4000]
)
def test_no_name_makes_a_second_line_or_moves_the_terminal(
    called: Hook, name: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    failing(monkeypatch, "prepare", Refusal(f"{name} is bad", fix=f"virsh edit {name}"))
    assert called.call("prepare", name=name) == 1
    assert called.err[:-1].isprintable()
    assert called.err[-1] == "\n"
    assert all(line.isprintable() for line in logged)


# A broken policy, as docs/policy.md tells it


BROKEN = 'managed = ["*"]\nmode = "strict"\n'


@pytest.mark.parametrize("op", [*STARTING, *COMING])
def test_a_broken_policy_refuses_a_managed_start_with_its_line(called: Hook, op: str) -> None:
    called.call("prepare")
    called.write(BROKEN)
    assert called.call(op) == 1
    assert f"{called.paths.policy}:2" in called.err
    assert "fix: edit" in called.err
    assert called.calls == ["prepare"]


def test_without_a_good_policy_since_the_boot_every_start_is_refused(called: Hook) -> None:
    called.write('managed = []\nmode = "strict"\n')
    assert called.call("prepare") == 1
    assert called.calls == []


def test_what_the_last_good_policy_left_alone_still_starts(called: Hook, logged: list[str]) -> None:
    called.write('managed = ["db*"]\n')
    called.call("prepare")
    called.write(BROKEN)
    assert called.call("prepare") == 0
    assert called.calls == []
    assert "event=broken-policy" in logged[0]


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_what_the_last_good_policy_did_not_enforce_still_starts(
    called: Hook, mode: str, logged: list[str]
) -> None:
    called.write(f'mode = "{mode}"\n')
    called.call("prepare")
    called.write(BROKEN)
    assert called.call("prepare") == 0
    assert called.calls == ["prepare"] * 2
    assert called.cases[1].rules.mode == mode
    assert "event=broken-policy domain=web01" in logged[0]
    assert f"{called.paths.policy}:2" in logged[0]


@pytest.mark.parametrize("op", AFTERWARDS)
def test_a_broken_policy_never_affects_a_running_domain(
    called: Hook, op: str, logged: list[str]
) -> None:
    called.call("prepare")
    called.write(BROKEN)
    assert called.call(op) == 0
    assert called.err == ""
    assert "event=failed" in logged[-1]


def test_a_policy_that_others_may_write_is_a_broken_one(called: Hook) -> None:
    called.paths.policy.chmod(0o666)
    assert called.call("prepare") == 1
    assert "chmod go-w" in called.err


def test_a_missing_policy_means_the_defaults(called: Hook) -> None:
    called.paths.policy.unlink()
    assert called.call("prepare") == 0
    assert called.calls == ["prepare"]


def test_a_missing_schema_refuses_in_one_line(called: Hook) -> None:
    called.paths = Paths(**{**vars(called.paths), "schema": called.paths.run / "no-such.json"})
    assert called.call("prepare") == 1
    assert called.err.count("\n") == 1
    assert "fix: " in called.err


# From end to end, on values


def test_a_start_that_a_guard_refuses_says_which_and_why(
    called: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "prepare", PREPARE)
    host = FakeHost(accounts={"vmw-web01": account_of("vmw-web01", xmls.UUID)})
    monkeypatch.setattr(facts, "HostFacts", lambda paths: host)
    assert called.call("prepare", xmls.domain(xmls.disk(f"{xmls.DISK}x"))) == 1
    assert called.err == (
        f"virt-warden refuses web01: disk vda ({xmls.DISK}x): it is not there; fix: make it,"
        " or virsh edit web01\n"
    )


# Networks


def port(
    owner: str = "web01", network: str = "dmz", plug: str = "type='bridge' bridge='br0'"
) -> str:
    return f"""<hookData>
      <network><name>{network}</name></network>
      <networkport>
        <owner><name>{owner}</name><uuid>{xmls.UUID}</uuid></owner>
        <mac address='52:54:00:00:00:01'/><plug {plug}/>
      </networkport>
    </hookData>"""


ZONES = """managed = ["*", "!theirs"]
[zones.dmz]
networks = ["dmz"]
[[domain]]
match = "web*"
zone = ["dmz"]
"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (port(network="lan"), "libvirt network lan, which is not one of zone dmz"),
        (port("db01"), "on zone dmz's libvirt network dmz, but the domain is in no zone"),
        (port(plug="type='direct' dev='eth0'"), "nothing can filter what it sends"),
        (port(plug="type='hostdev-pci'"), "nothing can filter what it sends"),
        (port(plug=""), "nothing can filter what it sends"),
    ],
)
def test_a_nic_is_refused_on_a_network_where_it_may_not_be(
    called: Hook, data: str, words: str
) -> None:
    called.write(ZONES)
    assert called.call("port-created", data, name="lan") == 1
    assert words in called.err
    assert "domain " in called.err
    assert "NIC 52:54:00:00:00:01" in called.err


@pytest.mark.parametrize(
    "data",
    [
        port(),
        port(plug="type='network' bridge='virbr1'"),
        port("theirs", "lan", "type='direct' dev='eth0'"),
    ],
)
def test_a_nic_may_come_onto_its_zones_network_and_an_unmanaged_ones_onto_any(
    called: Hook, data: str
) -> None:
    called.write(ZONES)
    assert called.call("port-created", data, name="dmz") == 0
    assert called.err == ""


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_no_network_is_refused_to_a_domain_whose_mode_is_not_enforcing(
    called: Hook, mode: str
) -> None:
    called.write(f'mode = "{mode}"\n{ZONES}')
    assert called.call("port-created", port(network="lan"), name="lan") == 0


# Permissive

PERMISSIVE = 'managed = ["*"]\nmode = "permissive"\n'


@pytest.mark.parametrize("op", STARTING)
@pytest.mark.parametrize(
    "error",
    [Refusal("no"), HostError("no"), OSError(28, "no space"), KeyError("a bug"), TypeError()],
    ids=repr,
)
def test_permissive_whatever_fails_it_starts_and_that_is_logged(
    called: Hook, monkeypatch: pytest.MonkeyPatch, logged: list[str], op: str, error: Exception
) -> None:
    called.write(PERMISSIVE)
    failing(monkeypatch, op, error)
    assert called.call(op) == 0
    assert called.err == ""
    (line,) = [line for line in logged if "event=would-refuse" in line]
    assert f"domain=web01 op={op}" in line


@pytest.mark.parametrize("op", [*STARTING, *COMING])
@pytest.mark.parametrize("xml", [b"", b"<domain>", b"<a/>" * XML_LIMIT_BYTES], ids=len)
def test_permissive_it_starts_though_its_xml_is_beyond_what_we_read(
    called: Hook, op: str, xml: bytes
) -> None:
    called.write(PERMISSIVE)
    assert called.call(op, xml) == 0
    assert (called.out, called.err) == (b"", "")


@pytest.mark.parametrize("op", COMING)
@pytest.mark.parametrize("lacks", [True, False])
def test_permissive_a_saved_or_migrated_domain_is_enrolled_where_its_user_can_open_all(
    called: Hook, monkeypatch: pytest.MonkeyPatch, op: str, *, lacks: bool
) -> None:
    called.write(PERMISSIVE)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.setattr(enrol.users, "account_of", lambda uuid: None)
    monkeypatch.setattr(enrol.users, "account", lambda name: None)
    foreseen = NextStart((Refusal("no"),), may_lack_access=lacks)
    monkeypatch.setattr(nextstart, "foresee", lambda *_: foreseen)
    assert called.call(op, xmls.domain(labels="", emulator="/usr/bin/qemu-system-x86_64")) == 0
    assert bool(called.out) is not lacks
