# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of change, done for real and undone, with a crash at any moment in between."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.host.images import luks
from tests.host.tap import open_tap
from tests.libvirt.faults import kill_while_writing
from tests.libvirt.snapshots import make_base_chains, snapshot
from virtwarden import gate
from virtwarden.changes import (
    KINDS,
    AdmitTaps,
    Change,
    Claim,
    ClearWay,
    CopyFile,
    CreateUser,
    EndProcesses,
    GiveAllowed,
    GiveMade,
    GiveNodes,
    GrantAccess,
    HideProgram,
    InstallFilters,
    IssueCertificate,
    LimitReach,
    LockShared,
    MakeDirectory,
    MapIds,
    NodeRule,
    OpenLuks,
    Regain,
    RequireSocketOf,
    RequireUnopened,
    RestrictPorts,
    Scope,
    SetAccess,
    SetBridgePort,
    TakeBack,
    TakeDirectory,
    WriteFile,
    journal,
)
from virtwarden.changes.accounts import ledger
from virtwarden.changes.reach import noted
from virtwarden.errors import HostError, Refusal
from virtwarden.paths import Paths
from virtwarden.pki import consoles
from virtwarden.system import files, mapper, portfilter, reach, users
from virtwarden.system.mapper import NODES
from virtwarden.system.netfilter import TapFilter
from virtwarden.system.reach import Way
from virtwarden.system.run import run

PATHS = Paths()
DOMAIN = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
USER = CreateUser("vmw-changes", DOMAIN, (70000, 70999), ("kvm",))
OTHER_USER = CreateUser("vmw-other", OTHER, (70000, 70999), ("kvm",))
KEY = "a key that is nobody's to read"
MAC = "52:54:00:00:00:01"


@dataclass(frozen=True)
class Ground:
    """What the changes of one test are done to."""

    directory: Path
    image: Path
    tap: str
    processes: ExitStack
    """They end with the test."""

    def file(self, path: Path) -> tuple[str, int, int]:
        found = path.stat()
        return str(path), found.st_dev, found.st_ino

    def state(self) -> dict[str, str]:
        trees = [self.directory, PATHS.run, PATHS.shared, PATHS.udev_rules, NODES]
        trees.append(PATHS.boot_files)
        return snapshot(trees) | {"maps": repr(mapper.maps(PATHS.block_devices))}


@pytest.fixture
def ground(images: Path, dm: None) -> Iterator[Ground]:
    image = images / "disk.img"
    image.write_bytes(b"disk")
    image.chmod(0o644)
    os.chown(image, 1234, 5678)
    PATHS.run.mkdir(mode=0o711, exist_ok=True)
    files.private_directory(PATHS.claims)
    files.private_directory(PATHS.filters)
    files.private_directory(PATHS.shared)
    files.private_directory(PATHS.boot_files.parent)
    files.passable_directory(PATHS.boot_files)
    files.private_directory(PATHS.reach)
    files.private_directory(PATHS.ports)
    make_base_chains()
    files.private_directory(PATHS.run / "luks")
    PATHS.udev_rules.mkdir(parents=True, exist_ok=True)
    for program in ("iptables", "ip6tables"):
        for what in ("-A", "-D"):
            for chain in ("INPUT", "OUTPUT"):
                run(f"/usr/sbin/{program}", what, chain, "-j", "RETURN")
    # Up for another domain, and before the tap is there, which would else be nobody's to guard.
    gate.install(PATHS, OTHER, "nftables", "nftables", (), ())
    tap = open_tap("vnet-ch")
    run("/usr/sbin/ip", "link", "add", "br-ch", "type", "bridge")
    run("/usr/sbin/ip", "link", "set", "vnet-ch", "master", "br-ch")
    for user in (USER, OTHER_USER):
        _done(user)
    with ExitStack() as processes:
        yield Ground(images, image, "vnet-ch", processes)
    gate.uninstall(PATHS, OTHER, ())
    run("/usr/sbin/ip", "link", "delete", "br-ch")
    os.close(tap)
    for user in (USER, OTHER_USER):
        account = users.account(user.name)
        if account:
            users.remove(user.name, account.uid)


