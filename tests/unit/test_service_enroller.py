# SPDX-License-Identifier: GPL-2.0-or-later
"""Each domain is seen to once, whatever libvirt makes of it, and complained of once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from tests.host.domain import Vnc, domain_xml
from virtwarden import log
from virtwarden.enrolment.enrol import is_enrolled
from virtwarden.errors import Refusal
from virtwarden.nextstart import NextStart
from virtwarden.paths import Paths
from virtwarden.service import enroller as service_enroller
from virtwarden.service.definitions import Definitions
from virtwarden.service.enroller import Enroller

REPOSITORY = Path(__file__).parents[2]
# The keeper reads a policy, which nobody but root may have written.
pytestmark = pytest.mark.root


ADDED = libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED
UPDATED = libvirt.VIR_DOMAIN_EVENT_DEFINED_UPDATED
DEFINED, UNDEFINED = libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED


class FakeDomain:
    """A domain that is kept, and does not run."""

    def __init__(self, xml: str) -> None:
        self.xml = xml
        self.uuid = xml.partition("<uuid>")[2].partition("<")[0]
        self.undefined: list[str] = []

    def name(self) -> str:
        return self.xml.partition("<name>")[2].partition("<")[0]

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's
        return self.uuid

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's
        return self.xml

    def isPersistent(self) -> bool:  # noqa: N802 - libvirt's
        return True

    def isActive(self) -> bool:  # noqa: N802 - libvirt's
        return False

    def hasManagedSaveImage(self) -> bool:  # noqa: N802 - libvirt's
        return False

    def undefineFlags(self, _flags: int) -> None:  # noqa: N802 - libvirt's
        self.undefined.append(self.name())

    def listAllSnapshots(self) -> list[object]:  # noqa: N802 - libvirt's
        return []

    listAllCheckpoints = listAllSnapshots  # noqa: N815 - libvirt's


class FakeLibvirt:
    """libvirt, which may have its own ideas of what it keeps."""

    def __init__(self, *names: str, keeps: Callable[[str], str] = lambda xml: xml) -> None:
        domains = [FakeDomain(domain_xml(name)) for name in names]
        self.domains = {domain.uuid: domain for domain in domains}
        self.defined: list[str] = []
        self.undefined: list[str] = []
        self.meanwhile: list[str | None] = []  # what others define, or undefine, before us
        self.afterwards: list[str] = []  # what others define right after us
        self._untold: list[tuple[str, int, int]] = []
        self.one_at_a_time = False
        self.late: list[tuple[str, int, int]] = []  # of what happened before the look
        self.alive = True
        self._keeps = keeps

    def listAllDomains(self) -> list[FakeDomain]:  # noqa: N802 - libvirt's
        return list(self.domains.values())

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:  # noqa: N802 - libvirt's
        return self.domains[uuid]

    def defineXML(self, xml: str) -> None:  # noqa: N802 - libvirt's
        if not self.alive:
            raise libvirt.libvirtError("client socket is closed")
        defined = FakeDomain(self._keeps(xml))
        self._untold += self.late
        self.late.clear()
        is_there = True
        for theirs in [*self.meanwhile, defined.name()]:
            act = (DEFINED, UPDATED if is_there else ADDED) if theirs else (UNDEFINED, 0)
            self._untold += [("another", DEFINED, ADDED), (defined.uuid, *act)]
            is_there = theirs is not None
        self.meanwhile.clear()
        self.domains[defined.uuid].xml = defined.xml
        self.domains[defined.uuid].undefined = self.undefined
        self.defined.append(defined.name())
        if self.afterwards:
            self.domains[defined.uuid].xml = self.afterwards.pop(0)

    def tell(self, definitions: Definitions) -> None:
        """Have the service hear what happened."""
        told = self._untold[:1] if self.one_at_a_time else self._untold[:]
        del self._untold[: len(told)]
        for uuid, event, detail in told:
            definitions.note(uuid, event, detail)

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's
        return self.alive

    def the(self, name: str) -> FakeDomain:
        (found,) = [domain for domain in self.domains.values() if domain.name() == name]
        return found


Lines = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    found: Lines = []

    def event(_: log.Level, what: str, **fields: Any) -> None:
        if what != "all-seen-to":
            found.append((what, fields))

    monkeypatch.setattr(log, "event", event)
    return found


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    for name in ("etc", "etc/policy.d"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "etc/policy.toml").write_text('managed = ["*", "!theirs"]\n')
    return Paths(
        policy=tmp_path / "etc/policy.toml",
        policy_dir=tmp_path / "etc/policy.d",
        schema=REPOSITORY / "policy/schema.json",
        run=tmp_path / "run",
        state=tmp_path / "state",
    )


def enroller(paths: Paths, fake: FakeLibvirt) -> Enroller:
    connection: Any = fake
    definitions = Definitions(connection, lambda _: fake.tell(definitions))
    return Enroller(paths, connection, definitions)


def test_what_is_managed_is_enrolled_once(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01", "theirs")
    enrolling = enroller(paths, fake)
    for _ in range(3):
        enrolling.see_to_all()
    assert fake.defined == ["web01"]
    assert [what for what, _ in lines] == ["enrolled"]
    assert is_enrolled(fake.the("web01").xml.encode(), paths)
    assert not is_enrolled(fake.the("theirs").xml.encode(), paths)


def test_a_domain_that_is_edited_back_is_enrolled_again(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    enrolling = enroller(paths, fake)
    for _ in range(2):
        fake.the("web01").xml = domain_xml("web01")
        enrolling.see_to(fake.the("web01").uuid)
    assert fake.defined == ["web01", "web01"]


def test_a_libvirt_that_drops_what_enrolment_writes_is_not_asked_for_ever(
    paths: Paths, lines: Lines
) -> None:
    fake = FakeLibvirt("web01", keeps=lambda xml: xml.replace('relabel="yes"', 'relabel="no"'))
    enrolling = enroller(paths, fake)
    for _ in range(5):
        enrolling.see_to(fake.the("web01").uuid)
    assert fake.defined == ["web01", "web01"]
    ((what, fields),) = lines
    assert what == "not-enrolled"
    assert "libvirt changes what enrolment writes" in str(fields["reason"])


def test_a_libvirt_that_sorts_devices_anew_has_kept_all(paths: Paths, lines: Lines) -> None:
    """As it does with the controllers of a q35 machine."""

    def sorted_anew(xml: str) -> str:
        root = etree.fromstring(xml)
        devices = root.find("devices")
        assert devices is not None
        devices[:] = reversed(devices)
        return etree.tostring(root, encoding="unicode")

    fake = FakeLibvirt("web01", keeps=sorted_anew)
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert [what for what, _ in lines] == ["enrolled"]


def test_a_domain_that_somebody_undefined_meanwhile_does_not_come_back(
    paths: Paths, lines: Lines
) -> None:
    fake = FakeLibvirt("web01")
    fake.meanwhile = [None]
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert fake.undefined == ["web01"]
    assert lines == []


def test_nor_where_libvirt_tells_of_others_between(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    fake.meanwhile, fake.one_at_a_time = [None], True
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert fake.undefined == ["web01"]


def test_that_it_was_added_before_the_look_is_no_news(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    fake.late = [(fake.the("web01").uuid, DEFINED, ADDED)]
    fake.meanwhile = [None]
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert fake.undefined == ["web01"]
    assert lines == []


def test_one_that_was_defined_anew_meanwhile_stays(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    fake.meanwhile = [None, "web01"]
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert fake.undefined == []


def test_an_edit_that_the_service_wrote_over_is_told(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    fake.meanwhile = ["web01"]
    enroller(paths, fake).see_to(fake.the("web01").uuid)
    assert [what for what, _ in lines] == ["overwritten", "enrolled"]


def test_what_somebody_else_defined_right_after_is_enrolled_too(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    theirs = domain_xml("web01", vnc=Vnc())
    fake.afterwards = [theirs]
    enrolling = enroller(paths, fake)
    for _ in range(3):
        enrolling.see_to(fake.the("web01").uuid)
    assert fake.defined == ["web01", "web01"]
    assert is_enrolled(fake.the("web01").xml.encode(), paths)
    assert "graphics" in fake.the("web01").xml
    assert [what for what, _ in lines] == ["enrolled"]


def test_a_domain_that_the_policy_lets_go_is_what_it_was(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    former = fake.the("web01").xml
    enrolling = enroller(paths, fake)
    enrolling.see_to_all()
    paths.policy.write_text('managed = ["*", "!web01"]\n')
    enrolling.see_to_all()
    assert [what for what, _ in lines] == ["enrolled", "unenrolled"]
    assert fake.the("web01").xml.split() == former.split()


def test_a_broken_policy_is_complained_of_once_and_read_again(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01", "web02")
    enrolling = enroller(paths, fake)
    paths.policy.write_text("managed = 1\n")
    for _ in range(2):
        enrolling.see_to_all()
    assert [what for what, _ in lines] == ["broken-policy"]
    assert enrolling.unfinished == []
    paths.policy.write_text('managed = ["*"]\n')
    enrolling.see_to_all()
    assert fake.defined == ["web01", "web02"]


@pytest.mark.process
def test_a_domain_that_cannot_be_enrolled_holds_up_no_other(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01", "web02")
    source = "<driver type='qcow2'/><source file='/nowhere'/><target dev='vda'/>"
    disk = f"<disk type='file'>{source}</disk>"
    whole = fake.the("web01").xml
    fake.the("web01").xml = whole.replace("</devices>", f"{disk}</devices>")
    enrolling = enroller(paths, fake)
    for _ in range(3):
        enrolling.see_to_all()
    assert [(what, fields["domain"]) for what, fields in lines] == [
        ("not-enrolled", "web01"),
        ("enrolled", "web02"),
    ]
    assert enrolling.unfinished == [fake.the("web01").uuid]
    fake.the("web01").xml = whole
    enrolling.see_to(fake.the("web01").uuid)
    assert enrolling.unfinished == []
    assert fake.defined == ["web02", "web01"]


def test_an_edit_that_came_while_the_domain_was_looked_at_is_not_written_over(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeLibvirt("web01")
    domain = fake.the("web01")
    edited = domain.xml.replace("64</memory>", "128</memory>")
    answers = [domain.xml, edited]
    monkeypatch.setattr(domain, "XMLDesc", lambda _: answers.pop(0))
    enroller(paths, fake).see_to(domain.uuid)
    assert fake.defined == []


def test_that_libvirt_is_gone_is_no_domains_fault(paths: Paths, lines: Lines) -> None:
    fake = FakeLibvirt("web01")
    fake.alive = False
    with pytest.raises(Exception, match="client socket is closed"):
        enroller(paths, fake).see_to_all()
    assert lines == []


# Permissive


def foreseen(monkeypatch: pytest.MonkeyPatch, *, lacks: bool) -> None:
    found = NextStart((Refusal("a folder of others", fix="chown"),), may_lack_access=lacks)
    monkeypatch.setattr(service_enroller, "foresee", lambda *_: found)


def test_a_permissive_domain_is_enrolled_where_its_own_user_can_open_all(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.policy.write_text('managed = ["*"]\nmode = "permissive"\n')
    foreseen(monkeypatch, lacks=False)
    fake = FakeLibvirt("web01")
    enroller(paths, fake).see_to_all()
    assert [what for what, _ in lines] == ["enrolled"]


def test_otherwise_it_stays_as_it_is_which_is_told_once_until_it_is_set_right(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.policy.write_text('managed = ["*"]\nmode = "permissive"\n')
    foreseen(monkeypatch, lacks=True)
    fake = FakeLibvirt("web01")
    enrolling = enroller(paths, fake)
    for _ in range(3):
        enrolling.see_to_all()
    ((what, fields),) = lines
    assert what == "not-enrolled"
    assert "it is permissive" in str(fields["reason"])
    assert "a folder of others; fix: chown" in str(fields["reason"])
    assert (fake.defined, enrolling.unfinished) == ([], [fake.the("web01").uuid])
    foreseen(monkeypatch, lacks=False)
    enrolling.see_to(fake.the("web01").uuid)
    assert (fake.defined, enrolling.unfinished) == (["web01"], [])


def test_one_that_was_enrolled_and_became_permissive_is_what_it_was_and_comes_back(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeLibvirt("web01")
    former = fake.the("web01").xml
    enrolling = enroller(paths, fake)
    enrolling.see_to_all()
    paths.policy.write_text('managed = ["*"]\nmode = "permissive"\n')
    foreseen(monkeypatch, lacks=True)
    for _ in range(3):
        enrolling.see_to_all()
    assert [what for what, _ in lines] == ["enrolled", "unenrolled", "not-enrolled"]
    assert fake.the("web01").xml.split() == former.split()
    foreseen(monkeypatch, lacks=False)
    enrolling.see_to(fake.the("web01").uuid)
    assert is_enrolled(fake.the("web01").xml.encode(), paths)


def test_an_enforcing_domain_is_enrolled_whatever_its_start_will_be_refused_for(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreseen(monkeypatch, lacks=True)
    fake = FakeLibvirt("web01")
    enroller(paths, fake).see_to_all()
    assert [what for what, _ in lines] == ["enrolled"]
