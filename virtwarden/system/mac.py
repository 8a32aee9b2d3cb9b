"""Mandatory access control, as the kernel has it: AppArmor or SELinux."""

from __future__ import annotations

import os
from pathlib import Path

_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_SELINUX = Path("/sys/fs/selinux/enforce")


def model() -> str:
    """`apparmor` or `selinux`, as libvirt's security_driver has it; empty where neither is on."""
    if _SELINUX.exists():
        return "selinux"
    try:
        return "apparmor" if _APPARMOR.read_text().strip() == "Y" else ""
    except OSError:
        return ""


def selinux_label(path: str) -> str:
    """The SELinux label of a file (xattr(7), security.selinux), or an empty string."""
    try:
        return os.getxattr(path, "security.selinux").decode().rstrip("\0")
    except OSError:
        return ""
