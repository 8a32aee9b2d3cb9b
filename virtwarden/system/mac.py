# SPDX-License-Identifier: GPL-2.0-or-later
"""Mandatory access control in the running kernel: AppArmor or SELinux."""

from __future__ import annotations

import os
from pathlib import Path

_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_SELINUX = Path("/sys/fs/selinux/enforce")
_SELINUX_CONFIG = Path("/etc/selinux/config")


def model() -> str:
    """`apparmor` or `selinux`, as in libvirt's security_driver; empty where neither is on."""
    if _SELINUX.exists():
        return "selinux"
    try:
        return "apparmor" if _APPARMOR.read_text().strip() == "Y" else ""
    except OSError:
        return ""


def has_profile(name: str) -> bool:
    """Whether a profile of this name is loaded into AppArmor."""
    try:
        return any(line.startswith(f"{name} (") for line in _PROFILES.read_text().splitlines())
    except OSError:
        return False


def is_permissive() -> bool:
    """Whether SELinux is on and permissive: it logs, but confines nothing; selinux(8)."""
    try:
        return _SELINUX.read_text().strip() == "0"
    except OSError:
        return False


def selinux_label(path: str) -> str:
    """The SELinux label of a file (xattr(7), security.selinux), or an empty string."""
    try:
        return os.getxattr(path, "security.selinux").decode().rstrip("\0")
    except OSError:
        return ""


def vm_types() -> frozenset[str]:
    """The types that the SELinux policy has for VMs' processes, svirt_t and the like.

    libvirt reads the same file; selinux_virtual_domain_context_path(3). Empty where the file is
    missing.
    """
    try:
        contexts = _policy_directory() / "contexts" / "virtual_domain_context"
        return frozenset(map(selinux_type, contexts.read_text().split()))
    except OSError:
        return frozenset()


def selinux_type(label: str) -> str:
    """The type in `user:role:type:level`, or an empty string."""
    return (label.split(":") + [""] * 3)[2]


def _policy_directory() -> Path:
    for line in _SELINUX_CONFIG.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "SELINUXTYPE":
            return _SELINUX_CONFIG.parent / value.strip()
    return _SELINUX_CONFIG.parent / "targeted"
