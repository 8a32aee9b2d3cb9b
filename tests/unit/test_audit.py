# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit: what each check finds in a host of its own, and what the reports tell of it."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import fake_host
import jsonschema
import pytest
import xmls
from lxml import etree
from lxml import html as lxml_html

from tests.host.domain import domain_xml
from virtwarden.audit import dropped, hooks, kernel, libvirt_settings, unmet, waivers
from virtwarden.audit import policy as policy_checks
from virtwarden.audit.item import Check, Item, Severity, State
from virtwarden.audit.report import Report, html, prometheus, text
from virtwarden.audit.report import json as json_report
from virtwarden.domain.model import read as read_domain
from virtwarden.drops import Drops
from virtwarden.package import hookfile
from virtwarden.paths import Paths
from virtwarden.policy import Waiver
from virtwarden.policy.found import Found, added
from virtwarden.system import packages

REPOSITORY = Path(__file__).parents[2]
SCHEMA = json.loads((REPOSITORY / "policy" / "audit.schema.json").read_text())
GOOD_KERNEL = {
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected",
    "sys/module/kvm_intel/parameters/nested": "N",
    "sys/module/apparmor/parameters/enabled": "Y",
    "sys/kernel/mm/ksm/run": "0",
    "proc/swaps": "Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2",
    "sys/class/block/dm-1/dm/uuid": "LVM-abc",
    "sys/class/block/dm-1/slaves/dm-0/size": "1",
    "sys/class/block/dm-0/dm/uuid": "CRYPT-LUKS2-abc",
    "proc/self/mountinfo": "21 1 0:4 / /proc rw - proc proc rw\n"
    "22 21 0:5 / /proc rw shared:1 - proc proc rw,hidepid=invisible",
    "proc/sys/kernel/yama/ptrace_scope": "1",
    "proc/sys/fs/protected_hardlinks": "1",
    "proc/sys/fs/protected_symlinks": "1",
}


def host(root: Path, **changed: str) -> Path:
    for name, content in {**GOOD_KERNEL, **changed}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def bad(items: list[Item]) -> set[str]:
    return {item.id for item in items if item.state is State.BAD} - {kernel.LANDLOCK.id}


def test_a_good_kernel_is_good(tmp_path: Path) -> None:
    items = list(kernel.checks(host(tmp_path)))
    assert bad(items) == set()
    assert {item.state for item in items if item.id != kernel.LANDLOCK.id} == {State.GOOD}


@pytest.mark.parametrize(
    ("file", "content", "check"),
    [
        (
            "sys/devices/system/cpu/vulnerabilities/mds",
            "Vulnerable: Clear CPU buffers attempted, no microcode",
            kernel.MITIGATIONS,
        ),
        ("sys/devices/system/cpu/vulnerabilities/l1tf", "Vulnerable", kernel.MITIGATIONS),
        (
            "sys/devices/system/cpu/vulnerabilities/mds",
            "Mitigation: Clear CPU buffers; SMT vulnerable",
            kernel.SMT,
        ),
        (
            "sys/devices/system/cpu/vulnerabilities/itlb_multihit",
            "KVM: Vulnerable",
            kernel.MITIGATIONS,
        ),
        (
            "sys/devices/system/cpu/vulnerabilities/l1tf",
            "Mitigation: PTE Inversion; VMX: vulnerable",
            kernel.MITIGATIONS,
        ),
        ("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2", kernel.SWAP),
        ("proc/swaps", "Filename\n/var/dm-1 file 1 0 -2", kernel.SWAP),
        ("proc/swaps", "Filename\n/swapfile file 1 0 -2", kernel.SWAP),
        ("sys/class/block/dm-0/dm/uuid", "LVM-xyz", kernel.SWAP),
        ("sys/module/kvm_intel/parameters/nested", "Y", kernel.NESTED),
        ("sys/module/kvm_amd/parameters/nested", "1", kernel.NESTED),
        ("sys/module/apparmor/parameters/enabled", "N", kernel.LSM),
        ("sys/fs/selinux/enforce", "0", kernel.LSM),
        ("sys/kernel/mm/ksm/run", "1", kernel.KSM),
        ("proc/self/mountinfo", "22 1 0:5 / /proc rw - proc proc rw", kernel.HIDEPID),
        ("proc/self/mountinfo", "22 1 0:5 / /proc rw - proc proc rw,hidepid=0", kernel.HIDEPID),
        ("proc/sys/kernel/yama/ptrace_scope", "0", kernel.PTRACE),
        ("proc/sys/fs/protected_hardlinks", "0", kernel.LINKS),
        ("proc/sys/fs/protected_symlinks", "0", kernel.LINKS),
    ],
)
def test_each_flaw_of_a_kernel_is_found(
    tmp_path: Path, file: str, content: str, check: Check
) -> None:
    items = list(kernel.checks(host(tmp_path, **{file: content})))
    assert bad(items) == {check.id}
    (item,) = [item for item in items if item.state is State.BAD and item.id == check.id]
    assert item.fix


