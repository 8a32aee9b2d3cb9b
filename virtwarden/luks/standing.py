# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a domain's encrypted disks, as the kernel has it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtwarden.changes import OpenLuks, journal
from virtwarden.changes.luks import closed_at
from virtwarden.domain.model import Disk, Domain
from virtwarden.errors import WardenError
from virtwarden.luks import adoption
from virtwarden.luks.containers import Container, containers, encrypted_by_qemu, key_place
from virtwarden.paths import Paths
from virtwarden.policy import Rules
from virtwarden.system import cryptsetup, mapper


@dataclass(frozen=True)
class Standing:
    """One disk. `since` is in seconds since 1970, None where it is unknown.

    `problem` is what an admin should see to, or empty.
    """

    domain: str
    disk: str
    container: str
    cipher: str
    key: str
    state: str
    since: int | None
    problem: str = ""


def standings(paths: Paths, rules: Rules, domain: Domain, *, runs: bool) -> Iterator[Standing]:
    """The state of each disk of a domain that is encrypted, or that should be."""
    for container in containers(domain, rules):
        yield _of_container(paths, domain, container, runs=runs)
    within = {container.disk.target for container in containers(domain, rules)}
    for disk in domain.disks:
        if encrypted_by_qemu(disk):
            yield _of_qemu(domain, rules, disk, runs=runs)
        elif disk.target not in within and rules.encryption == "required" and not disk.readonly:
            yield Standing(
                *(domain.name, disk.target, disk.path, "none", "-", "unencrypted", None),
                problem="the policy requires encryption: virt-warden luks adopt",
            )


def _of_container(paths: Paths, domain: Domain, container: Container, *, runs: bool) -> Standing:
    found = mapper.find(paths.block_devices, container.mapper)
    cipher, problem = _cipher(container.path)
    if found is not None and not runs:
        problem = f"it is open, but its domain does not run: virt-warden recover {domain.name}"
    if found is None and runs:
        problem = "it is not open, but its domain runs"
    for state in adoption.unfinished(paths, domain.uuid):
        if state.target == container.disk.target:
            problem = f"its former disk, {state.source}, is still there, unencrypted"
    return Standing(
        domain=domain.name,
        disk=container.disk.target,
        container=container.path,
        cipher=cipher,
        key=str(container.place or "none"),
        state="locked" if found is None else "open",
        since=_opened(paths, domain, container) if found else _locked(paths, container),
        problem=problem,
    )


def _cipher(path: str) -> tuple[str, str]:
    """Cipher and key length as the header has them, or what is wrong with the header."""
    if not Path(path).exists():
        return "?", f"{path} is not there"
    try:
        header = cryptsetup.header(path)
    except WardenError as error:
        return "?", str(error)
    return f"{header.version} {header.cipher} {header.key_bits} bits", ""


def _opened(paths: Paths, domain: Domain, container: Container) -> int | None:
    for record in journal.records(paths, domain.uuid):
        if isinstance(record.change, OpenLuks) and record.change.mapper == container.mapper:
            return int(record.before["at"])
    return None


def _locked(paths: Paths, container: Container) -> int | None:
    """When it was closed: by virt-warden, or otherwise by the last boot, which opens nothing."""
    closed = closed_at(paths, container.mapper)
    return max(closed, _boot_time()) if closed else None


def _boot_time() -> int:
    """proc(5), /proc/stat, btime."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0


def _of_qemu(domain: Domain, rules: Rules, disk: Disk, *, runs: bool) -> Standing:
    said = rules.disks.get(disk.target)
    place = key_place(said.key if said else None, disk.path, "")
    return Standing(
        domain=domain.name,
        disk=disk.target,
        container=disk.path,
        cipher=f"{disk.encryption}, by QEMU",
        key=str(place or "libvirt's secret"),
        state="open in QEMU" if runs else "locked",
        since=None,
    )
