# SPDX-License-Identifier: GPL-2.0-or-later
"""Each VM: whether it is in its cell, and what the policy leaves open for it."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from virtwarden import lifecycle
from virtwarden.audit import certificates
from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.uses import uses
from virtwarden.errors import WardenError
from virtwarden.guards import calls, mac
from virtwarden.guards.base import Case, Op
from virtwarden.guards.confinement import is_confined_by_its_label, is_sandboxed
from virtwarden.guards.displays import consoles_of, has_port, looked_up
from virtwarden.guards.encryption import in_the_clear
from virtwarden.guards.pathways import person_trusted
from virtwarden.policy import IDLE_EXCEPTIONS, Mode
from virtwarden.system import process
from virtwarden.system.files import Found, Inode
from virtwarden.words import shown

MANAGED = Check(
    "vm.managed",
    Severity.HIGH,
    "It is managed",
    "It is unmanaged",
    "It runs as the user that all unmanaged VMs share: one escaped guest controls them all.",
    "add its name to `managed` in /etc/virt-warden/policy.toml",
)
ENFORCING = Check(
    "vm.mode",
    Severity.HIGH,
    "It is in enforcing mode",
    "It is in permissive or disabled mode",
    "permissive only logs what enforcing would refuse. disabled checks nothing.",
    'mode = "enforcing" for it, once the log has no would-refuse: journalctl -t virt-warden',
)
ENROLLED = Check(
    "vm.enrolled",
    Severity.HIGH,
    "It is enrolled",
    "It is not enrolled",
    "Without its own user and the wrapper in its XML, libvirt runs it unguarded.",
    "virt-warden enrol",
)
PROMISES = Check(
    "vm.promises",
    Severity.CRITICAL,
    "The running VM keeps every promise",
    "The running VM has a breach",
    "A breach is a protection that does not work.",
    "virt-warden status; a stop and a start raise the guards again",
)
STARTABLE = Check(
    "vm.startable",
    Severity.MEDIUM,
    "Its next start will not be refused",
    "Its next start will be refused",
    "You would learn of the refusal when the host boots: the worst time.",
    "virt-warden explain",
)
EXCEPTIONS = Check(
    "vm.exceptions",
    Severity.MEDIUM,
    "It has no exceptions",
    "It has exceptions",
    "Each exception takes a protection away.",
    "remove from exceptions and allow of its [[domain]] what it does not need",
)
FILES = Check(
    "vm.files",
    Severity.HIGH,
    "Other users cannot open its disks while it is off",
    "Other users can open its disks while it is off",
    "Who can read an image has the VM's data. Who can write it controls the VM.",
    "chown root on each, and chmod go-rwx",
)
DIRECTORIES = Check(
    "vm.directories",
    Severity.MEDIUM,
    "No person owns a directory on the way to its files",
    "A person owns a directory on the way to its files",
    "The owner can put another file there during a start, and libvirt gives it to the VM.",
    "move them into a directory that root owns, such as /var/lib/libvirt/images, and virsh edit",
)
CONSOLE = Check(
    "vm.console",
    Severity.HIGH,
    "Its console needs TLS and a password",
    "Its console does not need both TLS and a password",
    "Without TLS, who is on the network path sees the screen and each key. Without a password, who"
    " reaches the port sits at the keyboard.",
    'tls = "required" and password = "required" under [console] for it',
)
WORKSTATIONS = Check(
    "vm.workstations",
    Severity.MEDIUM,
    "Only listed machines reach its console",
    "Any machine can reach its console",
    "Who reaches the port can guess the password, and attack QEMU's display server before that.",
    "admin_workstations, a list of addresses and networks, under [console] for it",
)
CONFINED = Check(
    "vm.confined",
    Severity.MEDIUM,
    "sVirt or the sandbox confines its QEMU",
    "Neither sVirt nor the sandbox confines its QEMU",
    "Only its user confines it: it can read, run and connect to what every user of the host can.",
    'sandbox = "auto" for it, then a stop and a start; or AppArmor: see host.kernel.mac',
)
CALLS = Check(
    "vm.calls",
    Severity.MEDIUM,
    "Its QEMU makes only the system calls that it needs",
    "Its QEMU can make system calls that it does not need",
    "Most flaws of the kernel are in calls that QEMU never makes. Code of a guest that took QEMU"
    " over can use them.",
    'system_calls = "enforce" for it, then a stop and a start',
)
SPOOFING = Check(
    "vm.spoofing",
    Severity.MEDIUM,
    "It cannot forge addresses",
    "It can forge addresses",
    "A VM that forges its address receives its neighbours' traffic.",
    '"deny" for these under [network] for it',
)
ENCRYPTION = Check(
    "vm.encryption",
    Severity.LOW,
    "Its disks are encrypted",
    "Some of its disks are not encrypted",
    "Who steals, repairs or backs up the disk can read it.",
    "name a container for each in the policy, then: virt-warden luks adopt (docs/luks.md)",
)
_ONLY_LOGGED = "Enforcing mode would refuse its next start"
_DENIABLE = ("mac_spoofing", "arp_spoofing", "vlan_tags", "untapped")


def checks(case: Case, *, managed: bool) -> Iterator[Item]:
    """Look at one domain: as it runs, or as it would be at its next start (`case.op`)."""
    name = case.domain.name
    yield MANAGED.judged(managed, "it is" if managed else "it is not in `managed`", name)
    if not managed:
        return
    yield _mode(case)
    yield (
        ENROLLED.good("it is", name)
        if case.domain.enrolment
        else ENROLLED.bad("it is not", name, fix=case.enrol)
    )
    if case.op is Op.STARTED:
        yield _promises(case)
        lasts = any(map(has_port, consoles_of(case, "spice")))
        yield from certificates.console(Path(case.cell) / "tls", name, lasts=lasts)
    else:
        yield _startable(case)
        yield _files(case)
    yield _directories(case)
    yield from _allowed(case)


def _mode(case: Case) -> Item:
    name, rules = case.domain.name, case.rules
    seen = f"{rules.mode.value} ({rules.where('mode')})"
    if rules.mode is Mode.ENFORCING:
        return ENFORCING.good(seen, name)
    by_installation = rules.is_permissive_by(case.paths.found)
    fix = f"virt-warden graduate {shown(name)}" if by_installation else ""
    return ENFORCING.bad(seen, name, fix=fix)


def _promises(case: Case) -> Item:
    breaches = lifecycle.verify(case)
    if breaches:
        return PROMISES.bad("; ".join(breaches), case.domain.name)
    return PROMISES.good("every guard finds its promises kept", case.domain.name)


def _startable(case: Case) -> Item:
    name = case.domain.name
    refusals = [r for found in lifecycle.reviews(case).values() for r in found]
    if refusals:
        is_refused = case.rules.mode is Mode.ENFORCING
        check = STARTABLE if is_refused else replace(STARTABLE, bad_title=_ONLY_LOGGED)
        return check.bad(
            "; ".join(str(refusal) for refusal in refusals),
            name,
            fix=f"virt-warden explain {shown(name)}",
        )
    return STARTABLE.good("no guard refuses it", name)


def _files(case: Case) -> Item:
    opened: list[tuple[str, str]] = []
    for found in _walked(case):
        if found.leaf is not None and stat.S_ISREG(found.leaf.mode):
            opened += _opened(case, found.leaf)
    if not opened:
        return FILES.good("none is open to others", case.domain.name)
    seen = "; ".join(what for what, _ in opened)
    return FILES.bad(seen, case.domain.name, fix="; ".join(fix for _, fix in opened))


def _directories(case: Case) -> Item:
    people = [person_trusted(found.directories) for found in _walked(case)]
    seen = dict.fromkeys(filter(None, people))
    return DIRECTORIES.judged(not seen, "; ".join(seen) or "none does", case.domain.name)


def _walked(case: Case) -> Iterator[Found]:
    """The domain's files whose paths can be walked; `startable` reports the others."""
    for use in uses(case.domain):
        try:
            found = case.facts.look(use.path)
        except WardenError:
            continue
        yield found


