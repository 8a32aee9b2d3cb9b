# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden plans: what a start would do, for domains as libvirt 9.0 gave them to the hook.

golden/xml/NAME.OP.xml: the hook's stdin; golden/SCENARIO.txt: the policy, and what comes of it at
each step. `pytest tests/unit/test_golden.py --regenerate-golden` writes the latter anew.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from conftest import GOLDEN
from fake_host import IMAGES, FakeHost, account_of, case_of, policy

from virtwarden import lifecycle
from virtwarden.changes import Change, IssueCertificate, WriteFile
from virtwarden.errors import WardenError
from virtwarden.guards import calls, confinement
from virtwarden.guards.base import Case, Guard, Op
from virtwarden.pki import consoles
from virtwarden.policy import Mode, Policy
from virtwarden.system import seccomp
from virtwarden.system.resolver import Addresses

_OVMF = "/usr/share/OVMF"
EBTABLES = '[network]\nbackend = "ebtables"\n'
CEPH = '[domain.reach]\nhosts = ["192.0.2.0/24", "[2001:db8::7]:6800-7300"]'
LEAKS = (
    '["device /dev/ttyS0", "serial-tcp 0.0.0.0:2445", "unix-socket /run/docker.sock",'
    ' "file /tmp/pipe", "evdev /dev/input/event0", "device /dev/tpm0", "element audio alsa",'
    ' "unix-socket /run/egd.sock", "shmem shared-by-all"]'
)
WORKSTATIONS = '[console]\nadmin_workstations = ["192.0.2.0/24", "2001:db8::7"]\n'


@dataclass(frozen=True)
class Scenario:
    """A domain under a policy."""

    domain: str
    policy: str = ""
    alter: Callable[[FakeHost], object] = field(default=lambda host: None)


def for_the_domain(name: str, text: str) -> str:
    return f'[[domain]]\nmatch = "{name}"\n{text}\n'


def another_vm_has_the_disk(host: FakeHost) -> None:
    host.file(f"{IMAGES}/web01.qcow2", uid=70009, gid=70009)
    host.running.add(70009)


