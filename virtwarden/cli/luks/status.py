"""`virt-warden luks status`: how each encrypted disk stands, asked of the kernel anew."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import libvirt

from virtwarden.changes import OpenLuks, journal
from virtwarden.changes.luks import closed_at
from virtwarden.cli.terminal.table import print_table
from virtwarden.domain.model import Disk, Domain, read
from virtwarden.errors import WardenError
from virtwarden.libvirtd.connection import all_domains, connected, find, inactive_xml
from virtwarden.luks import adoption
from virtwarden.luks.containers import Container, containers, encrypted_by_qemu, key_place
from virtwarden.paths import Paths
from virtwarden.policy import Rules, load
from virtwarden.system import cryptsetup, mapper


@dataclass(frozen=True)
class Standing:
    """One disk. `since` is in seconds since 1970, None where nobody knows.

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


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help="all, if none is named")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command. Gives 1 where a container is open that should not be, or cannot be read."""
    policy = load(paths)
    with connected() as connection:
        chosen = [find(connection, name) for name in options.domains] or all_domains(connection)
        standings = [
            standing
            for domain in chosen
            for standing in _standings(paths, policy.rules_for(domain.name()), domain)
        ]
    if options.json:
        print(json.dumps([asdict(standing) for standing in standings], indent=2))
    else:
        _print(standings)
    return int(any(standing.problem for standing in standings))


def _standings(paths: Paths, rules: Rules, domain: libvirt.virDomain) -> Iterator[Standing]:
    runs = bool(domain.isActive())
    known = read(str(domain.XMLDesc(0)).encode() if runs else inactive_xml(domain))
    for container in containers(known, rules):
        yield _of_container(paths, known, container, runs=runs)
    within = {container.disk.target for container in containers(known, rules)}
    for disk in known.disks:
        if encrypted_by_qemu(disk):
            yield _of_qemu(known, rules, disk, runs=runs)
        elif disk.target not in within and rules.encryption == "required" and not disk.readonly:
            yield Standing(
                *(known.name, disk.target, disk.path, "none", "-", "in the clear", None),
                problem="the policy requires encryption: virt-warden luks adopt",
            )


def _of_container(paths: Paths, domain: Domain, container: Container, *, runs: bool) -> Standing:
    found = mapper.find(paths.block_devices, container.mapper)
    cipher, problem = _cipher(container.path)
    if found is not None and not runs:
        problem = f"it is open, and its domain does not run: virt-warden recover {domain.name}"
    if found is None and runs:
        problem = "it is not open, though its domain runs"
    for state in adoption.unfinished(paths, domain.uuid):
        if state.target == container.disk.target:
            problem = f"its former disk, {state.source}, is still there, in the clear"
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
    """When it was closed: by us, or else by the last boot, which opens nothing."""
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


def _print(standings: list[Standing]) -> None:
    rows = [("DOMAIN", "DISK", "STATE", "SINCE", "CIPHER", "KEY", "CONTAINER")]
    rows += [
        (s.domain, s.disk, s.state, _when(s.since), s.cipher, s.key, s.container) for s in standings
    ]
    print_table(rows)
    for standing in standings:
        if standing.problem:
            print(f"! {standing.domain} {standing.disk}: {standing.problem}")


def _when(since: int | None) -> str:
    return "-" if since is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
