# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `sandbox`: only the wrapper starts QEMU, with no argument that was not planned."""

from __future__ import annotations

from pathlib import Path

from virtwarden.changes import Change, EndProcesses, HideProgram, WriteFile
from virtwarden.domain.model import Disk
from virtwarden.errors import Refusal
from virtwarden.guards import calls, ticket, tpm
from virtwarden.guards.base import SUPPLEMENTARY_GROUPS, Case, Op
from virtwarden.guards.confinement import will_be_sandboxed
from virtwarden.system.process import Process

NAME = "sandbox"
# What libvirt sets for QEMU and the wrapper lets through.
ENVIRONMENT = frozenset(
    (
        *("HOME", "LC_ALL", "LOGNAME", "PATH", "SASL_CONF_PATH", "SDL_AUDIODRIVER", "TMPDIR"),
        *("KRB5RCACHENAME", "TZ", "USER", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    )
)
# In which libvirt puts domains, by systemd-machined (machine.slice) or by itself (machine).
_MACHINES = "/machine"


def review(case: Case) -> list[Refusal]:
    refusals = []
    wrapper = ticket.wrapper_path(case.paths, case.domain.arch)
    missing = _missing_exceptions(case)
    if "emulator" in missing:
        refusals.append(
            case.refusal(
                f"its emulator is {case.domain.emulator or 'not named'}, not {wrapper}",
                where=case.rules.where("exceptions"),
                fix=f"{case.enrol}, or {_exceptions(case)}",
            )
        )
    if "qemu-commandline" in missing:
        refusals.append(
            case.refusal(
                "it passes extra arguments to QEMU (<qemu:commandline>)",
                where=case.rules.where("exceptions"),
                fix=f"remove them ({case.edit}), or {_exceptions(case)}",
            )
        )
    refusals += [_transient(case, disk) for disk in _unreachable_overlays(case)]
    return refusals + calls.review(case)


def _missing_exceptions(case: Case) -> set[str]:
    needed = {
        "emulator": case.domain.emulator != ticket.wrapper_path(case.paths, case.domain.arch),
        "qemu-commandline": case.domain.passes_arguments,
    }
    return {name for name, is_needed in needed.items() if is_needed} - case.rules.exceptions


def _exceptions(case: Case) -> str:
    """The whole line: the last one that the policy has for a domain replaces all others."""
    return case.setting("exceptions", sorted(case.rules.exceptions | _missing_exceptions(case)))


def _unreachable_overlays(case: Case) -> list[Disk]:
    """The disks of which libvirt makes an overlay beside the image after the wrapper has run."""
    transient = [disk for disk in case.domain.disks if disk.transient and not disk.readonly]
    if not transient or not will_be_sandboxed(case):
        return []
    open_to_it = [Path(directory) for directory in case.rules.directories]
    return [disk for disk in transient if not {*Path(disk.path).parents} & {*open_to_it}]


def _transient(case: Case, disk: Disk) -> Refusal:
    place = disk.path.rpartition("/")[0]
    return case.refusal(
        "it is transient: after the start libvirt makes a file for it beside its image, which the"
        " sandbox does not let QEMU open",
        where=f"disk {disk.target} ({case.rules.where('landlock.directories')})",
        fix=f"remove <transient/> ({case.edit}), or"
        f" {case.setting('directories', [*case.rules.directories, place], 'landlock')}",
    )


def plan(case: Case) -> list[Change]:
    changes: list[Change] = []
    if case.op is Op.START and case.account is not None:
        changes.append(
            WriteFile(
                path=f"{case.cell}/ticket.json",
                content=ticket.render(case, case.account),
                user=case.user,
            )
        )
    changes += tpm.plan(case)
    if case.op in (Op.PREPARE, Op.START):
        changes.append(EndProcesses(case.user))
    if case.op is Op.ADOPT:
        changes += _hidden(case, ticket.emulator_path(case.domain.arch))
    return changes


def _hidden(case: Case, emulator: str) -> list[Change]:
    found = case.facts.look(emulator)
    leaf = case.facts.look(found.real).leaf if found.symlink else found.leaf
    (group,) = SUPPLEMENTARY_GROUPS
    return [HideProgram(leaf.path, leaf.device, leaf.number, group)] if leaf else []


def verify(case: Case, process: Process) -> list[str]:
    breaches = tpm.verify(case)
    if "emulator" in case.rules.exceptions:
        return breaches
    if not process.no_new_privileges:
        breaches.append("QEMU can gain privileges (NoNewPrivs is not set)")
    if not process.seccomp:
        breaches.append(
            "QEMU can make every system call (no seccomp filter: seccomp_sandbox in"
            " /etc/libvirt/qemu.conf)"
        )
    breaches += calls.verify(case, process) + _verify_memory(case, process)
    if process.core_limit != "0":
        breaches.append(
            f"QEMU can write its guest's memory to a core dump (core limit {process.core_limit})"
        )
    if process.umask != 0o077:
        breaches.append(f"QEMU makes files that other users can read (umask {process.umask:03o})")
    if "qemu-commandline" not in case.rules.exceptions:
        breaches += [
            f"QEMU was given the environment variable {name!r}"
            for name in sorted(process.environment - ENVIRONMENT)
        ]
    if case.facts.has_cgroups() and _MACHINES not in process.cgroup:
        breaches.append(
            "QEMU's devices, memory and tasks are not limited: it is in the cgroup"
            f" {process.cgroup or '/'}, not in its own (cgroup_controllers in"
            " /etc/libvirt/qemu.conf)"
        )
    expected = ticket.emulator_path(case.domain.arch)
    if process.executable == f"{expected} (deleted)":  # proc(5), /proc/pid/exe
        breaches.append(
            "QEMU was updated on disk; this VM runs the old one until you stop and start it"
        )
    elif process.executable != expected:
        breaches.append(f"the process runs {process.executable}, not {expected}")
    return breaches


def _verify_memory(case: Case, process: Process) -> list[str]:
    """An adopted one's user namespace belongs to libvirt's own user."""
    if not case.adopted or process.is_closed:
        return []
    program = ticket.emulator_path(case.domain.arch)
    return [f"other processes of libvirt's user could change QEMU's memory: it can read {program}"]
