# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's kernel: mitigations, mandatory access control, and what users can see and do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.system import process

MITIGATIONS = Check(
    "host.kernel.mitigations",
    Severity.HIGH,
    "CPU flaws are mitigated",
    "CPU flaws are not mitigated",
    "Through such a flaw a guest reads the memory of other VMs and of the host, past every other"
    " protection.",
    "apt install intel-microcode amd64-microcode, remove mitigations=off from the kernel's"
    " command line, reboot; see: grep . /sys/devices/system/cpu/vulnerabilities/*",
)
NESTED = Check(
    "host.kernel.nested",
    Severity.MEDIUM,
    "Nested virtualisation is off",
    "Nested virtualisation is on",
    "Nested virtualisation opens the part of KVM in which most of its escapes were found.",
    "echo 'options kvm_intel nested=0' > /etc/modprobe.d/kvm-nested.conf (kvm_amd on AMD); with no"
    " VM running: modprobe -r kvm_intel && modprobe kvm_intel",
)
LSM = Check(
    "host.kernel.mac",
    Severity.HIGH,
    "AppArmor or SELinux is on",
    "Neither AppArmor nor SELinux is enforcing",
    "With either, libvirt's sVirt gives each VM its own label: a second wall behind the VM's user.",
    "apt install apparmor apparmor-utils; boot with apparmor=1 security=apparmor",
)
LANDLOCK = Check(
    "host.kernel.landlock",
    Severity.LOW,
    "The kernel has Landlock",
    "The kernel has no Landlock",
    "Where sVirt is off, virt-warden confines QEMU to its own files with Landlock.",
    "boot a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK and landlock in lsm=",
)
KSM = Check(
    "host.kernel.ksm",
    Severity.MEDIUM,
    "KSM is off",
    "KSM is on",
    "KSM merges equal memory pages of VMs. The time of a write then tells what is in another VM's"
    " memory, and rowhammer flips its bits.",
    "echo 2 > /sys/kernel/mm/ksm/run; systemctl disable --now ksm ksmtuned",
)
HIDEPID = Check(
    "host.kernel.hidepid",
    Severity.LOW,
    "/proc hides other users' processes",
    "Users see each other's processes",
    "An escaped guest reads in /proc which VMs there are, with their command lines.",
    "mount -o remount,hidepid=invisible,gid=adm /proc, and the same in /etc/fstab",
)
PTRACE = Check(
    "host.kernel.ptrace",
    Severity.LOW,
    "ptrace is restricted",
    "ptrace is not restricted",
    "A process can read the memory of every other process of the same user.",
    "echo 'kernel.yama.ptrace_scope = 1' > /etc/sysctl.d/60-ptrace.conf; sysctl --system",
)
LINKS = Check(
    "host.kernel.links",
    Severity.MEDIUM,
    "Links in shared directories are protected",
    "Links in shared directories are not protected",
    "With a hard or symbolic link a user makes root open the wrong file.",
    "sysctl -w fs.protected_hardlinks=1 fs.protected_symlinks=1, and the same in /etc/sysctl.d",
)
SMT = Check(
    "host.kernel.smt",
    Severity.MEDIUM,
    "SMT is off, or leaks nothing",
    "SMT is on and leaks between VMs",
    "While two threads share a core, one VM can learn what another does on it. No kernel"
    " prevents that.",
    "put mitigations=auto,nosmt on the kernel's command line and reboot, or pin VMs that must not"
    " learn of each other to separate cores (<vcpupin>)",
)
SWAP = Check(
    "host.kernel.swap",
    Severity.LOW,
    "Swap is encrypted, or there is none",
    "Swap is not encrypted",
    "Guests' memory, with keys and passwords, is written there and stays when the power is off.",
    "swapoff -a, or encrypt it with a new key at each boot: crypttab(5), swap",
)
_ENFORCE = (
    "load virt-warden's modules for SELinux (/usr/share/doc/virt-warden/selinux.md); setenforce 1,"
    " and SELINUX=enforcing in /etc/selinux/config"
)
# l1tf and itlb_multihit say it only of KVM, after what is mitigated.
_VULNERABLE = re.compile(r"(?<!SMT )vulnerable", re.IGNORECASE)


