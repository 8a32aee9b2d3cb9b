# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's own configuration: which of its settings undo a protection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.errors import WardenError
from virtwarden.system import conf

_RESTART = "then: systemctl restart libvirtd"


@dataclass(frozen=True)
class Rule:
    """Values of one setting that undo a protection; `default` holds where it is not set.

    A list that is set must contain `needed`.
    """

    file: str
    lens: str
    setting: str
    default: str
    harmful: set[str]
    severity: Severity
    good_title: str
    bad_title: str
    why: str
    better: str
    needed: str = ""

    @property
    def check(self) -> Check:
        """What the items of this rule are about."""
        return Check(
            f"host.libvirt.{self.setting}",
            self.severity,
            self.good_title,
            self.bad_title,
            self.why,
            f"in /etc/libvirt/{self.file}: {self.setting} = {self.better}; {_RESTART}",
        )


_qemu = partial(Rule, "qemu.conf", conf.QEMU)
_libvirtd = partial(Rule, "libvirtd.conf", conf.LIBVIRTD)


def _listen(setting: str, displays: str) -> Rule:
    return _qemu(
        setting,
        "127.0.0.1",
        {"0.0.0.0", "::"},  # noqa: S104 - what is looked for
        Severity.MEDIUM,
        good_title=f"{displays} do not listen everywhere by default",
        bad_title=f"{displays} listen everywhere by default",
        why="Unmanaged domains show their screen to every network.",
        better='"127.0.0.1"',
    )


RULES = (
    _qemu(
        "user",
        "libvirt-qemu",
        {"root", "+0", "0"},
        Severity.CRITICAL,
        good_title="VMs without their own user do not run as root",
        bad_title="VMs without their own user run as root",
        why="An unmanaged domain runs as this user.",
        better='"libvirt-qemu"',
    ),
    _qemu(
        "group",
        "libvirt-qemu",
        {"root", "+0", "0"},
        Severity.HIGH,
        good_title="VMs without their own user are not in root's group",
        bad_title="VMs without their own user are in root's group",
        why="An unmanaged domain runs in this group.",
        better='"libvirt-qemu"',
    ),
    _qemu(
        "security_driver",
        "",
        {"none"},
        Severity.HIGH,
        good_title="sVirt is on",
        bad_title="sVirt is off",
        why="libvirt labels no VM, so AppArmor and SELinux cannot tell one from the other.",
        better='"apparmor" (or "selinux"), or remove the line',
    ),
    _qemu(
        "security_default_confined",
        "1",
        {"0"},
        Severity.HIGH,
        good_title="VMs get an sVirt label by default",
        bad_title="VMs get no sVirt label by default",
        why="A domain whose XML names no label gets none.",
        better="1",
    ),
    _qemu(
        "seccomp_sandbox",
        "1",
        {"0"},
        Severity.HIGH,
        good_title="QEMU's system calls are filtered",
        bad_title="QEMU's system calls are not filtered",
        why="An escaped guest can make every system call of the kernel.",
        better="1",
    ),
    _qemu(
        "clear_emulator_capabilities",
        "1",
        {"0"},
        Severity.HIGH,
        good_title="QEMU has no capabilities",
        bad_title="QEMU can have capabilities",
        why="A QEMU with capabilities is root in all but name.",
        better="1",
    ),
    _qemu(
        "dynamic_ownership",
        "1",
        {"0"},
        Severity.HIGH,
        good_title="libvirt gives each VM its own files",
        bad_title="libvirt does not give each VM its own files",
        why="A disk that is attached to a running VM keeps its owner: others can open it, or the VM"
        " cannot.",
        better="1",
    ),
    _qemu(
        "namespaces",
        "mount",
        set(),
        Severity.MEDIUM,
        good_title="QEMU has its own /dev",
        bad_title="QEMU has the host's /dev",
        why="QEMU sees all device nodes of the host: only their modes protect them.",
        better='[ "mount" ]',
        needed="mount",
    ),
    _qemu(
        "cgroup_controllers",
        "all that there are",
        set(),
        Severity.MEDIUM,
        good_title="Cgroups limit the devices that QEMU can open",
        bad_title="Cgroups do not limit the devices that QEMU can open",
        why="An escaped guest can open every device node that its user may open or make.",
        better='remove the line, or add "devices" to it',
        needed="devices",
    ),
    _qemu(
        "stdio_handler",
        "logd",
        {"file"},
        Severity.LOW,
        good_title="The logs of VMs have a size limit",
        bad_title="The logs of VMs have no size limit",
        why="QEMU writes its log and its guest's serial log itself, until the disk is full.",
        better='"logd"',
    ),
    _qemu(
        "save_image_format",
        "raw",
        {"sparse"},
        Severity.HIGH,
        good_title="QEMU does not write into saved VMs' files itself",
        bad_title="QEMU writes into saved VMs' files itself",
        why="The XML with which libvirt restores a VM is in a file that its QEMU can write: an"
        " escaped guest gets any file of the host so.",
        better='"raw", or remove the line',
    ),
    _qemu(
        "relaxed_acs_check",
        "0",
        {"1"},
        Severity.MEDIUM,
        good_title="Assigned PCI devices are separated",
        bad_title="Assigned PCI devices are not separated",
        why="Devices behind one switch reach each other's memory.",
        better="0",
    ),
    _listen("vnc_listen", "Consoles"),
    _listen("spice_listen", "SPICE displays"),
    _libvirtd(
        "auth_unix_rw",
        "polkit",
        {"none"},
        Severity.MEDIUM,
        good_title="libvirt asks who wants to manage it",
        bad_title="libvirt does not ask who wants to manage it",
        why="Who can open libvirt's socket is as good as root.",
        better='"polkit"',
    ),
    _libvirtd(
        "unix_sock_rw_perms",
        "0770",
        {"0777", "0666", "777", "666"},
        Severity.HIGH,
        good_title="libvirt's socket is not open to all users",
        bad_title="libvirt's socket is open to all users",
        why="Who can open libvirt's socket is as good as root.",
        better='"0770"',
    ),
)


def checks(directory: Path = Path("/etc/libvirt")) -> Iterator[Item]:
    """Look at the settings of the files in this directory."""
    found: dict[str, conf.Settings | WardenError] = {}
    for rule in RULES:
        if rule.file not in found:
            found[rule.file] = _settings(directory / rule.file, rule.lens)
        settings = found[rule.file]
        if isinstance(settings, WardenError):
            yield rule.check.unknown(str(settings))
        else:
            yield _judged(rule, settings)


def _settings(file: Path, lens: str) -> conf.Settings | WardenError:
    try:
        return conf.settings(file, lens)
    except WardenError as error:
        return error


def _judged(rule: Rule, settings: conf.Settings) -> Item:
    value = settings.get(rule.setting, rule.default)
    values = value if isinstance(value, tuple) else (value,)
    is_set = rule.setting in settings
    origin = f"in {rule.file}" if is_set else "by default"
    lacking = is_set and rule.needed and rule.needed not in values
    harmed = lacking or rule.harmful.intersection(values)
    shown = " ".join(values) or ("[]" if is_set else "not set")
    return rule.check.judged(not harmed, f"{rule.setting} = {shown}, {origin}")