def _done(change: Change) -> dict[str, Any]:
    before = change.capture(PATHS)
    change.apply(PATHS, before)
    return before


def _cell(ground: Ground) -> str:
    directory = PATHS.cell(DOMAIN)
    return str(directory)


def _container(ground: Ground) -> OpenLuks:
    container = luks(ground.directory / "container", KEY)
    key = ground.directory / "key"
    key.write_text(KEY)
    key.chmod(0o400)
    return OpenLuks(
        *ground.file(container),
        mapper="vmw-changes-vda",
        key_kind="file",
        key_value=str(key),
        purpose="Passphrase for disk vda of web01",
        user=USER.name,
        readonly=False,
        discard=False,
    )


EXAMPLES: dict[type[Any], Callable[[Ground], Change]] = {
    CreateUser: lambda _: replace(USER, name="vmw-new", domain=DOMAIN[::-1]),
    EndProcesses: lambda _: EndProcesses(USER.name),
    SetAccess: lambda g: SetAccess(*g.file(g.image), USER.name, 0o600),
    GrantAccess: lambda g: GrantAccess(*g.file(g.directory), USER.name, 1),
    LockShared: lambda g: LockShared(*g.file(g.image), DOMAIN),
    TakeBack: lambda g: TakeBack(*g.file(_given_away(g))),
    TakeDirectory: lambda g: TakeDirectory(*g.file(g.directory)),
    ClearWay: lambda g: ClearWay("7", (str(g.directory),)),
    MakeDirectory: lambda g: MakeDirectory(_cell(g), USER.name),
    NodeRule: lambda _: NodeRule("vmw-changes-vda", USER.name),
    OpenLuks: _container,
    WriteFile: lambda g: WriteFile(str(g.directory / "ticket.json"), "{}", USER.name),
    IssueCertificate: lambda g: IssueCertificate(
        str(g.directory / "tls"), USER.name, DOMAIN, ("localhost", "127.0.0.1")
    ),
    Claim: lambda g: Claim(*g.file(g.image), DOMAIN, "web01", write=True, shareable=False),
    CopyFile: lambda g: CopyFile(
        *g.file(g.image), str(PATHS.boot_files / DOMAIN / "kernel"), USER.name
    ),
    InstallFilters: lambda g: InstallFilters(
        DOMAIN, "nftables", "nftables", ("vpn*",), (_filter(g.tap),), kept=(g.tap,)
    ),
    Regain: lambda g: Regain(*g.file(_given_away(g)), ""),
    GiveAllowed: lambda g: GiveAllowed(*g.file(_given_away(g)), USER.name),
    HideProgram: lambda g: HideProgram(*g.file(_hidden(g)), "kvm"),
    GiveMade: lambda _: GiveMade("7-changes", USER.name),
    GiveNodes: lambda g: GiveNodes(_namespaced(g), USER.name),
    MapIds: lambda g: MapIds(_namespaced(g), USER.name),
    RequireSocketOf: lambda g: RequireSocketOf(_socket(g), (str(g.directory),)),
    RequireUnopened: lambda g: RequireUnopened(*g.file(g.image), reading=True),
    RestrictPorts: lambda _: RestrictPorts(
        DOMAIN, "nftables", (5900, 5700), ("192.0.2.0/24", "2001:db8::7")
    ),
    LimitReach: lambda _: LimitReach(
        DOMAIN,
        USER.name,
        (Way(first=5900, last=5900), Way("any", "a", ("192.0.2.0/24", "2001:db8::7"), 1, 9)),
    ),
    AdmitTaps: lambda g: AdmitTaps((g.tap,), (1,)),
    SetBridgePort: lambda g: SetBridgePort(g.tap, vlan=0, isolated=True),
}