def checks(root: Path = Path("/")) -> Iterator[Item]:
    """Look at the kernel under this root directory (its /proc and /sys)."""
    yield from _flaws(root / "sys/devices/system/cpu/vulnerabilities")
    yield from _nested(root / "sys/module")
    yield _mac(root)
    yield _landlock()
    yield _ksm(root / "sys/kernel/mm/ksm/run")
    yield _swap(root)
    yield _hidepid(root / "proc/self/mountinfo")
    yield _sysctl(PTRACE, root, "kernel/yama/ptrace_scope")
    for name in ("hardlinks", "symlinks"):
        yield _sysctl(LINKS, root, f"fs/protected_{name}")


def _flaws(directory: Path) -> Iterator[Item]:
    """Documentation/admin-guide/hw-vuln in the kernel's source explains what the files say."""
    if not directory.is_dir():
        yield MITIGATIONS.unknown("this kernel does not report its CPU's flaws")
        return
    flaws = {entry.name: entry.read_text().strip() for entry in sorted(directory.iterdir())}
    open_ones = [f"{name}: {said}" for name, said in flaws.items() if _VULNERABLE.search(said)]
    good = f"{len(flaws)} flaws, all mitigated or not this CPU's"
    yield MITIGATIONS.judged(not open_ones, "; ".join(open_ones) or good)
    leaking = [f"{name}: {said}" for name, said in flaws.items() if "SMT vulnerable" in said]
    yield SMT.judged(not leaking, "; ".join(leaking) or "no flaw needs SMT off")


def _nested(modules: Path) -> Iterator[Item]:
    found = [modules / name / "parameters/nested" for name in ("kvm_intel", "kvm_amd")]
    files = [file for file in found if file.exists()]
    if not files:
        yield NESTED.good("KVM is not loaded")
    for file in files:
        value = file.read_text().strip()
        yield NESTED.judged(value in ("N", "0"), f"{file.parts[-3]} nested={value}")


def _mac(root: Path) -> Item:
    enforce = root / "sys/fs/selinux/enforce"
    if enforce.exists():
        if enforce.read_text().strip() == "1":
            return LSM.good("SELinux, enforcing")
        return LSM.bad("SELinux, permissive", fix=_ENFORCE)
    file = root / "sys/module/apparmor/parameters/enabled"
    enabled = file.exists() and file.read_text().strip() == "Y"
    return LSM.judged(enabled, "AppArmor" if enabled else "neither AppArmor nor SELinux is on")


def _landlock() -> Item:
    from virtwarden.system import landlock

    abi = landlock.abi()
    return LANDLOCK.judged(abi > 0, f"ABI {abi}" if abi > 0 else "the kernel has none")


def _ksm(file: Path) -> Item:
    value = file.read_text().strip() if file.exists() else "0"
    return KSM.judged(value != "1", f"ksm/run is {value}")


def _swap(root: Path) -> Item:
    file = root / "proc/swaps"
    lines = file.read_text().splitlines()[1:] if file.exists() else []
    places = {place: kind for place, kind, *_ in map(str.split, lines)}
    plain = [p for p, kind in places.items() if not _is_encrypted(root, _device(root, p, kind))]
    if plain:
        return SWAP.bad(f"unencrypted: {', '.join(plain)}")
    return SWAP.good(f"encrypted: {', '.join(places)}" if places else "there is none")


def _device(root: Path, place: str, kind: str) -> str:
    """The block device of a swap area, or below a swap file; proc(5), /proc/swaps."""
    if kind != "file":
        return Path(place).name
    try:
        number = (root / place.lstrip("/")).stat().st_dev
    except OSError:  # deleted, and still in use
        return ""
    device = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    return device.resolve().name if device.exists() else ""


def _is_encrypted(root: Path, device: str) -> bool:
    """Whether a block device is dm-crypt's, lies on one that is, or is memory itself (zram)."""
    if not device:
        return False
    directory = root / "sys/class/block" / device
    uuid, below = directory / "dm/uuid", directory / "slaves"
    if device.startswith("zram") or (uuid.exists() and uuid.read_text().startswith("CRYPT-")):
        return True
    devices = [entry.name for entry in below.iterdir()] if below.is_dir() else []
    return bool(devices) and all(_is_encrypted(root, name) for name in devices)


def _hidepid(mounts: Path) -> Item:
    options = process.mount_options(mounts)
    seen = f"/proc is mounted with {options or 'no options'}"
    return HIDEPID.judged(process.are_hidden(options), seen)


def _sysctl(check: Check, root: Path, name: str) -> Item:
    dotted = name.replace("/", ".")
    file = root / "proc/sys" / name
    if not file.exists():
        return check.unknown(f"this kernel has no {dotted}")
    value = file.read_text().strip()
    return check.judged(value != "0", f"{dotted} = {value}")
