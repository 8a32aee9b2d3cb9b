"""What of the host a domain's QEMU needs to reach: the wrapper holds it to that, by Landlock.

landlock(7). This is where sVirt is missing: under AppArmor or SELinux libvirt confines QEMU itself,
and widens that as disks are plugged in, which no Landlock ruleset can be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtwarden.domain import Display, Domain
from virtwarden.uses import granted_paths, uses

if TYPE_CHECKING:
    from virtwarden.guards.base import Case

_MAC_MODELS = ("apparmor", "selinux")
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
    *("/dev/pts", "/dev/kvm", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock"),
    *("/dev/userfaultfd", "/dev/sev", "/dev/sgx_vepc"),
)
_ASSIGNED_DEVICES = ("/dev/vfio", "/dev/bus/usb", "/sys/bus", "/sys/devices", "/sys/class")
# Threads are named by files there.
_OWN_PROCESS = "/proc/self"


def has_label_of_its_own(domain: Domain) -> bool:
    """Whether sVirt confines the domain: a label that libvirt made up for it, or the admin did."""
    return any(label.model in _MAC_MODELS and label.label for label in domain.labels)


def is_sandboxed(case: Case) -> bool:
    """Whether a running domain is: the wrapper becomes QEMU only as its ticket says.

    Of a process's ruleset, proc(5) tells nothing.
    """
    from virtwarden.system import landlock

    if "emulator" in case.rules.exceptions or landlock.abi() < 1:
        return False
    try:
        ticket = json.loads((Path(case.cell) / "ticket.json").read_bytes())
    except FileNotFoundError:
        return False
    return ticket.get("landlock") is not None


def of(case: Case, emulator: str) -> dict[str, Any] | None:
    """What the ticket says of the sandbox; None where there is to be none."""
    wanted = case.rules.sandbox
    if wanted == "off" or (wanted == "auto" and has_label_of_its_own(case.domain)):
        return None
    domain = case.domain
    granted = granted_paths(domain, case.rules)
    only_read = granted & _only_read(domain) | {domain.emulator}
    return {
        "required": wanted == "required",
        "execute": [emulator, *_loaders()],
        "read": [*_READ, *sorted(only_read), f"{case.cell}/tls", *_for_sasl(case)],
        "write": [
            *(_OWN_PROCESS, *_DEVICES, *case.rules.directories, *_sockets(domain)),
            *sorted(granted - only_read),
            *(_ASSIGNED_DEVICES if domain.assigns_devices else ()),
        ],
        "bind": _ports_to_listen_on(case),
        "connect": None if domain.speaks_tcp else list(case.rules.tcp_connect),
    }


def _for_sasl(case: Case) -> list[str]:
    if not case.rules.asks_by_sasl:
        return []
    keytab = [case.rules.keytab] if case.rules.sasl == "kerberos" else []
    return [f"{case.cell}/sasl", "/etc/krb5.conf", *keytab]


def _loaders() -> list[str]:
    return sorted({str(path) for pattern in _LOADERS for path in Path("/").glob(pattern)})


def _only_read(domain: Domain) -> frozenset[str]:
    bases = {use.path for use in uses(domain) if not use.write}
    return frozenset(bases.union(domain.common_files))


def _sockets(domain: Domain) -> list[str]:
    """The directories in which QEMU makes the consoles' sockets."""
    named = [socket for display in domain.displays for socket in _sockets_of(display) if socket]
    return sorted({str(Path(socket).parent) for socket in named})


def _sockets_of(display: Display) -> tuple[str, ...]:
    return (display.socket, *(listen.socket for listen in display.listens))


def _ports_to_listen_on(case: Case) -> list[int] | None:
    """The TCP ports of the consoles and those of the policy; None where any will do."""
    displays = case.domain.displays
    if case.domain.speaks_tcp or any(display.kind == "spice" for display in displays):
        return None
    ports = [int(port) for d in displays for port in (d.port, d.websocket) if port.isdecimal()]
    return [*(port for port in ports if port), *case.rules.tcp_bind]
