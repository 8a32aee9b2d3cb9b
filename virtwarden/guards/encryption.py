# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `encryption`: if the policy says so, a VM's disks and memory are stored only encrypted."""

from __future__ import annotations

from virtwarden.changes import Change
from virtwarden.domain.model import Disk
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.luks.containers import containers, encrypted_by_qemu
from virtwarden.policy import Rules
from virtwarden.system.process import Process
from virtwarden.words import shown

NAME = "encryption"


def review(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE or case.rules.encryption == "optional":
        return []
    return [
        *(_refusal(case, disk) for disk in in_the_clear(case)),
        *_review_memory(case),
        *_review_saved_memory(case),
    ]


def in_the_clear(case: Case) -> list[Disk]:
    """The disks that the domain writes unencrypted."""
    within = {container.disk.target for container in containers(case.domain, case.rules)}
    return [
        disk
        for disk in case.domain.disks
        if disk.has_source
        and not disk.readonly
        and disk.target not in within
        and not encrypted_by_qemu(disk)
    ]


def _refusal(case: Case, disk: Disk) -> Refusal:
    name = shown(case.domain.name)
    return case.refusal(
        f"disk {disk.target} ({disk.path or f'of type {disk.kind}'}) is not encrypted",
        where=case.rules.where("storage.encryption"),
        fix=f"virt-warden luks adopt {name} {disk.target} (first name its new container in the"
        f" policy: [domain.disks.{disk.target}]), or let QEMU encrypt it ({case.edit}:"
        " <encryption format='luks'>, docs/luks.md)",
    )


def _review_memory(case: Case) -> list[Refusal]:
    """Settings by which libvirt writes the guest's memory to a file; see docs/luks.md."""
    found = []
    if case.domain.memory_source == "file" and not case.domain.huge_pages:
        found.append("keeps its memory in a file (<memoryBacking><source type='file'/>)")
    if case.domain.on_crash.startswith("coredump"):
        found.append("writes its memory to a file when it crashes (<on_crash>coredump-…)")
    if "dump" in case.domain.watchdogs:
        found.append("writes its memory to a file when it hangs (<watchdog action='dump'>)")
    return [
        case.refusal(
            f"it {what}, unencrypted",
            where=case.rules.where("storage.encryption"),
            fix=f"remove that: {case.edit}",
        )
        for what in found
    ]


def _review_saved_memory(case: Case) -> list[Refusal]:
    """The domain's managed save, if it has one: the next start would use it."""
    if not case.facts.look(str(case.paths.managed_save(case.domain.name))).leaf:
        return []
    discard = f"virsh managedsave-remove {shown(case.domain.name)}"
    refusal = saved_in_the_clear(case.rules, discard)
    return [refusal] if refusal else []


def saved_in_the_clear(rules: Rules, discard: str) -> Refusal | None:
    """The refusal of saved memory, which contains the guest's secrets and keys, unencrypted.

    `discard` is the command to go on without it.

    libvirt calls no hook before it writes saved memory, so only its return can be refused.
    """
    if rules.encryption == "optional":
        return None
    return Refusal(
        "its saved memory is not encrypted, but the policy requires encryption",
        where=rules.where("storage.encryption"),
        fix=f"discard it and boot, as after a power cut: {discard}; or"
        ' encryption = "optional" until it runs',
    )


def plan(case: Case) -> list[Change]:
    """There is nothing to do: luks opens what is encrypted."""
    return []


def verify(case: Case, process: Process) -> list[str]:
    return []