def _opened(case: Case, leaf: Inode) -> Iterator[tuple[str, str]]:
    """What gives others than root and the domain's user access to a file, and the fix."""
    own, path = case.account, shown(leaf.path)
    if leaf.uid != 0 and not (own and leaf.uid == own.uid):
        yield f"{leaf.path} belongs to uid {leaf.uid}", f"chown root {path}"
    foreign = leaf.gid != 0 and not (own and leaf.gid == own.gid)
    others = stat.S_IRWXO | (stat.S_IRWXG if foreign else 0)
    if leaf.mode & others:
        whom = f" and belongs to gid {leaf.gid}" if foreign else ""
        fix = f"chmod {'g' * foreign}o-rwx {path}"
        yield f"{leaf.path} has mode {leaf.permissions:04o}{whom}", fix


def _allowed(case: Case) -> Iterator[Item]:
    name, rules = case.domain.name, case.rules
    opened = {"exceptions": rules.exceptions - IDLE_EXCEPTIONS, "allow": rules.allow}
    found = [f"{', '.join(sorted(v))} ({rules.where(key)})" for key, v in opened.items() if v]
    yield EXCEPTIONS.judged(not found, "; ".join(found) or "none", name)
    allowed = [key for key in _DENIABLE if getattr(rules, key) == "allow"]
    yield SPOOFING.judged(not allowed, f"allowed: {', '.join(allowed) or 'nothing'}", name)
    clear = ", ".join(disk.target for disk in in_the_clear(case))
    yield ENCRYPTION.judged(not clear, f"unencrypted: {clear or 'none'}", name)
    if consoles_of(case):
        off = [key for key in ("tls", "password") if getattr(rules, key) != "required"]
        yield CONSOLE.judged(not off, f"off: {', '.join(off) or 'nothing'}", name)
        yield _workstations(case)
    yield CONFINED.judged(*_confined(case), name)
    yield CALLS.judged(*_filtered(case), name)


