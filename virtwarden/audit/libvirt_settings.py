"""libvirt's own configuration: what in it undoes a protection."""

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

    A list that is set must have `needed` in it.
    """

    file: str
    lens: str
    setting: str
    default: str
    harmful: set[str]
    severity: Severity
    title: str
    why: str
    better: str
    needed: str = ""

    @property
    def check(self) -> Check:
        """What the items of this rule are about."""
        return Check(
            f"host.libvirt.{self.setting}",
            self.severity,
            self.title,
            self.why,
            f"in /etc/libvirt/{self.file}: {self.setting} = {self.better}; {_RESTART}",
        )


_qemu = partial(Rule, "qemu.conf", conf.QEMU)
_libvirtd = partial(Rule, "libvirtd.conf", conf.LIBVIRTD)


def _listen(setting: str, title: str) -> Rule:
    return _qemu(
        setting,
        "127.0.0.1",
        {"0.0.0.0", "::"},  # noqa: S104 - what is looked for
        Severity.MEDIUM,
        title=title,
        why="Domains that virt-warden does not manage show their screen to every network.",
        better='"127.0.0.1"',
    )


RULES = (
    _qemu(
        "user",
        "libvirt-qemu",
        {"root", "+0", "0"},
        Severity.CRITICAL,
        title="VMs without a user of their own do not run as root",
        why="A domain that virt-warden does not manage runs as this user.",
        better='"libvirt-qemu"',
    ),
    _qemu(
        "group",
        "libvirt-qemu",
        {"root", "+0", "0"},
        Severity.HIGH,
        title="VMs without a user of their own are not in root's group",
        why="A domain that virt-warden does not manage runs in this group.",
        better='"libvirt-qemu"',
    ),
    _qemu(
        "security_driver",
        "",
        {"none"},
        Severity.HIGH,
        title="sVirt is on",
        why="libvirt labels no VM: AppArmor and SELinux do not tell one from the other.",
        better='"apparmor" (or "selinux"), or take the line out',
    ),
    _qemu(
        "security_default_confined",
        "1",
        {"0"},
        Severity.HIGH,
        title="VMs are confined unless they ask not to be",
        why="A domain whose XML says nothing of a label gets none.",
        better="1",
    ),
    _qemu(
        "seccomp_sandbox",
        "1",
        {"0"},
        Severity.HIGH,
        title="QEMU's system calls are filtered",
        why="A QEMU that was taken over may make any system call of the kernel.",
        better="1",
    ),
    _qemu(
        "clear_emulator_capabilities",
        "1",
        {"0"},
        Severity.HIGH,
        title="QEMU keeps no capability",
        why="A QEMU with capabilities is root in all but name.",
        better="1",
    ),
    _qemu(
        "dynamic_ownership",
        "1",
        {"0"},
        Severity.HIGH,
        title="libvirt gives each VM its own files",
        why="Disks that are plugged in while a VM runs stay whose they were: open to others, or"
        " closed to the VM.",
        better="1",
    ),
    _qemu(
        "namespaces",
        "mount",
        set(),
        Severity.MEDIUM,
        title="QEMU has a /dev of its own",
        why="It finds all the host's device nodes, of which their modes alone keep it away.",
        better='[ "mount" ]',
        needed="mount",
    ),
    _qemu(
        "cgroup_controllers",
        "all that there are",
        set(),
        Severity.MEDIUM,
        title="Cgroups keep QEMU from devices that are not its own",
        why="A QEMU that was taken over opens any device node that its user may, or can make.",
        better='as it is by default: take the line out, or put "devices" into it',
        needed="devices",
    ),
    _qemu(
        "stdio_handler",
        "logd",
        {"file"},
        Severity.LOW,
        title="What VMs write to logs has an end",
        why="QEMU writes its log, and its guest's serial log, itself: both until the disk is full.",
        better='"logd"',
    ),
    _qemu(
        "relaxed_acs_check",
        "0",
        {"1"},
        Severity.MEDIUM,
        title="Assigned PCI devices are kept apart",
        why="Devices behind one switch reach each other's memory.",
        better="0",
    ),
    _listen("vnc_listen", "Consoles do not listen everywhere by default"),
    _listen("spice_listen", "SPICE displays do not listen everywhere by default"),
    _libvirtd(
        "auth_unix_rw",
        "polkit",
        {"none"},
        Severity.MEDIUM,
        title="libvirt asks who wants to manage it",
        why="Whoever can open its socket is as good as root.",
        better='"polkit"',
    ),
    _libvirtd(
        "unix_sock_rw_perms",
        "0770",
        {"0777", "0666", "777", "666"},
        Severity.HIGH,
        title="libvirt's socket is not open to all users",
        why="Whoever can open its socket is as good as root.",
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
