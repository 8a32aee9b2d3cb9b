# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is made of values: what guards may ask of it, answered out of memory."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from virtwarden.changes import Claim
from virtwarden.domain.model import read
from virtwarden.errors import HostError
from virtwarden.guards.base import Case, Guard, Op
from virtwarden.paths import Paths
from virtwarden.policy import Origin, Policy, Rules, Setting
from virtwarden.policy.compile import compile_policy
from virtwarden.policy.plain import readers
from virtwarden.policy.schema import defaults
from virtwarden.policy.schema import read as read_schema
from virtwarden.system import netfilter, portfilter, spice, vnc
from virtwarden.system.blockstack import Identity
from virtwarden.system.bridges import Port
from virtwarden.system.conf import Located
from virtwarden.system.files import Found, Inode
from virtwarden.system.mapper import Map
from virtwarden.system.process import Process
from virtwarden.system.reach import Limit
from virtwarden.system.resolver import Addresses
from virtwarden.system.users import Account

REPOSITORY = Path(__file__).parents[2]
KVM = 106
UID = 70000
IMAGES = "/var/lib/libvirt/images"
# As Debian 12 has them once a domain has started: the mode, where it is not 0755, and the owner,
# where it is not root.
_DIRECTORIES = {
    IMAGES: (0o711, 0),
    "/tmp": (0o1777, 0),
    "/var/lib/libvirt/qemu": (0o750, 0),
    "/run/libvirt/qemu/swtpm": (0o1770, 0),
    "/run/virt-warden": (0o711, 0),
    "/var/lib/virt-warden": (0o700, 0),
}