def _workstations(case: Case) -> Item:
    rules = case.rules
    found = {address for each in case.domain.displays for address in each.addresses}
    if "" in found:  # libvirt will choose any address that the policy allows
        found = found - {""} | set(rules.listen)
    found = {address for each in found for address in looked_up(case, each) or (each,)}
    beyond = sorted(address for address in found if not _is_of_this_host(address))
    if not beyond or rules.display == "off":
        return WORKSTATIONS.good("it is reached on this host alone", case.domain.name)
    everybody = any(ipaddress.ip_network(each).prefixlen == 0 for each in rules.admin_workstations)
    allowed = "" if everybody else ", ".join(rules.admin_workstations)
    where = f"it listens on {', '.join(beyond)}, for {allowed or 'every machine'}"
    return WORKSTATIONS.judged(bool(allowed), where, case.domain.name)


def _is_of_this_host(address: str) -> bool:
    try:
        return address == "unix" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _confined(case: Case) -> tuple[bool, str]:
    """Whether it is confined: as it runs, or as the policy will have it."""
    rules = case.rules
    if case.op is Op.STARTED:
        labelled, boxed = _is_held_by_its_label(case), is_sandboxed(case)
        said = [word for word, is_so in (("sVirt", labelled), ("Landlock", boxed)) if is_so]
        return bool(said), " and ".join(said) or "neither does"
    asked = rules.sandbox != "off" or rules.svirt == "required"
    return asked, f"sandbox = {rules.sandbox}, svirt = {rules.svirt}, at its next start"


def _filtered(case: Case) -> tuple[bool, str]:
    """Whether its system calls are filtered: as it runs, or as the policy will have it."""
    wanted = case.rules.system_calls
    if wanted == "enforce" and case.op is Op.STARTED and not calls.has_filters(case):
        return False, "it was started without a filter of virt-warden's"
    if "emulator" in case.rules.exceptions:
        return False, "it has another emulator than the wrapper"
    return wanted == "enforce" and case.rules.mode is Mode.ENFORCING, f"system_calls = {wanted}"


def _is_held_by_its_label(case: Case) -> bool:
    """This asks the process itself: its AppArmor profile may only complain."""
    if not is_confined_by_its_label(case):
        return False
    case = replace(case, rules=replace(case.rules, svirt="preferred"))
    try:
        return not mac.verify(case, process.read(lifecycle.pid(case)))
    except (WardenError, OSError, ValueError):
        return False