def test_who_chose_selinux_is_told_to_enforce_it_and_not_to_take_apparmor(tmp_path: Path) -> None:
    root = host(tmp_path, **{"sys/fs/selinux/enforce": "0"})
    (item,) = [item for item in kernel.checks(root) if item.id == kernel.LSM.id]
    assert item.seen == "SELinux, permissive"
    assert "setenforce 1" in item.fix
    assert "apparmor" not in item.fix


def test_what_a_kernel_does_not_tell_is_unknown(tmp_path: Path) -> None:
    root = host(tmp_path)
    (root / "proc/sys/kernel/yama/ptrace_scope").unlink()
    items = {item.id: item for item in kernel.checks(root)}
    assert items[kernel.PTRACE.id].state is State.UNKNOWN


@pytest.mark.process  # python-augeas asks ldconfig where its library is
@pytest.mark.parametrize(
    ("file", "line", "setting"),
    [
        ("qemu.conf", 'user = "root"', "user"),
        ("qemu.conf", 'group = "root"', "group"),
        ("qemu.conf", "namespaces = []", "namespaces"),
        ("qemu.conf", 'cgroup_controllers = [ "cpu", "memory" ]', "cgroup_controllers"),
        ("qemu.conf", 'stdio_handler = "file"', "stdio_handler"),
        ("qemu.conf", 'spice_listen = "::"', "spice_listen"),
        ("qemu.conf", 'security_driver = "none"', "security_driver"),
        ("qemu.conf", "security_default_confined = 0", "security_default_confined"),
        ("qemu.conf", "seccomp_sandbox = 0", "seccomp_sandbox"),
        ("qemu.conf", "clear_emulator_capabilities = 0", "clear_emulator_capabilities"),
        ("qemu.conf", "dynamic_ownership = 0", "dynamic_ownership"),
        ("qemu.conf", 'vnc_listen = "0.0.0.0"', "vnc_listen"),
        ("qemu.conf", "relaxed_acs_check = 1", "relaxed_acs_check"),
        ("qemu.conf", 'save_image_format = "sparse"', "save_image_format"),
        ("libvirtd.conf", 'auth_unix_rw = "none"', "auth_unix_rw"),
        ("libvirtd.conf", 'unix_sock_rw_perms = "0777"', "unix_sock_rw_perms"),
    ],
)
def test_each_harmful_setting_of_libvirt_is_found(
    tmp_path: Path, file: str, line: str, setting: str
) -> None:
    (tmp_path / file).write_text(f"# a comment\n{line}\n")
    items = list(libvirt_settings.checks(tmp_path))
    (found,) = [item for item in items if item.state is State.BAD]
    assert found.id == f"host.libvirt.{setting}"
    assert f"in {file}" in found.seen
    assert f"{setting} = " in found.fix


def test_every_rule_about_libvirts_settings_is_tried_here() -> None:
    tried = {case[2] for mark in _marks() if mark.name == "parametrize" for case in mark.args[1]}
    assert tried == {rule.setting for rule in libvirt_settings.RULES}


def _marks() -> list[pytest.Mark]:
    marks: list[pytest.Mark] = test_each_harmful_setting_of_libvirt_is_found.pytestmark  # type: ignore[attr-defined]
    return marks


