# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a VM that nobody enrolled gets its own user at its first start."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.guards.facts import HostFacts
from virtwarden.package import daemon
from virtwarden.paths import Paths

EMULATOR = Check(
    "host.adoption.emulator",
    Severity.MEDIUM,
    "libvirt takes virt-warden's wrapper for new VMs",
    "libvirt does not take virt-warden's wrapper for new VMs",
    "A VM that is created and started at once, by virt-install or virt-manager, is refused.",
    "systemctl daemon-reload; systemctl restart libvirtd",
)
USER = Check(
    "host.adoption.user",
    Severity.MEDIUM,
    "A VM that nobody enrolled gets its own user at its start",
    "A VM that nobody enrolled cannot get its own user at its start",
    "It is refused until it is enrolled; in permissive mode it runs as libvirt's own user.",
    "systemctl enable --now virt-warden.service; sysctl user.max_user_namespaces=10000"
    " kernel.unprivileged_userns_clone=1",
)


def checks(paths: Paths) -> Iterator[Item]:
    """Look at libvirt's daemons, the service and the kernel."""
    lost = [str(pid) for pid in daemon.running(paths) if not daemon.finds_wrappers(paths, pid)]
    seen = f"{paths.emulators} is not on the PATH of process {', '.join(lost)}"
    yield EMULATOR.judged(not lost, seen if lost else f"{paths.emulators} is first on its PATH")
    lacking = HostFacts(paths).cannot_adopt()
    yield USER.judged(not lacking, lacking or f"the service answers at {paths.adopt_socket}")
