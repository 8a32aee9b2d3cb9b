# SPDX-License-Identifier: GPL-2.0-or-later
"""What the appliance is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

ROOTFS = Path(__file__).with_name("rootfs")
# On the appliance: the archive from which its apt installs.
ARCHIVE = "/srv/debian"

# A KVM host as Debian's installer and `apt install libvirt-daemon-system` leave it, without what
# only a person at the keyboard needs.
_HOST = """
    systemd-sysv udev dbus kmod procps iproute2 iputils-ping apparmor
    linux-image-cloud-amd64
    libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
    ovmf swtpm swtpm-tools
"""

# What the scenarios themselves work with.
_TOOLS = """
    python3 busybox-static cpio tcpdump cryptsetup-bin ipxe
    e2fsprogs lvm2 clevis-luks clevis-tpm2 tang
    nfs-kernel-server ksmbd-tools cifs-utils
"""

# What our package may ask apt for: it lies in the archive, and is not installed.
_ARCHIVE = """
    acl nftables ebtables cryptsetup-bin passwd
    python3-lxml python3-sh python3-libvirt python3-pampy python3-jsonschema
    python3-cryptography python3-pylibacl python3-augeas python3-systemd python3-apt
    python3-cracklib python3-libnbd python3-seccomp python3-nftables virtinst debsecan
"""


# Debian's own policy for SELinux, and what tells of it; selinux(8).
_SELINUX = """
    selinux-policy-default selinux-utils policycoreutils
"""


@dataclass(frozen=True)
class Recipe:
    """A Debian release, and which of its packages go onto the appliance."""

    codename: str
    host: str = _HOST
    tools: str = _TOOLS
    archive: str = _ARCHIVE
    selinux: bool = False

    @property
    def kernel_line(self) -> str:
        """What its kernel is told besides."""
        return "security=selinux selinux=1" if self.selinux else ""

    def with_selinux(self) -> Recipe:
        """The same host after selinux-activate(8), which puts SELinux in AppArmor's place."""
        return replace(self, tools=self.tools + _SELINUX, selinux=True)


BOOKWORM = Recipe("bookworm")
# SPICE was a part of QEMU itself before.
TRIXIE = Recipe("trixie", host=f"{_HOST} qemu-system-modules-spice")
RECIPES = {recipe.codename: recipe for recipe in (BOOKWORM, TRIXIE)}