@pytest.mark.process  # python-augeas asks ldconfig where its library is
def test_libvirts_defaults_are_good_with_the_files_and_without(tmp_path: Path) -> None:
    assert {i.state for i in libvirt_settings.checks(tmp_path)} == {State.GOOD}
    (tmp_path / "qemu.conf").write_text(
        'vnc_listen = "127.0.0.1"\nnamespaces = [ "mount" ]\ncgroup_controllers = [ "devices" ]\n'
    )
    assert {i.state for i in libvirt_settings.checks(tmp_path)} == {State.GOOD}


@pytest.mark.process  # python-augeas asks ldconfig where its library is
def test_a_file_that_libvirt_could_not_read_is_unknown_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "qemu.conf").write_text("user = \n")
    unknown = [i for i in libvirt_settings.checks(tmp_path) if i.state is State.UNKNOWN]
    assert unknown
    assert "qemu.conf:1" in unknown[0].seen


# Updates


@dataclass(frozen=True)
class Version:
    name: str
    source_name: str

    def __str__(self) -> str:
        return self.name


def test_updates_are_of_what_the_cells_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "qemu-system-x86": "qemu",
        "libvirt-daemon": "libvirt",
        "linux-image-amd64": "linux-signed-amd64",
        "virt-warden": "virt-warden",
        "linux-libc-dev": "linux",
        "linux-headers-amd64": "linux-signed-amd64",
        "vim": "vim",
    }
    found = [
        SimpleNamespace(
            name=name, installed=Version(name, source), candidate="the new", is_upgradable=True
        )
        for name, source in sources.items()
    ]
    monkeypatch.setitem(sys.modules, "apt", SimpleNamespace(Cache=lambda: found))
    assert packages.upgradable() == [
        f"{name} to the new"
        for name in ("libvirt-daemon", "linux-image-amd64", "qemu-system-x86", "virt-warden")
    ]


# Hooks


def with_hooks(directory: Path) -> Paths:
    paths = Paths(share=directory / "share", hooks=directory / "hooks", state=directory / "state")
    paths.state.mkdir()
    (paths.share / "hooks").mkdir(parents=True)
    source = paths.share / "hooks" / "qemu"
    source.write_text("ours")
    for kind in hooks.HOOKS:
        hookfile.place(paths, source, kind)
    return paths


def test_hooks_that_are_in_place_are_good(tmp_path: Path) -> None:
    assert {item.state for item in hooks.checks(with_hooks(tmp_path))} == {State.GOOD}


@pytest.mark.parametrize("kind", hooks.HOOKS)
def test_a_hook_that_is_gone_or_anothers_or_does_not_run_is_found(
    tmp_path: Path, kind: str
) -> None:
    paths = with_hooks(tmp_path)
    hook = paths.hooks / kind

    def found() -> set[str]:
        return {item.id for item in hooks.checks(paths) if item.state is State.BAD}

    hook.chmod(0o644)
    assert found() == {f"host.hook.{kind}"}
    hook.write_text("somebody else's")
    assert found() == {f"host.hook.{kind}"}
    hook.unlink()
    assert found() == {f"host.hook.{kind}"}


# The policy


def backend(*, works: bool, reason: str = "") -> SimpleNamespace:
    return SimpleNamespace(works=lambda: works, cannot=lambda _filter: reason)


def kept(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch, *, nft: bool) -> list[Item]:
    backends = {"nftables": backend(works=nft), "ebtables": backend(works=True)}
    monkeypatch.setattr(unmet, "BACKENDS", backends)
    monkeypatch.setattr(unmet, "_OPEN_VSWITCH", directory / "openvswitch")
    web01 = read_domain(xmls.domain().encode())
    policy = fake_host.policy(text, directory)
    found = policy_checks.checks(Paths(policy_dir=directory / "d"), policy, [web01])
    return [item for item in found if item.id == "host.policy.kept"]


def test_a_policy_that_comes_true_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[[domain]]\nmatch = "web01"\nconsole.tls = "off"\n'
    (item,) = kept(text, tmp_path, monkeypatch, nft=True)
    assert item.state is State.GOOD