@dataclass
class FakeHost:
    """See Facts. Files are put into it one by one; the directories above them are root's."""

    inodes: dict[str, Inode] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    other_users: dict[str, str] = field(default_factory=dict)
    stacks: dict[int, tuple[Identity, ...]] = field(default_factory=dict)
    held_devices: set[str] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    backends: tuple[str, ...] = ("nftables", "ebtables")
    port_backends: tuple[str, ...] = ("nftables", "iptables")
    taps: set[str] = field(default_factory=set)
    left: tuple[str, ...] = ()
    socket_directories: tuple[str, ...] = ()
    tap_owners: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=lambda: {"kvm": KVM})
    offers: dict[tuple[str, int], vnc.Offer] = field(default_factory=dict)
    takers_of_anyone: set[tuple[str, int]] = field(default_factory=set)
    spice_servers: dict[tuple[str, int], spice.Offer] = field(default_factory=dict)
    plain_websockets: set[tuple[str, int]] = field(default_factory=set)
    lacks_for_sasl: str = ""
    landlock: bool = True
    mac: str = ""
    permissive: bool = False
    profiles: tuple[str, ...] = ()
    command_lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cgroups: bool = False
    no_adoption: str = ""
    defined: bool = True
    libseccomp: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    lost_rules: dict[str, str] = field(default_factory=dict)
    lost_port_rules: dict[str, str] = field(default_factory=dict)
    opened: list[Map] = field(default_factory=list)
    half_adopted: tuple[str, ...] = ()
    bridges: dict[str, str] = field(default_factory=dict)
    vlan_aware: tuple[str, ...] = ()
    ports: dict[str, Port] = field(default_factory=dict)
    shut_out: tuple[str, ...] = ()
    vfio_groups: dict[str, str] = field(default_factory=dict)
    generic_scsis: dict[tuple[str, ...], str] = field(default_factory=dict)
    twins: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    writers: dict[str, str] = field(default_factory=dict)
    strangers: dict[str, str] = field(default_factory=dict)
    limits_reach: bool = True
    limits: dict[str, Limit] = field(default_factory=dict)
    lost_limits: dict[str, str] = field(default_factory=dict)
    names: dict[str, Addresses] = field(default_factory=dict)
    arriving: dict[str, tuple[int, int]] = field(default_factory=dict)
    qemu_conf: dict[str, Located] = field(default_factory=dict)
    memory: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for path, (mode, uid) in _DIRECTORIES.items():
            self.directory(path, mode, uid=uid)

    def file(self, path: str, mode: int = 0o600, **more: Any) -> Inode:
        """Put a regular file there; `kind` makes it another thing."""
        kind = more.pop("kind", stat.S_IFREG)
        return self._put(path, kind | mode, more)

    def block(self, path: str, rdev: int, mode: int = 0o660, **more: Any) -> Inode:
        """Put a block device there."""
        return self._put(path, stat.S_IFBLK | mode, {"rdev": rdev, **more})

    def directory(self, path: str, mode: int = 0o755, **more: Any) -> Inode:
        """Put a directory there, or make the one that is there another."""
        return self._put(path, stat.S_IFDIR | mode, more)

    def symlink(self, path: str, target: str) -> None:
        """Put a symlink there."""
        self._put(path, stat.S_IFLNK | 0o777, {})
        self.links[path] = target

    def _put(self, path: str, mode: int, more: dict[str, Any]) -> Inode:
        for parent in reversed(Path(path).parents):
            if str(parent) not in self.inodes:
                self.inodes[str(parent)] = self._new(str(parent), stat.S_IFDIR | 0o755)
        self.inodes[path] = replace(self._new(path, mode), **more)
        return self.inodes[path]

    def _new(self, path: str, mode: int) -> Inode:
        number = 100 + len(self.inodes)
        return Inode(path, 2049, number, mode, uid=0, gid=0, links=1)

    # Facts

    def account(self, name: str) -> Account | None:
        return self.accounts.get(name)

    def groups_of(self, account: Account) -> tuple[int, ...]:
        return (*self.groups.values(), account.gid)

    def group_id(self, name: str) -> int | None:
        return self.groups.get(name)

    def service_groups(self) -> frozenset[int]:
        return frozenset({33})

    def look(self, path: str) -> Found:
        if os.path.normpath(path) != path or not path.startswith("/") or path.startswith("//"):
            raise HostError(
                f"{path!r} is not a plain absolute path", fix="write it without . .. //"
            )
        directories = [self.inodes["/"]]
        for step in [*reversed(Path(path).parents), Path(path)][1:]:
            inode = self.inodes.get(str(step))
            if inode is None:
                break
            if stat.S_ISLNK(inode.mode):
                real = path.replace(str(step), self.links[str(step)], 1)
                return Found(path, tuple(directories), None, str(step), real)
            if str(step) == path:
                return Found(path, tuple(directories), inode)
            if not stat.S_ISDIR(inode.mode):
                directories.append(inode)
                break
            directories.append(inode)
        return Found(path, tuple(directories), None)

    def writer_of(self, path: str) -> str:
        return self.writers.get(path, "")

    def other_user_of(self, path: str, domain: str) -> str:
        return self.other_users.get(path, "")

    def has_processes(self, uid: int) -> bool:
        return uid in self.running

    def below(self, inode: Inode) -> tuple[Identity, ...]:
        return self.stacks.get(inode.rdev, ())

    def held(self, inode: Inode) -> str:
        return inode.path if inode.path in self.held_devices else ""

    def claims_near(self, claim: Claim) -> tuple[Claim, ...]:
        own = (claim.device, claim.number)
        return tuple(
            other
            for other in self.claims
            if (other.device, other.number) in (own, *claim.below) or own in other.below
        )

    def unfinished_adoptions(self, domain: str) -> tuple[str, ...]:
        return self.half_adopted

    def maps(self) -> tuple[Map, ...]:
        return tuple(self.opened)

    def backend_works(self, name: str) -> bool:
        return name in self.backends

    def is_tap(self, device: str) -> bool:
        return device in self.taps

    def cannot_keep(self, backend: str, promise: netfilter.TapFilter) -> str:
        return netfilter.BACKENDS[backend].cannot(promise)

    def bridge_of(self, interface: str) -> str:
        return self.bridges.get(interface, "")

    def is_vlan_aware(self, bridge: str) -> bool:
        return bridge in self.vlan_aware

    def port(self, interface: str) -> Port:
        return self.ports.get(interface, Port())

    def vfio_group(self, name: str) -> str:
        return self.vfio_groups.get(name, "")

    def generic_scsi(self, *address: str) -> str:
        return self.generic_scsis.get(address, "")

    def twin_of(self, domain: str, bridge: str, mac: str) -> tuple[str, str]:
        return self.twins.get((bridge, mac), ("", ""))

    def amiss_at_gate(self, names: Sequence[str]) -> list[str]:
        return [f"tap {name} is shut out" for name in names if name in self.shut_out]

    def strangers_at(self, queues: Mapping[str, int], uid: int) -> list[str]:
        return [each for name, each in self.strangers.items() if name in queues]

    def left_of(self, number: str) -> tuple[str, ...]:
        return self.left

    def directories_of(self, number: str) -> tuple[Inode, ...]:
        return tuple(self.inodes[path] for path in self.socket_directories)

    def links_in(self, directory: str) -> tuple[str, ...]:
        return tuple(path for path in self.links if path.startswith(f"{directory}/"))

    def domain_at(self, tap: str) -> str:
        return self.tap_owners.get(tap, "")

    def filtered_by(self, tap: str) -> str:
        return self.filters.get(tap, "")

    def missing_rules(self, backend: str, promise: netfilter.TapFilter) -> str:
        if backend != self.filters.get(promise.tap, backend):
            return f"{backend} has no rules for {promise.tap}"
        return self.lost_rules.get(promise.tap, "")

    def lacking_for_sasl(self, kind: str) -> str:
        return self.lacks_for_sasl

    def port_backend_works(self, name: str) -> bool:
        return name in self.port_backends

    def missing_port_rules(self, backend: str, promise: portfilter.PortFilter) -> str:
        lost = self.lost_port_rules
        return lost.get(f"{backend} {promise.domain}", lost.get(promise.domain, ""))

    def reach_works(self) -> bool:
        return self.limits_reach

    def limit_of(self, domain: str) -> Limit | None:
        return self.limits.get(domain)

    def missing_limit(self, limit: Limit) -> str:
        return self.lost_limits.get(limit.domain, "")

    def addresses_of(self, host: str) -> Addresses:
        try:
            return Addresses((str(ipaddress.ip_address(host)),))
        except ValueError:
            pass
        if host not in self.names:
            raise HostError(f"no address is known for {host!r}", fix=f"getent ahosts {host}")
        return self.names[host]

    def migration_ports(self, domain: str) -> tuple[int, int] | None:
        return self.arriving.get(domain)

    def qemu_setting(self, name: str) -> Located:
        return self.qemu_conf.get(name, Located())

    def memory_directories(self) -> tuple[str, ...]:
        return self.memory

    def host_names(self) -> tuple[str, ...]:
        return ("kvm1", "localhost")

    def vnc_offers(self, host: str, port: int) -> vnc.Offer:
        if (host, port) not in self.offers:
            raise HostError(f"the VNC server at {host} port {port} does not answer")
        return self.offers[host, port]

    def vnc_takes_anyone(self, host: str, port: int) -> bool:
        return (host, port) in self.takers_of_anyone

    def takes_plain_websocket(self, host: str, port: int) -> bool:
        return (host, port) in self.plain_websockets

    def spice_offers(self, host: str, port: int) -> spice.Offer:
        if (host, port) not in self.spice_servers:
            raise HostError(f"the SPICE server at {host} port {port} does not answer")
        return self.spice_servers[host, port]

    def compiles_calls(self) -> bool:
        return self.libseccomp

    def is_defined(self, name: str) -> bool:
        return self.defined

    def cannot_adopt(self) -> str:
        return self.no_adoption

    def has_cgroups(self) -> bool:
        return self.cgroups

    def has_landlock(self) -> bool:
        return self.landlock

    def mac_model(self) -> str:
        return self.mac

    def has_profile(self, name: str) -> bool:
        return name in self.profiles

    def arguments_of(self, pid_file: Path) -> tuple[str, ...]:
        return self.command_lines.get(str(pid_file), ())

    def mac_is_permissive(self) -> bool:
        return self.permissive

    def selinux_vm_types(self) -> frozenset[str]:
        return frozenset({"svirt_t", "svirt_tcg_t"})

    def selinux_label(self, path: str) -> str:
        return self.labels.get(path, "")


