# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files and ports a domain's QEMU needs: the wrapper limits it to these with Landlock.

landlock(7). Landlock is used only without sVirt. Under AppArmor or SELinux libvirt confines QEMU
itself and extends that when a disk is attached, which a Landlock ruleset cannot do. A permissive
SELinux sets labels but confines nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from virtwarden.domain.model import Display, Domain, Label
from virtwarden.domain.uses import granted_paths, uses
from virtwarden.guards.base import Case, Op
from virtwarden.system.mac import selinux_type

# The dynamic loader, which the kernel executes together with the emulator; ld.so(8).
_LOADERS = ("lib64/ld-linux*.so.*", "lib/ld-linux*.so.*")
# Read by QEMU and its libraries, and no secret: code, firmware, key maps, time zone, resolver.
_READ = (
    *("/usr", "/etc/ld.so.cache", "/etc/localtime", "/etc/qemu", "/etc/gnutls", "/etc/sasl2"),
    *("/etc/ssl/openssl.cnf", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/hosts"),
    *("/etc/services", "/etc/host.conf", "/etc/gai.conf", "/etc/passwd"),
    *("/etc/pki/qemu", "/etc/pki/libvirt-vnc", "/etc/pki/libvirt-spice"),
    *("/sys/devices/system", "/sys/kernel/mm", "/sys/module/kvm"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/sys"),
)
_DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/ptmx"),
    *("/dev/pts", "/dev/kvm", "/dev/userfaultfd", "/dev/sev", "/dev/sgx_vepc"),
)
# libvirt opens these and hands them over. QEMU opens them only for the admin's own arguments.
_HANDED_OVER = ("/dev/vhost-net", "/dev/vhost-vsock")
_ASSIGNED_DEVICES = ("/dev/vfio", "/dev/bus/usb", "/sys/bus", "/sys/devices", "/sys/class")
_MAKES_A_SOCKET = ("vhostuser", "server")
# QEMU makes the file of a <shmem> there, and a ruleset cannot allow what is not there yet.
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
# Threads are named by files there.
_OWN_PROCESS = "/proc/self"


def granted(case: Case) -> frozenset[str]:
    """The files that QEMU may open: those that the XML names, and what it names otherwise.

    The guard `host` refuses a domain with a SCSI device of the host where the policy allows none.
    """
    found = (
        case.facts.generic_scsi(each.adapter, each.bus, each.target, each.unit)
        for each in case.domain.scsi_devices
    )
    return granted_paths(case.domain, case.rules) | frozenset(filter(None, found))


def has_label_of_its_own(case: Case) -> bool:
    """Whether the domain has its own sVirt label, from libvirt or from the admin."""
    return any(_is_of_one_vm(case, label) for label in case.domain.labels)


def _is_of_one_vm(case: Case, label: Label) -> bool:
    """The XML may name any label. SELinux confines those of a VM's type, and tells one from another
    by the categories at the end: user:role:type:s0:c1,c2.
    """
    if label.model == "selinux":
        has_categories = label.label.count(":") > 3
        return has_categories and selinux_type(label.label) in case.facts.selinux_vm_types()
    return label.model == "apparmor" and bool(label.label)


def is_confined_by_its_label(case: Case) -> bool:
    """Whether it has its own label and the kernel enforces it."""
    return has_label_of_its_own(case) and not case.facts.mac_is_permissive()


def will_be_sandboxed(case: Case) -> bool:
    """Whether Landlock confines the domain's QEMU once it starts, as far as that is known.

    Before `start` nobody knows of a label, but that there is none without AppArmor and SELinux.
    """
    wanted = case.rules.sandbox
    if wanted == "off" or "emulator" in case.rules.exceptions or not case.facts.has_landlock():
        return False
    if wanted == "required":
        return True
    if case.op is Op.PREPARE:
        return not case.facts.mac_model()
    return not is_confined_by_its_label(case)


def is_sandboxed(case: Case) -> bool:
    """Whether a running domain is sandboxed, as its ticket says: the wrapper obeys the ticket.

    /proc does not show a process's Landlock ruleset.
    """
    from virtwarden.system import landlock

    if "emulator" in case.rules.exceptions or landlock.abi() < 1:
        return False
    try:
        ticket = json.loads((Path(case.cell) / "ticket.json").read_bytes())
    except FileNotFoundError:
        return False
    return ticket.get("landlock") is not None


def landlock_rules(case: Case, emulator: str) -> dict[str, Any] | None:
    """The ticket's entry for the sandbox; None without a sandbox."""
    wanted = case.rules.sandbox
    if wanted == "off" or (wanted == "auto" and is_confined_by_its_label(case)):
        return None
    domain = case.domain
    files = granted(case)
    only_read = files & _only_read(domain) | {domain.emulator}
    return {
        "required": wanted == "required",
        "execute": [emulator, *loaders()],
        "read": [*_READ, *sorted(only_read), f"{case.cell}/tls", *_for_sasl(case)],
        "write": [
            *(_OWN_PROCESS, *_DEVICES, *case.rules.directories, *_sockets(domain)),
            *sorted(files - only_read | _ends_of_pipes(domain, files)),
            *(_ASSIGNED_DEVICES if domain.assigns_devices else ()),
            *([_SHARED_MEMORY] if any(map(_is_shared_memory, files)) else []),
            *(_HANDED_OVER if "qemu-commandline" in case.rules.exceptions else ()),
        ],
        "bind": _ports_to_listen_on(case),
        "connect": None if domain.speaks_tcp else list(case.rules.tcp_connect),
    }


def _ends_of_pipes(domain: Domain, granted: frozenset[str]) -> frozenset[str]:
    """QEMU opens two pipes with these ends of a name, where they are there, and else the one."""
    return frozenset(f"{path}.{end}" for path in granted & {*domain.pipes} for end in ("in", "out"))


def _is_shared_memory(path: str) -> bool:
    return path.startswith(f"{_SHARED_MEMORY}/")


def _for_sasl(case: Case) -> list[str]:
    if not case.rules.asks_by_sasl:
        return []
    keytab = [case.rules.keytab] if case.rules.sasl == "kerberos" else []
    return [f"{case.cell}/sasl", "/etc/krb5.conf", *keytab]


def loaders() -> list[str]:
    """The dynamic loaders, which the kernel executes together with a program."""
    return sorted({str(path) for pattern in _LOADERS for path in Path("/").glob(pattern)})


def _only_read(domain: Domain) -> frozenset[str]:
    bases = {use.path for use in uses(domain) if not use.write}
    return frozenset(bases.union(domain.common_files))


def _sockets(domain: Domain) -> list[str]:
    """The directories in which QEMU makes sockets: consoles', and those of vhost-user NICs."""
    named = [socket for display in domain.displays for socket in _sockets_of(display) if socket]
    named += [nic.endpoint for nic in domain.nics if (nic.kind, nic.mode) == _MAKES_A_SOCKET]
    return sorted({str(Path(socket).parent) for socket in named})


def _sockets_of(display: Display) -> tuple[str, ...]:
    return (display.socket, *(listen.socket for listen in display.listens))


def _ports_to_listen_on(case: Case) -> list[int] | None:
    """The TCP ports of the consoles and those of the policy; None where any will do."""
    if case.domain.speaks_tcp:
        return None
    ports = [port for display in case.domain.displays for port in display.ports]
    return [*(port for port in ports if port), *case.rules.tcp_bind]