def test_each_thing_that_does_not_come_true_is_an_item_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[[domain]]\nmatch = "wbe01"\nconsole.tls = "off"\n'
    (tmp_path / "openvswitch").mkdir()
    items = kept(text, tmp_path, monkeypatch, nft=False)
    assert {item.state for item in items} == {State.BAD}
    for words in ("ebtables", "Open vSwitch", "policy.toml:3: no managed domain is called wbe01"):
        assert any(words in item.seen for item in items), words


FOUND = added("", [Found(name, ()) for name in ("web01", "gone", "a*b")], Path("found"), 10000)


def found_item(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Item:
    monkeypatch.setattr(policy_checks, "unmet", lambda *_: ())
    paths = Paths(policy=directory / "policy.toml", policy_dir=directory / "d")
    (directory / "d").mkdir(mode=0o700)
    paths.found.write_text(FOUND)
    paths.found.chmod(0o600)
    web01 = read_domain(xmls.domain().encode())
    items = policy_checks.checks(paths, fake_host.policy(text, directory), [web01])
    (item,) = [item for item in items if item.id == "host.policy.found"]
    return item


def test_domains_that_are_permissive_since_the_installation_are_named_also_those_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = found_item("", tmp_path, monkeypatch)
    assert item.state is State.BAD
    assert item.seen == "web01, gone (no such managed domain), a[*]b (no such managed domain)"
    assert "virt-warden graduate" in item.fix


def test_one_that_the_admin_made_enforcing_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[[domain]]\nmatch = "web01"\nmode = "enforcing"\n'
    item = found_item(text, tmp_path, monkeypatch)
    assert "web01" not in item.seen


def test_a_host_without_such_a_file_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_checks, "unmet", lambda *_: ())
    paths = Paths(policy_dir=tmp_path / "d")
    policy = fake_host.policy("", tmp_path)
    (item,) = [i for i in policy_checks.checks(paths, policy, []) if i.id == "host.policy.found"]
    assert item.state is State.GOOD


# Waivers

TODAY = datetime.date(2026, 6, 1)
CHECK = Check("vm.exceptions", Severity.MEDIUM, "It has none", "It has some", "why", "fix")


def waiver(**fields: str) -> dict[str, Waiver]:
    values = {"item": "vm.exceptions", "reason": "old", "until": "2026-06-01"} | fields
    return {"lab": Waiver(**values)}


def test_a_waiver_holds_for_its_item_its_subjects_and_until_its_day() -> None:
    items = [CHECK.bad("spice", "lab-1"), CHECK.bad("spice", "web01"), CHECK.good("no", "lab-2")]
    found = waivers.waive(items, waiver(subject="lab-*"), TODAY)
    assert [item.state for item in found] == [State.WAIVED, State.BAD, State.GOOD]
    assert found[0].waiver == "old (until 2026-06-01)"


def test_a_waiver_of_another_item_waives_nothing() -> None:
    (found,) = waivers.waive([CHECK.bad("spice", "lab-1")], waiver(item="vm.mode"), TODAY)
    assert found.state is State.BAD


def test_a_waiver_that_expired_is_itself_an_item() -> None:
    later = TODAY + datetime.timedelta(days=1)
    found = waivers.waive([CHECK.bad("spice", "lab-1")], waiver(), later)
    assert [item.state for item in found] == [State.BAD, State.BAD]
    assert "[waivers.lab]" in found[1].seen


# Reports

HOSTILE = '<script>alert(1)</script>\x1b[2J\n"quoted" \\ end'


def report(*items: Item) -> Report:
    return Report("host-1", "0.1.0", "2026-06-01T12:00:00+02:00", items)


def every_state() -> Report:
    low = Check("host.a", Severity.LOW, "A good", "A bad", "why a", "fix a")
    high = Check("host.b", Severity.HIGH, "B good", "B bad", "why b", "fix b")
    waived = waivers.waive([CHECK.bad("spice", "lab-1")], waiver(), TODAY)
    return report(
        low.bad("seen a"), high.bad(HOSTILE), high.good("fine"), low.unknown("?"), *waived
    )


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([], 0),
        ([CHECK.good("x")], 0),
        ([CHECK.unknown("x")], 1),
        ([CHECK.bad("x")], 2),
        ([CHECK.bad("x"), Check("c", Severity.CRITICAL, "C", "D", "w", "f").bad("y")], 4),
    ],
)
def test_the_exit_code_is_the_worst_that_is_amiss(items: list[Item], code: int) -> None:
    assert report(*items).exit_code == code