def test_one_users_limit_comes_and_goes_beside_anothers(ground: Ground) -> None:
    change = EXAMPLES[LimitReach](ground)
    assert isinstance(change, LimitReach)
    other = replace(change, domain=OTHER, user=OTHER_USER.name, ways=())
    state = ground.state()
    _done(change)
    with_one = ground.state()
    before = _done(other)
    for each in (change, other):
        limit = noted(PATHS, each.domain)
        assert limit is not None
        assert limit.ways == each.ways
        assert reach.missing(limit) == ""
        assert reach.missing(replace(limit, ways=limit.ways[1:] or change.ways))
    _done(replace(other, ways=change.ways))
    other.undo(PATHS, before)
    assert ground.state() == with_one
    change.undo(PATHS, {})
    assert ground.state() == state


def _filter(tap: str) -> TapFilter:
    return TapFilter(tap, MAC, deny_mac_spoofing=True, deny_arp_spoofing=True, deny_vlan_tags=True)


def _given_away(ground: Ground) -> Path:
    kernel = ground.directory / "kernel"
    kernel.touch()
    return kernel


def _hidden(ground: Ground) -> Path:
    """As QEMU is from the first start on that was adopted, until virt-warden is removed."""
    program = ground.directory / "qemu"
    program.touch(0o755)
    run("/usr/bin/setfacl", "--modify", "g:kvm:--x", str(program))
    return program


def _socket(ground: Ground) -> str:
    path = ground.directory / "socket"
    # bind(2) takes no path as long as some here.
    os.mknod(path, stat.S_IFSOCK | 0o600)
    return str(path)


def _namespaced(ground: Ground) -> int:
    """A process in a new user namespace, into which nobody is mapped."""
    cat = subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    ground.processes.enter_context(cat)
    ground.processes.callback(cat.kill)
    assert cat.stdin is not None
    assert cat.stdout is not None
    cat.stdin.write(b"there\n")
    cat.stdin.flush()
    assert cat.stdout.readline() == b"there\n"
    return cat.pid


@pytest.fixture(params=sorted(KINDS))
def change(request: pytest.FixtureRequest, ground: Ground) -> Change:
    return EXAMPLES[KINDS[request.param]](ground)


def test_every_kind_of_change_is_tried_here() -> None:
    assert set(EXAMPLES) == set(KINDS.values())


def test_a_change_that_is_undone_leaves_what_was_there(ground: Ground, change: Change) -> None:
    state = ground.state()
    before = _done(change)
    assert change.undo(PATHS, before) == ""
    assert ground.state() == state


def test_undo_may_come_twice(ground: Ground, change: Change) -> None:
    state = ground.state()
    before = _done(change)
    change.undo(PATHS, before)
    change.undo(PATHS, before)
    assert ground.state() == state


def test_undo_may_come_where_nothing_was_done(ground: Ground, change: Change) -> None:
    state = ground.state()
    before = change.capture(PATHS)
    change.undo(PATHS, before)
    assert ground.state() == state


# What is undone by others: by another record, by libvirt, or with the process.
_WITHOUT_A_TRACE = {
    *("ClearWay", "EndProcesses", "GiveAllowed", "GiveMade", "GiveNodes", "HideProgram", "MapIds"),
    *("Regain", "RequireSocketOf", "RequireUnopened", "TakeBack", "TakeDirectory"),
}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - _WITHOUT_A_TRACE))
def test_a_change_alters_the_host(ground: Ground, kind: str) -> None:
    change = EXAMPLES[KINDS[kind]](ground)
    state = ground.state()
    before = _done(change)
    assert ground.state() != state
    change.undo(PATHS, before)


@pytest.mark.parametrize("backend", ["nftables", "ebtables"])
def test_a_filter_of_either_backend_leaves_no_rule(ground: Ground, backend: str) -> None:
    example = EXAMPLES[InstallFilters](ground)
    assert isinstance(example, InstallFilters)
    change = replace(example, backend=backend)
    state = ground.state()
    before = _done(change)
    assert MAC in "".join(ground.state().values())
    change.undo(PATHS, before)
    assert ground.state() == state


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_ports_of_either_backend_are_restricted_once_and_leave_no_rule(
    ground: Ground, backend: str
) -> None:
    example = EXAMPLES[RestrictPorts](ground)
    assert isinstance(example, RestrictPorts)
    change = replace(example, backend=backend)
    promise, firewall = change.promise, portfilter.BACKENDS[backend]
    state = ground.state()
    assert firewall.missing(promise)
    before = _done(change)
    _done(change)
    assert firewall.missing(promise) == ""
    assert firewall.missing(replace(promise, sources=("192.0.2.0/24",)))
    assert firewall.missing(replace(promise, ports=(5900,)))
    change.undo(PATHS, before)
    assert ground.state() == state
    assert firewall.missing(promise)