SCENARIOS = {
    "web": Scenario("web01"),
    "web-ebtables": Scenario("web01", EBTABLES),
    "web-auto-without-nftables": Scenario(
        "web01", alter=lambda host: setattr(host, "backends", ("ebtables",))
    ),
    "web-no-backend": Scenario("web01", alter=lambda host: setattr(host, "backends", ())),
    "web-permissive-no-backend": Scenario(
        "web01", 'mode = "permissive"\n', lambda host: setattr(host, "backends", ())
    ),
    "web-permissive": Scenario("web01", 'mode = "permissive"\n'),
    "web-disabled": Scenario("web01", 'mode = "disabled"\n'),
    "web-plain-console": Scenario("web01", '[console]\ntls = "off"\npassword = "off"\n'),
    "web-spoofing-allowed": Scenario(
        "web01",
        '[network]\nmac_spoofing = "allow"\narp_spoofing = "allow"\nvlan_tags = "allow"\n',
    ),
    "web-virtual-router": Scenario(
        "web01",
        for_the_domain(
            "web01",
            '[domain.nics.0]\nmacs = ["00:00:5E:00:01:0A"]\naddresses = ["192.0.2.1"]\n',
        ),
    ),
    "web-only-vlans-allowed": Scenario("web01", '[network]\nvlan_tags = "allow"\n'),
    "web-disk-of-another-vm": Scenario("web01", alter=another_vm_has_the_disk),
    "web-permissive-disk-of-another-vm": Scenario(
        "web01",
        'mode = "permissive"\n',
        another_vm_has_the_disk,
    ),
    "web-images-in-a-closed-directory": Scenario(
        "web01", alter=lambda host: host.directory(IMAGES, 0o700)
    ),
    "app-chain-shared-disk-and-cdrom": Scenario("app01"),
    "app-chain-shared-disk-and-cdrom-ebtables": Scenario("app01", EBTABLES),
    "app-base-swappable": Scenario("app01", alter=lambda host: host.directory(IMAGES, 0o1777)),
    "uefi-and-tpm": Scenario("uefi01"),
    "uefi-and-tpm-disabled": Scenario("uefi01", 'mode = "disabled"\n'),
    "uefi-with-its-nvram-file": Scenario(
        "uefi01", alter=lambda host: host.file("/var/lib/libvirt/qemu/nvram/uefi01_VARS.fd")
    ),
    "uefi-template-of-roots-secrets": Scenario(
        "uefi01", alter=lambda host: host.file(f"{_OVMF}/OVMF_VARS_4M.fd", 0o600)
    ),
    "kernel-and-fw-cfg": Scenario("kernel01"),
    "persistent-memory": Scenario("pmem01"),
    "vnc-ipv6-and-websocket": Scenario("vnc6"),
    "vnc-off": Scenario("vnc6", '[console]\ndisplay = "off"\nlisten = []\n' + "tls = 'off'\n"),
    "spice-off": Scenario("spice01", '[console]\ndisplay = "off"\n'),
    "vnc-with-certificates": Scenario("vnc6", '[console]\nclient_certificates = "required"\n'),
    "vnc-with-certificates-and-no-tls": Scenario(
        "vnc6", '[console]\nclient_certificates = "required"\ntls = "off"\n'
    ),
    "vnc-for-some-workstations": Scenario("vnc6", WORKSTATIONS),
    "vnc-for-some-workstations-iptables": Scenario("vnc6", WORKSTATIONS + EBTABLES),
    "vnc-for-some-workstations-no-firewall": Scenario(
        "vnc6", WORKSTATIONS, lambda host: setattr(host, "port_backends", ())
    ),
    "vnc-socket-for-some-workstations": Scenario(
        "vncsock",
        '[console]\nlisten = ["unix"]\nadmin_workstations = ["192.0.2.7"]\n',
        lambda host: setattr(host, "port_backends", ()),
    ),
    "spice-for-some-workstations": Scenario("spice01", WORKSTATIONS),
    "vnc-socket-refused": Scenario("vncsock"),
    "vnc-socket-permissive": Scenario("vncsock", 'mode = "permissive"\n'),
    "vnc-socket-allowed": Scenario("vncsock", '[console]\nlisten = ["unix"]\n'),
    "vnc-listening-nowhere": Scenario("vncnone"),
    "spice": Scenario("spice01"),
    "spice-with-certificates": Scenario("spice01", '[console]\nclient_certificates = "required"\n'),
    "nics-untapped-refused": Scenario("nics"),
    "nics-untapped-allowed": Scenario("nics", '[network]\nuntapped = "allow"\n'),
    "nics-untapped-allowed-ebtables": Scenario(
        "nics", '[network]\nuntapped = "allow"\nbackend = "ebtables"\n'
    ),
    "qemu-arguments-refused": Scenario("args01"),
    "qemu-arguments-excepted": Scenario(
        "args01", for_the_domain("args01", 'exceptions = ["qemu-commandline"]')
    ),
    "network-volumes-behind-a-socket": Scenario("net01", for_the_domain("net01", CEPH)),
    "network-volumes-without-hosts": Scenario("net01"),
    "network-volumes-without-a-limit": Scenario("net01", '[reach]\nhost_network = "allow"\n'),
    "network-volumes-excepted": Scenario(
        "net01", for_the_domain("net01", f'allow = ["unix-socket /run/nbd.sock"]\n{CEPH}')
    ),
    "shared-directories-refused": Scenario("mem01"),
    "shared-directories-allowed": Scenario("mem01", '[storage]\nshared_directories = "allow"\n'),
    "host-devices-refused": Scenario("hostdev01"),
    "host-devices-excepted": Scenario(
        "hostdev01",
        for_the_domain(
            "*",
            'allow = ["pci 0000:00:1f.2", "usb 1234:beef",'
            ' "mdev c2177883-f1bb-47f0-914d-32a22e3a8804"]',
        ),
    ),
    "host-devices-by-the-former-exception": Scenario(
        "hostdev01", for_the_domain("*", 'exceptions = ["host-devices"]')
    ),
    "all-that-leaks-refused": Scenario("leaky01"),
    "all-that-leaks-permissive": Scenario("leaky01", 'mode = "permissive"\n'),
    "all-that-leaks-disabled": Scenario("leaky01", 'mode = "disabled"\n'),
    "all-that-leaks-excepted": Scenario(
        "leaky01",
        for_the_domain(
            "leaky01",
            f'allow = {LEAKS}\n[domain.storage]\nshared_directories = "allow"',
        ),
    ),
    "all-that-leaks-by-the-former-exception": Scenario(
        "leaky01", for_the_domain("leaky01", 'exceptions = ["host-devices"]')
    ),
}


def furnished() -> FakeHost:
    """A host with every file that the domains name."""
    host = FakeHost()
    names = "web01 app01 app-layer app01-db debian-12"
    for name in names.split():
        host.file(f"{IMAGES}/{name}.qcow2")
    for name in ("quorum.img", "data.img", "pmem.img", "node.ign", "slic.bin"):
        host.file(f"{IMAGES}/{name}")
    for name in ("install.iso", "vmlinuz", "initrd.img"):
        host.file(f"{IMAGES}/{name}", 0o644)
    for path in (
        f"{_OVMF}/OVMF_CODE_4M.fd",
        f"{_OVMF}/OVMF_VARS_4M.fd",
        "/usr/lib/ipxe/qemu/pxe-virtio.rom",
        "/etc/ceph/ceph.conf",
    ):
        host.file(path, 0o644)
    host.names["example.org"] = Addresses(("198.51.100.9", "2001:db8::9"), ("192.0.2.53",))
    host.directory("/var/lib/libvirt/qemu/nvram", uid=0)
    host.directory("/var/log")
    host.file("/dev/ttyS0", kind=stat.S_IFCHR)
    host.taps |= {f"vnet{number}" for number in range(10)} | {"mytap0"}
    return host