def test_the_json_is_what_its_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document = json.loads(json_report.render(every_state()))
    jsonschema.validate(document, SCHEMA)
    assert document["exit_code"] == 3
    assert document["summary"] == {"good": 1, "bad": 2, "unknown": 1, "waived": 1}


def test_the_text_begins_with_the_worst_and_shows_every_fix() -> None:
    shown = text.render(every_state())
    assert shown.startswith("HIGH  host: B bad  [host.b]")
    for word in ("fix a", "fix b", "WAIVED  lab-1", "old (until 2026-06-01)", "2 bad"):
        assert word in shown
    assert "\x1b" not in shown


def test_the_page_shows_all_and_runs_nothing_of_what_was_seen() -> None:
    page = html.render(every_state())
    tree = lxml_html.fromstring(page)
    assert tree.xpath("//script") == []
    assert tree.xpath("//*[@src or @href]") == []
    assert len(tree.xpath("//article")) == 3
    assert "<script>alert(1)</script>" in etree.tostring(tree, method="text", encoding="unicode")


@pytest.mark.parametrize(
    "render", [text.render, json_report.render, html.render, prometheus.render]
)
def test_a_bad_item_is_reported_by_what_is_so(render: Callable[[Report], str]) -> None:
    waived = waivers.waive([CHECK.bad("spice", "lab-1")], waiver(), TODAY)
    low = Check("host.a", Severity.LOW, "It is locked", "It is open", "why", "fix")
    shown = render(report(low.bad("?"), *waived))
    assert "It is open" in shown
    assert "It is locked" not in shown
    assert "It has none" not in shown


def test_prometheus_gets_one_line_for_each_sample() -> None:
    lines = prometheus.render(every_state()).splitlines()
    assert "virt_warden_audit_exit_code 3" in lines
    assert 'virt_warden_audit_items{severity="high",state="bad"} 1' in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert all(line.startswith("virt_warden_audit_") for line in samples)


def test_prometheus_gets_the_frames_that_were_dropped() -> None:
    drops = Drops("b3d64a2b", "52:54:00:00:00:01", "arp", frames=231)
    lines = prometheus.render(every_state(), [drops], {"b3d64a2b": 'a"b'}).splitlines()
    assert (
        'virt_warden_dropped_frames_total{domain="a\\"b",uuid="b3d64a2b",'
        'nic="52:54:00:00:00:01",promise="arp"} 231'
    ) in lines


def test_a_vm_that_spoofed_within_a_day_is_named() -> None:
    domain = read_domain(domain_xml("web01").encode())
    drops = Drops(domain.uuid, "52:54:00:00:00:01", "arp", frames=231, last=1_000_000.0)
    item = dropped.judge(domain, [drops], 1_000_000.0 + 86_399)
    assert (item.state, item.subject) == (State.BAD, "web01")
    assert "arp: 231 frames from 52:54:00:00:00:01" in item.seen
    assert dropped.judge(domain, [drops], 1_000_000.0 + 86_401).state is State.GOOD
    assert dropped.judge(read_domain(domain_xml("db01").encode()), [drops], 1e6).state is State.GOOD


def test_prometheus_gets_no_sample_twice_and_of_two_the_worst() -> None:
    """Else the node exporter throws the whole file away."""
    worse = Check(CHECK.id, Severity.HIGH, "It has none", "It has some", "why", "fix")
    lines = prometheus.render(report(CHECK.bad("a"), worse.bad("b"), CHECK.bad("c"))).splitlines()
    label = (
        'virt_warden_audit_amiss{id="vm.exceptions",subject="host",state="bad",title="It has some"}'
    )
    assert [line for line in lines if line.startswith(label)] == [f"{label} 3"]