PLAN = sorted(set(KINDS) - {"CreateUser"})
STEPS = [(kind, moment) for kind in PLAN for moment in ("written down", "done")]


@pytest.mark.parametrize(("kind", "moment"), STEPS)
def test_after_a_kill_at_any_step_a_fresh_process_undoes_all(
    ground: Ground, kind: str, moment: str
) -> None:
    plan = [EXAMPLES[KINDS[name]](ground) for name in PLAN]
    state = ground.state()
    _perform_until(plan, kind, moment)
    with journal.locked(PATHS, DOMAIN):
        journal.undo(PATHS, DOMAIN)
        assert journal.records(PATHS, DOMAIN) == []
    assert ground.state() == state


def test_a_file_that_was_being_written_when_the_hook_was_killed_is_gone(
    ground: Ground, change: Change
) -> None:
    if isinstance(change, IssueCertificate):
        change.undo(PATHS, _done(change))  # the authority, which stays, is there
    state = ground.state()
    for which in (1, 2, 4):  # a change may write several, or none
        child = os.fork()
        if child == 0:
            kill_while_writing(which)
            with journal.locked(PATHS, DOMAIN):
                journal.perform(PATHS, DOMAIN, [change])
            os._exit(0)
        os.waitpid(child, 0)
        with journal.locked(PATHS, DOMAIN):
            assert journal.undo(PATHS, DOMAIN) == []
            journal.undo(PATHS, DOMAIN, Scope.ENROLMENT)
        assert ground.state() == state


def test_a_certificate_is_whole_once_the_last_of_its_files_is_there(ground: Ground) -> None:
    change = EXAMPLES[IssueCertificate](ground)
    assert isinstance(change, IssueCertificate)
    _done(change)
    assert change.is_whole
    change.undo(PATHS, {})
    child = os.fork()
    if child == 0:
        kill_while_writing(len(consoles.FILES))
        _done(change)
        os._exit(0)
    os.waitpid(child, 0)
    assert not change.is_whole
    change.undo(PATHS, {})


def test_a_certificate_that_is_cut_off_over_a_former_one_is_not_taken_for_whole(
    ground: Ground,
) -> None:
    former = EXAMPLES[IssueCertificate](ground)
    assert isinstance(former, IssueCertificate)
    change = replace(former, names=(*former.names, "192.0.2.1"))
    for which in range(1, len(consoles.FILES) + 1):
        _done(former)
        child = os.fork()
        if child == 0:
            kill_while_writing(which)
            _done(change)
            os._exit(0)
        os.waitpid(child, 0)
        assert not change.is_whole
    change.undo(PATHS, {})


def test_a_user_half_made_when_the_hook_was_killed_is_finished_or_removed(ground: Ground) -> None:
    user = replace(USER, name="vmw-half", domain=DOMAIN[::-1])
    state = ground.state()
    before = user.capture(PATHS)
    run("/usr/sbin/groupadd", "--gid", str(before["uid"]), user.name)
    user.apply(PATHS, before)
    account = users.account(user.name)
    assert account is not None
    assert account.uid == before["uid"] == account.gid
    run("/usr/sbin/userdel", user.name)
    user.undo(PATHS, before)
    assert ground.state() == state


def _perform_until(plan: list[Change], kind: str, moment: str) -> None:
    """Perform a plan in a process that is killed when one change is written down, or done."""
    child = os.fork()
    if child == 0:
        _kill_at(KINDS[kind], moment)
        with journal.locked(PATHS, DOMAIN):
            journal.perform(PATHS, DOMAIN, plan)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _kill_at(kind: type[Any], moment: str) -> None:
    apply = kind.apply

    def killed(self: Change, paths: Paths, before: dict[str, Any]) -> None:
        if moment == "done":
            apply(self, paths, before)
        os.kill(os.getpid(), signal.SIGKILL)

    kind.apply = killed


