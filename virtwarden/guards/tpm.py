# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM's emulated TPM may reach: the note for swtpm's wrapper, and whether it runs so.

libvirt runs all swtpms as one user (swtpm_user in qemu.conf). Unlike QEMU, they get nothing that is
attached later. So Landlock confines them under AppArmor too, which knows what a swtpm may do but,
with a profile for all swtpms, not which VM's it is. wrapper/tpm.py reads the note.
"""

from __future__ import annotations

import json
from pathlib import Path

from virtwarden.changes import Change, RequireSocketOf, WriteFile
from virtwarden.guards import confinement
from virtwarden.guards.base import Case, Op
from virtwarden.policy import Mode

_FORMAT = 1
# wrapper/tpm.py
_NAME_LENGTH = 50
_PROGRAMS = ("/usr/bin/swtpm", "/usr/bin/swtpm_setup")
# Read by both and their libraries, and no secret.
_READ = (
    *("/usr", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd"),
    *("/etc/group", "/etc/ssl/openssl.cnf", "/etc/swtpm_setup.conf", "/proc/filesystems"),
    *("/proc/sys/crypto", "/proc/sys/kernel"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def _socket(case: Case) -> str:
    return f"{case.paths.libvirt_run}/swtpm/{case.short_name}-swtpm.sock"


def _note(case: Case) -> str:
    return str(case.paths.tpm_notes / f"{case.domain.name[:_NAME_LENGTH]}.json")


def _is_where_libvirt_puts_it(case: Case) -> bool:
    """Whether libvirt gives the TPM's state to swtpm's user; one that is a file, it does not."""
    return case.domain.has_emulated_tpm and not case.domain.tpm_states


def _states(own: Path) -> tuple[str, ...]:
    return tuple(str(own / version) for version in ("tpm2", "tpm1.2"))


def is_confined(case: Case) -> bool:
    """Whether the wrapper is to confine it.

    Once the wrapper has given up all new privileges, AppArmor would not let it change to a profile
    for all swtpms. Debian has none. Under SELinux libvirt does not find the wrapper
    (package/emulators.py).
    """
    mac = case.facts.mac_model()
    return (
        case.domain.has_emulated_tpm
        and case.rules.mode is not Mode.DISABLED
        and case.rules.sandbox != "off"
        and mac != "selinux"
        and not (mac == "apparmor" and case.facts.has_profile("swtpm"))
    )


def plan(case: Case) -> list[Change]:
    """The note, before libvirt starts swtpm; and at `start`, which comes then, a look at it."""
    if (
        case.op is Op.START
        and _is_where_libvirt_puts_it(case)
        and case.rules.mode is not Mode.DISABLED
    ):
        return [RequireSocketOf(_socket(case), _states(case.paths.tpm_states / case.domain.uuid))]
    if case.op is not Op.PREPARE or not is_confined(case):
        return []
    paths, domain = case.paths, case.domain
    content = {
        "version": _FORMAT,
        "name": domain.name,
        "mode": case.rules.mode.value,
        "required": case.rules.sandbox == "required",
        "socket": _socket(case),
        "execute": [*_PROGRAMS, *confinement.loaders()],
        "read": [*_READ],
        "write": [
            *(str(paths.tpm_states / domain.uuid), *domain.tpm_states),
            *(f"{paths.tpm_logs}/{domain.name}-swtpm.log", *_DEVICES),
        ],
    }
    return [WriteFile(_note(case), json.dumps(content), user="", everybody=True)]


def verify(case: Case) -> list[str]:
    """The kernel does not tell who is confined. The wrapper's swtpm is given its socket, open."""
    if not is_confined(case) or case.facts.look(_note(case)).leaf is None:
        return []
    arguments = case.facts.arguments_of(case.paths.tpm_pid(case.short_name))
    if not arguments or any(word.startswith("type=unixio,fd=") for word in arguments):
        return []
    wrapper = f"{case.paths.emulators}/swtpm"
    restart = "systemctl restart libvirtd, then stop the VM and start it"
    return [f"its emulated TPM is not confined: libvirt did not start {wrapper} ({restart})"]
