# SPDX-License-Identifier: GPL-2.0-or-later
"""The identity guard: whose user a domain may run as."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import xmls
from fake_host import UID, FakeHost, account_of, case_of, process_of, refusal, refusals, rules
from hypothesis import given
from hypothesis import strategies as st

from virtwarden.changes import CreateUser, GrantAccess, MakeDirectory, TakeDirectory
from virtwarden.guards import identity
from virtwarden.guards.base import Case, Op
from virtwarden.guards.identity import candidates
from virtwarden.system.users import Account

ENROL = "fix: virt-warden enrol web01"
CREATE = "virsh create what this prints: virt-warden enrol --xml FILE"


def case(labels: str | None = None, host: FakeHost | None = None, op: Op = Op.PREPARE) -> Case:
    return case_of(xmls.domain(labels=labels), rules(), host or FakeHost(), op)


def settled(op: Op = Op.PREPARE, account: Account | None = None) -> Case:
    """A domain whose user is there."""
    host = FakeHost()
    host.accounts["vmw-web01"] = account or account_of("vmw-web01", xmls.UUID)
    return case(host=host, op=op)


# Names


HOSTILE_NAMES = [
    "root",
    "../x",
    "..",
    "-rf",
    "--help",
    "a b",
    "a\nb",
    "a:b",
    "a,b",
    "WEB01",
    "ünïcødé",
    "\u202egnp.exe",
    "n" * 200,
    "$(reboot)",
    "'; rm -rf / #",
    "web01\0",
    "٣",
    "",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_of_a_domain_makes_an_unsafe_name_of_a_user(name: str) -> None:
    for found in candidates("vmw-", name, xmls.UUID):
        assert re.fullmatch(r"vmw-[a-z0-9-]{1,28}", found)


@given(st.text(max_size=60), st.uuids(), st.sampled_from(["vmw-", "a-", "longest-pr-"]))
def test_every_user_has_the_prefix_and_fits(name: str, uuid: object, prefix: str) -> None:
    for found in candidates(prefix, name, str(uuid)):
        assert found.startswith(prefix)
        assert len(found) <= 32
        assert re.fullmatch(r"[a-z0-9-]+", found)


@given(st.text(max_size=40), st.text(max_size=40))
def test_only_the_same_name_gives_the_same_plain_user(one: str, other: str) -> None:
    first, *_ = candidates("vmw-", one, "11111111-0000-4000-8000-000000000001")
    second, *_ = candidates("vmw-", other, "22222222-0000-4000-8000-000000000001")
    assert (first == second) <= (one == other)


def test_uuids_that_begin_alike_still_tell_two_domains_apart() -> None:
    one, other = (candidates("vmw-", "a b", uuid) for uuid in (xmls.UUID, xmls.OTHER))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_plain_name_stays_readable_and_has_a_second_choice() -> None:
    assert candidates("vmw-", "web01", xmls.UUID) == (
        "vmw-web01",
        "vmw-web01-6f1c1a4e",
        "vmw-1a4e000040008000000000000001",
    )
    assert candidates("vmw-", "n" * 28, xmls.UUID)[0] == "vmw-" + "n" * 28
    assert candidates("vmw-", "n" * 29, xmls.UUID)[0] == "vmw-" + "n" * 19 + "-6f1c1a4e"


# Attacks


@pytest.mark.parametrize(
    "labels",
    [
        "",
        xmls.label(kind="dynamic"),
        xmls.label(relabel="no"),
        xmls.label() * 2,
        xmls.label() + xmls.label("root"),
        "<seclabel type='none' model='dac'/>",
        "<seclabel type='static' model='dac' relabel='yes'/>",
        xmls.label().replace("vmw-web01:vmw-web01", "vmw-web01"),
        xmls.label().replace("vmw-web01:vmw-web01", "vmw-web01:kvm"),
        xmls.label().replace("vmw-web01:vmw-web01", "vmw-web01:root"),
        xmls.label().replace("vmw-web01:vmw-web01", ":"),
        xmls.label().replace("dac", "selinux"),
        xmls.label().replace(" model='dac'", ""),
    ],
)
def test_a_domain_without_its_very_label_is_not_enrolled(labels: str) -> None:
    line = refusal(identity, case(labels))
    assert line.startswith("it is not enrolled")
    assert line.endswith(ENROL)


def test_a_start_that_cannot_be_adopted_is_refused_with_the_reason() -> None:
    host = FakeHost(no_adoption="user.max_user_namespaces is 0")
    line = refusal(identity, replace(case(host=host), adopted=True))
    assert "cannot get a user at its start: user.max_user_namespaces is 0" in line
    assert "fix: virt-warden enrol web01, then start it again" in line
    assert identity.review(case(host=host)) == []


def test_one_that_is_only_created_is_told_the_way_that_it_has() -> None:
    """No command of virt-warden's or virsh's edits what libvirt does not keep."""
    host = FakeHost(defined=False, no_adoption="user.max_user_namespaces is 0")
    line = refusal(identity, replace(case(host=host), adopted=True))
    assert line.endswith(f"fix: {CREATE}")
    line = refusal(identity, case("", FakeHost(defined=False)))
    assert line.endswith(f"remove its <emulator>, and libvirt takes virt-warden's; or {CREATE}")
    made = case(host=FakeHost(defined=False))
    assert made.edit == "edit the file that it is created from"


@pytest.mark.parametrize("user", ["root", "libvirt-qemu", "vmw-db01", "vmw-web02", "+0", "0"])
def test_a_label_that_names_another_is_refused(user: str) -> None:
    host = FakeHost()
    host.accounts["root"] = Account("root", 0, 0)
    host.accounts["libvirt-qemu"] = Account("libvirt-qemu", 64055, 64055)
    host.accounts["vmw-db01"] = account_of("vmw-db01", xmls.OTHER)
    line = refusal(identity, case(xmls.label(user), host))
    assert f"user {user} is not " in line
    assert line.endswith(ENROL)


def test_a_user_of_its_name_that_somebody_made_by_hand_is_not_taken_over() -> None:
    host = FakeHost()
    host.accounts["vmw-web01"] = Account("vmw-web01", 1000, 1000)
    assert "user vmw-web01 is not this domain's own" in refusal(identity, case(host=host))


def test_a_group_of_its_name_that_somebody_made_by_hand_is_not_taken_over() -> None:
    line = refusal(identity, case(host=FakeHost(groups={"kvm": 109, "vmw-web01": 1000})))
    assert "group vmw-web01 is not this domain's own" in line
    assert line.endswith(ENROL)


@pytest.mark.parametrize("uid", [0, 1000, 69999, 100000])
def test_its_own_user_with_a_uid_out_of_the_range_is_refused(uid: int) -> None:
    line = refusal(identity, settled(account=account_of("vmw-web01", xmls.UUID, uid)))
    assert f"has uid {uid}, outside uid_range, 70000 to 99999" in line
    assert "widen uid_range" in line


# Honest passage


@pytest.mark.parametrize("uid", [70000, 99999])
def test_its_own_user_passes(uid: int) -> None:
    assert refusals(identity, settled(account=account_of("vmw-web01", xmls.UUID, uid))) == []


def test_a_user_that_is_not_there_yet_passes_under_either_name() -> None:
    assert refusals(identity, case()) == []
    assert refusals(identity, case(xmls.label("vmw-web01-6f1c1a4e"))) == []


def test_labels_of_other_models_are_no_concern() -> None:
    apparmor = "<seclabel type='dynamic' model='apparmor' relabel='yes'/>"
    assert refusals(identity, case(apparmor + xmls.label())) == []


def test_a_domain_that_was_renamed_keeps_its_user() -> None:
    host = FakeHost()
    host.accounts["vmw-old"] = account_of("vmw-old", xmls.UUID)
    assert refusals(identity, case(xmls.label("vmw-old"), host)) == []


# Plan


def test_the_first_start_makes_a_user_with_nothing_but_kvm() -> None:
    create, directory, *_ = identity.plan(case())
    assert create == CreateUser("vmw-web01", xmls.UUID, (70000, 99999), ("kvm",))
    assert directory == MakeDirectory(f"/run/virt-warden/{xmls.UUID}", "vmw-web01")


def test_where_there_is_no_kvm_group_the_user_is_in_no_other() -> None:
    host = FakeHost(groups={})
    create = identity.plan(case(host=host))[0]
    assert isinstance(create, CreateUser)
    assert create.groups == ()


def test_a_later_start_makes_no_user() -> None:
    assert not [c for c in identity.plan(settled()) if isinstance(c, CreateUser)]


def test_a_closed_directory_of_libvirts_is_opened_for_searching_alone() -> None:
    (grant,) = [c for c in identity.plan(case()) if isinstance(c, GrantAccess)]
    assert (grant.path, grant.permissions) == ("/var/lib/libvirt/qemu", 1)


def test_an_open_directory_of_libvirts_is_left_alone() -> None:
    host = FakeHost()
    host.directory("/var/lib/libvirt/qemu", 0o751)
    assert not [c for c in identity.plan(case(host=host)) if isinstance(c, GrantAccess)]


def test_only_a_domain_with_an_emulated_tpm_may_enter_the_tpms_directory() -> None:
    assert identity.plan(settled(Op.START)) == []
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    with_tpm = case_of(xmls.domain(tpm), rules(), FakeHost(), Op.START)
    (grant,) = identity.plan(with_tpm)
    assert isinstance(grant, GrantAccess)
    assert (grant.path, grant.permissions) == ("/run/libvirt/qemu/swtpm", 1)
    assert identity.plan(replace(with_tpm, op=Op.STARTED)) == []


# Promise


def test_a_qemu_that_is_its_user_alone_keeps_the_promise() -> None:
    own = settled(Op.STARTED)
    assert own.account is not None
    assert identity.verify(own, process_of(own.account)) == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"uids": (UID, 0, UID, UID)}, "QEMU's uids are"),
        ({"uids": (UID, UID, UID, 0)}, "QEMU's uids are"),
        ({"gids": (UID, UID, 0, UID)}, "QEMU's gids are"),
        ({"groups": (UID, 106, 27)}, "in groups [27]"),
        ({"capabilities": 1 << 21}, "holds capabilities 0x200000"),
    ],
)
def test_any_id_group_or_capability_more_breaks_it(
    broken: dict[str, object], sentence: str
) -> None:
    own = settled(Op.STARTED)
    assert own.account is not None
    (breach,) = identity.verify(own, process_of(own.account, **broken))
    assert sentence in breach


def test_a_user_that_was_removed_breaks_it() -> None:
    account = account_of("vmw-web01", xmls.UUID)
    (breach,) = identity.verify(case(op=Op.STARTED), process_of(account))
    assert "there is no user vmw-web01" in breach


SOCKETS = "/var/lib/libvirt/qemu/domain-7-web01"


def with_sockets(uid: int) -> tuple[FakeHost, Case]:
    """A running domain; whose the directory with its monitor's socket is."""
    found = settled(Op.STARTED)
    host = found.facts
    assert isinstance(host, FakeHost)
    host.directory(SOCKETS, 0o750, uid=uid)
    host.socket_directories = (SOCKETS,)
    return host, found


def test_root_takes_libvirts_sockets_from_the_user_once_qemu_runs() -> None:
    host, found = with_sockets(UID)
    inode = host.inodes[SOCKETS]
    assert identity.plan(found) == [TakeDirectory(SOCKETS, inode.device, inode.number)]
    (breach,) = identity.verify(found, process_of(account_of("vmw-web01", xmls.UUID)))
    assert f"{SOCKETS}, with libvirt's sockets, belongs to uid {UID}" in breach
    _, found = with_sockets(0)
    assert identity.plan(found) == []
    assert identity.verify(found, process_of(account_of("vmw-web01", xmls.UUID))) == []


def test_a_symlink_among_libvirts_sockets_is_a_breach() -> None:
    host, found = with_sockets(0)
    host.symlink(f"{SOCKETS}/monitor.sock", "/var/lib/libvirt/qemu/domain-8-web02/monitor.sock")
    (breach,) = identity.verify(found, process_of(account_of("vmw-web01", xmls.UUID)))
    assert "is a symlink" in breach