def test_a_record_cut_off_by_a_crash_is_passed_over(ground: Ground) -> None:
    change = EXAMPLES[SetAccess](ground)
    state = ground.state()
    with journal.locked(PATHS, DOMAIN):
        journal.perform(PATHS, DOMAIN, [change])
        file = PATHS.domain_state(DOMAIN) / "run.journal"
        with file.open("a") as torn:
            torn.write('{"kind": "SetAcc')
        assert len(journal.records(PATHS, DOMAIN)) == 1
        journal.perform(PATHS, DOMAIN, [EXAMPLES[Claim](ground)])
        assert len(journal.records(PATHS, DOMAIN)) == 2
        journal.undo(PATHS, DOMAIN)
    assert ground.state() == state


def test_a_file_swapped_after_the_review_is_not_touched(ground: Ground) -> None:
    change = EXAMPLES[SetAccess](ground)
    ground.image.rename(ground.directory / "kept-alive")
    victim = ground.directory / "victim"
    victim.write_text("secret")
    ground.image.symlink_to(victim)
    with pytest.raises(HostError, match="no longer the file that was reviewed"):
        _done(change)
    assert victim.stat().st_uid == 0


def test_a_file_swapped_before_the_undo_is_left_alone_and_reported(ground: Ground) -> None:
    change = EXAMPLES[SetAccess](ground)
    before = _done(change)
    ground.image.rename(ground.directory / "kept-alive")
    ground.image.write_text("another's")
    ground.image.chmod(0o640)
    report = change.undo(PATHS, before)
    assert "are not changed" in report
    assert ground.image.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", [SetAccess, LockShared])
@pytest.mark.parametrize("is_file", [False, True], ids=["symlink", "file"])
def test_a_directory_that_became_something_else_does_not_stop_the_undo(
    ground: Ground, kind: type[SetAccess | LockShared], is_file: bool
) -> None:
    """An admin moved the images and left a symlink: else no start would follow."""
    change = EXAMPLES[kind](ground)
    before = _done(change)
    elsewhere = ground.directory.with_name("elsewhere")
    ground.directory.rename(elsewhere)
    try:
        if is_file:
            ground.directory.touch()
        else:
            ground.directory.symlink_to(elsewhere)
        assert "gone" in change.undo(PATHS, before)
    finally:
        ground.directory.unlink()
        elsewhere.rename(ground.directory)


def test_an_owner_that_the_admin_gave_meanwhile_stays(ground: Ground) -> None:
    change = EXAMPLES[SetAccess](ground)
    before = _done(change)
    os.chown(ground.image, 4321, 4321)
    assert "4321" in change.undo(PATHS, before)
    assert ground.image.stat().st_uid == 4321


def test_what_a_vms_user_opened_to_others_is_closed_at_the_stop(ground: Ground) -> None:
    """Its disk belongs to it while it runs: it may set the disk's mode and ACL."""
    state = ground.state()
    change = EXAMPLES[SetAccess](ground)
    before = _done(change)
    ground.image.chmod(0o666)
    run("/usr/bin/setfacl", "--modify", f"user:{OTHER_USER.name}:rw", str(ground.image))
    assert "ACL" in change.undo(PATHS, before)
    assert ground.state() == state
    before = _done(change)
    ground.image.chmod(0o666)
    assert "mode 0666" in change.undo(PATHS, before)
    assert ground.state() == state


def test_owners_come_back_after_a_reboot_that_renumbered_the_devices(ground: Ground) -> None:
    change = EXAMPLES[SetAccess](ground)
    before = _done(change)
    renumbered = replace(change, device=change.device + 7)  # type: ignore[type-var, attr-defined]
    renumbered.undo(PATHS, before)
    assert ground.image.stat().st_uid != 1234
    renumbered.undo(PATHS, {**before, "boot": "another boot"})
    assert ground.image.stat().st_uid == 1234