def policy(text: str, directory: Path) -> Policy:
    """A policy as an admin would write it."""
    file = directory / "policy.toml"
    file.write_text(text)
    file.chmod(0o600)
    directory.chmod(0o700)
    paths = Paths(policy=file, policy_dir=directory / "d", schema=REPOSITORY / "policy/schema.json")
    return compile_policy(paths, os.getuid())


def case_of(
    xml: str | bytes, rules: Rules, host: FakeHost, op: Op = Op.PREPARE, paths: Paths | None = None
) -> Case:
    """A case as the hook would make it."""
    raw = xml.encode() if isinstance(xml, str) else xml
    return Case(op, read(raw), rules, host, paths or Paths())


def account_of(name: str, domain: str, uid: int = UID) -> Account:
    """The user that virt-warden makes for a domain."""
    return Account(name, uid, uid, domain)


def process_of(account: Account, **more: Any) -> Process:
    """A QEMU of this user, as the wrapper leaves it."""
    kept = Process(
        pid=4711,
        executable="/usr/bin/qemu-system-x86_64",
        arguments=(),
        uids=(account.uid,) * 4,
        gids=(account.gid,) * 4,
        groups=(KVM, account.gid),
        capabilities=0,
        no_new_privileges=True,
        seccomp=True,
        seccomp_filters=4,
        cgroup="/machine.slice",
        core_limit="0",
        umask=0o077,
        label="",
        environment=frozenset({"HOME", "LC_ALL", "PATH"}),
        is_closed=False,
    )
    return replace(kept, **more)


def rules(**more: Any) -> Rules:
    """The built-in defaults, some of them altered."""
    schema = read_schema(REPOSITORY / "policy/schema.json")
    by = readers(schema)
    host = {key: Setting(by.always[key](v), Origin()) for key, v in defaults(schema).items()}
    return replace(Policy(host, (), ()).rules_for(""), **more)


def refusals(guard: Guard, case: Case) -> list[str]:
    """What a guard has against a domain: of each refusal, the line that an admin would read."""
    lines = [str(refusal) for refusal in guard.review(case)]
    for line in lines:
        what, separator, fix = line.partition("; fix: ")
        assert what, line
        assert separator, line
        assert fix, line
        assert line.isprintable()
    return lines


def refusal(guard: Guard, case: Case) -> str:
    """The one thing that a guard has against a domain."""
    (line,) = refusals(guard, case)
    return line