def steps(scenario: Scenario, rules: Policy) -> Iterator[Case]:
    """The domain at each step that its XML is there for; its user exists after the first."""
    host = furnished()
    scenario.alter(host)
    for op in (Op.PREPARE, Op.START, Op.STARTED):
        source = "start" if op is Op.STARTED else op.value
        file = GOLDEN / f"xml/{scenario.domain}.{source}.xml"
        if not file.exists():
            return
        case = case_of(file.read_bytes(), rules.rules_for(scenario.domain), host, op)
        yield case
        if case.rules.mode is Mode.ENFORCING and any(lifecycle.reviews(case).values()):
            return
        host.accounts[case.user] = account_of(case.user, case.domain.uuid)
        if any(display.kind == "vnc" for display in case.domain.displays):
            host.file(f"{case.cell}/tls/{consoles.FILES[-1]}")


def told(case: Case) -> list[str]:
    """What the guards have to say at this step, and what is done."""
    found = lifecycle.reviews(case)
    enforcing = case.rules.mode is Mode.ENFORCING
    lines = [f"{case.op.value}:"]
    for guard, refusals in found.items():
        for refusal in refusals:
            verb = "refuses" if case.rules.mode is Mode.ENFORCING else "would refuse"
            lines.append(f"  {guard.NAME} {verb}: {refusal}")
    if not (enforcing and any(found.values())):
        for guard in lifecycle.willing(case, found):
            lines += [f"  {line}" for line in done_by(guard, case)]
    return lines


def done_by(guard: Guard, case: Case) -> list[str]:
    lines = []
    try:
        changes = lifecycle.plan(case, [guard])
    except WardenError as error:
        return [f"{guard.NAME} fails: {error}"]
    for change in changes:
        lines.append(f"{guard.NAME}: {change.describe()}")
        lines += [f"  {line}" for line in content_of(change)]
        if isinstance(change, WriteFile) and change.path.endswith("/ticket.json"):
            needs = [name for name, needed in asdict(calls.needs_of(case)).items() if needed]
            lines.append(f"  # beyond what every QEMU needs: {' '.join(needs) or 'nothing'}")
    return lines


def content_of(change: Change) -> list[str]:
    """A ticket has a line for each key, so that a difference shows in one line."""
    if not isinstance(change, WriteFile):
        return []
    return [f"{key} = {json.dumps(value)}" for key, value in json.loads(change.content).items()]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_is_the_golden_one(
    name: str,
    golden: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(confinement, "loaders", lambda: ["/lib64/ld-linux-x86-64.so.2"])
    # What a filter's code is depends on libseccomp's version.
    monkeypatch.setattr(seccomp, "compiled", lambda *_: b"\0")
    monkeypatch.setattr(seccomp, "call_number", lambda: 317)
    calls._filters.cache_clear()
    request.addfinalizer(calls._filters.cache_clear)
    scenario = SCENARIOS[name]
    rules = policy(scenario.policy, tmp_path)
    lines = [f"domain: {scenario.domain}", "policy:"]
    lines += [f"  {line}" for line in (scenario.policy or "# the defaults").splitlines()]
    for case in steps(scenario, rules):
        lines += told(case)
    golden(f"{name}.txt", "\n".join(lines).replace(str(tmp_path), "/etc/virt-warden") + "\n")


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_guard_but_the_consoles_plans_anything_ahead(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    prepared = next(steps(scenario, policy(scenario.policy, tmp_path)))
    ahead = lifecycle.plan(replace(prepared, op=Op.AHEAD), lifecycle.GUARDS)
    assert all(isinstance(change, IssueCertificate) for change in ahead)


def test_every_golden_file_and_every_xml_is_some_scenarios() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == {*SCENARIOS}
    domains = {file.name.split(".")[0] for file in GOLDEN.glob("xml/*.xml")}
    assert domains == {scenario.domain for scenario in SCENARIOS.values()}


def test_a_golden_file_that_differs_fails_and_is_not_written(
    golden: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--regenerate-golden"):
        pytest.skip("they are being written")
    before = (GOLDEN / "web.txt").read_text()
    with pytest.raises(AssertionError, match="--regenerate-golden"):
        golden("web.txt", before + "more\n")
    with pytest.raises(AssertionError, match="--regenerate-golden"):
        golden("no-such-scenario.txt", "")
    assert (GOLDEN / "web.txt").read_text() == before