@pytest.mark.parametrize("first_to_stop", [DOMAIN, OTHER])
def test_a_shared_file_comes_back_with_the_last_domain(ground: Ground, first_to_stop: str) -> None:
    state = ground.state()
    file = ground.file(ground.image)
    plans: dict[str, list[Change]] = {
        domain: [LockShared(*file, domain), GrantAccess(*file, user.name, 4)]
        for domain, user in ((DOMAIN, USER), (OTHER, OTHER_USER))
    }
    for domain, plan in plans.items():
        with journal.locked(PATHS, domain):
            journal.perform(PATHS, domain, plan)
    last_to_stop = OTHER if first_to_stop == DOMAIN else DOMAIN
    for domain in (first_to_stop, last_to_stop):
        shared = ground.image.stat()
        assert (shared.st_uid, shared.st_mode & 0o007) == (0, 0)
        with journal.locked(PATHS, domain):
            assert journal.undo(PATHS, domain) == []
    assert ground.state() == state


def test_domains_that_start_and_stop_at_once_keep_each_others_acl_entries(ground: Ground) -> None:
    granted = [GrantAccess(*ground.file(ground.directory), u.name, 1) for u in (USER, OTHER_USER)]
    children = []
    for change in granted:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(300):
                    before = _done(change)
                    assert change.capture(PATHS)["permissions"] == 1
                    change.undo(PATHS, before)
                    assert change.capture(PATHS)["permissions"] is None
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_a_claim_on_a_file_that_another_domain_writes_is_refused(ground: Ground) -> None:
    claim = EXAMPLES[Claim](ground)
    assert isinstance(claim, Claim)
    before = _done(claim)
    for write in (True, False):
        with pytest.raises(Refusal, match="running domain web01 also uses it"):
            _done(replace(claim, domain=OTHER, name="db01", write=write))
    claim.undo(PATHS, before)
    other = replace(claim, domain=OTHER, name="db01")
    other.undo(PATHS, _done(other))


def test_claims_to_read_and_claims_of_a_cluster_stand_together(ground: Ground) -> None:
    claim = EXAMPLES[Claim](ground)
    assert isinstance(claim, Claim)
    for variant in (replace(claim, write=False), replace(claim, shareable=True)):
        other = replace(variant, domain=OTHER, name="db01")
        first, second = _done(variant), _done(other)
        variant.undo(PATHS, first)
        other.undo(PATHS, second)


def test_processes_that_the_vm_left_behind_end(ground: Ground) -> None:
    account = users.account(USER.name)
    assert account is not None
    child = os.fork()
    if child == 0:
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        if os.fork() == 0:  # one that libvirt would know nothing of
            os.setsid()
        signal.pause()
        os._exit(0)
    handle = os.pidfd_open(child)
    while not users.has_processes(account.uid):
        os.sched_yield()
    EndProcesses(USER.name).undo(PATHS, {})
    ended = os.waitid(os.P_PIDFD, handle, os.WEXITED)
    assert ended is not None
    assert ended.si_status == signal.SIGKILL
    assert not users.has_processes(account.uid)


def kill_all_of(account: users.Account) -> None:
    command = ["/bin/sh", "-c", "kill -KILL -1"]
    subprocess.run(command, user=account.uid, group=account.gid, extra_groups=[], check=False)


HIDING = {
    "under a name that is no text": (
        "ctypes.CDLL(None).prctl(15, b'\\x80', 0, 0, 0); signal.pause()"
    ),
    "as another one each time": "[os._exit(0) for _ in iter(int, 1) if os.fork()]",
    "behind a first thread that has ended": (
        "threading.Thread(target=time.sleep, args=[60]).start(); ctypes.CDLL(None).syscall(60, 0)"
    ),
}


@pytest.mark.parametrize("how", HIDING)
def test_no_process_of_the_vm_hides_from_its_end(ground: Ground, how: str) -> None:
    account = users.account(USER.name)
    assert account is not None
    script = f"import ctypes, os, signal, threading, time; print(flush=True); {HIDING[how]}"
    command = ["/usr/bin/python3", "-c", script]
    ids: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **ids) as hidden:
        assert hidden.stdout
        hidden.stdout.readline()
        time.sleep(0.2)
        try:
            EndProcesses(USER.name).undo(PATHS, {})
            # Its last process has this pipe.
            assert select.select([hidden.stdout], [], [], 5)[0]
            assert not users.has_processes(account.uid)
        finally:
            kill_all_of(account)


def test_root_is_never_the_user_whose_processes_end() -> None:
    with pytest.raises(HostError, match="root's processes are not ended"):
        users.kill_processes(users.Account("root", 0, 0, DOMAIN))
    EndProcesses("root").undo(PATHS, {})


def test_a_uid_is_never_given_twice_even_to_a_user_that_was_removed(ground: Ground) -> None:
    given = []
    for number in range(3):
        user = replace(USER, name=f"vmw-n{number}", domain=f"{number}" * 8)
        before = _done(user)
        user.undo(PATHS, before)
        given.append(before["uid"])
    assert len(set(given)) == 3


def test_two_starts_at_once_get_two_uids(ground: Ground) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _done(replace(USER, name=f"vmw-p{number}", domain=f"{number}" * 8))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    accounts = [users.account(f"vmw-p{number}") for number in range(4)]
    assert len({account.uid for account in accounts if account}) == 4
    for account in accounts:
        assert account is not None
        users.remove(account.name, account.uid)


def test_a_range_that_is_used_up_is_refused_with_the_edit_that_mends_it(ground: Ground) -> None:
    assert ledger(PATHS).take((71000, 71000), "vmw-last", DOMAIN) == 71000
    with pytest.raises(HostError, match="uid_range"):
        ledger(PATHS).take((71000, 71000), "vmw-more", DOMAIN)


def test_a_uid_that_someone_else_has_is_passed_over(ground: Ground) -> None:
    run("/usr/sbin/groupadd", "--gid", "72000", "theirs")
    try:
        assert ledger(PATHS).take((72000, 72999), "vmw-next", DOMAIN) == 72001
    finally:
        run("/usr/sbin/groupdel", "theirs")


def test_a_users_own_files_and_login_are_nobodys(ground: Ground) -> None:
    entry = run("/usr/bin/getent", "passwd", USER.name).strip().split(":")
    assert entry[5:] == ["/nonexistent", "/usr/sbin/nologin"]
    assert run("/usr/bin/getent", "shadow", USER.name).split(":")[1] == "!"
    assert USER.name not in Path("/etc/subuid").read_text()


def test_an_undo_that_fails_keeps_its_record_and_does_the_others(ground: Ground) -> None:
    class Stubborn(SetAccess):
        def undo(self, paths: Paths, before: dict[str, Any]) -> str:
            raise HostError("no")

    Stubborn.__name__ = "SetAccess"
    plan: list[Change] = [EXAMPLES[WriteFile](ground), EXAMPLES[SetAccess](ground)]
    with journal.locked(PATHS, DOMAIN):
        journal.perform(PATHS, DOMAIN, plan)
        kinds = dict(KINDS)
        KINDS["SetAccess"] = Stubborn
        try:
            with pytest.raises(Exception, match="could not be undone"):
                journal.undo(PATHS, DOMAIN)
        finally:
            KINDS.update(kinds)
        assert not (ground.directory / "ticket.json").exists()
        (left,) = journal.records(PATHS, DOMAIN)
        assert isinstance(left.change, SetAccess)
        journal.undo(PATHS, DOMAIN)


def test_files_look_tells_a_symlink_and_where_it_leads(ground: Ground) -> None:
    link = ground.directory / "link"
    link.symlink_to(ground.image)
    found = files.look(str(link))
    assert (found.symlink, found.real, found.leaf) == (str(link), str(ground.image), None)


def test_the_two_scopes_are_two_journals(ground: Ground) -> None:
    user = replace(USER, name="vmw-scope", domain=DOMAIN)
    with journal.locked(PATHS, DOMAIN):
        journal.perform(PATHS, DOMAIN, [user, EXAMPLES[WriteFile](ground)])
        journal.undo(PATHS, DOMAIN, Scope.RUN)
        assert users.account("vmw-scope") is not None
        journal.undo(PATHS, DOMAIN, Scope.ENROLMENT)
    assert users.account("vmw-scope") is None
