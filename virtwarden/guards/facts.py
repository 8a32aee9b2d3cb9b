# SPDX-License-Identifier: GPL-2.0-or-later
"""What guards may ask of the host.

Each answer is about the host as it is now, and changes nothing: not the kernel, not the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from virtwarden import gate
from virtwarden.changes import arrivals, worked
from virtwarden.changes.claims import Claim, claims_on
from virtwarden.changes.reach import noted
from virtwarden.domain import twins
from virtwarden.errors import HostError
from virtwarden.gate.queues import strangers_at
from virtwarden.guards.pathways import libvirts_for_domains, libvirts_for_helpers
from virtwarden.paths import Paths
from virtwarden.system import (
    blockstack,
    bridges,
    conf,
    files,
    mac,
    mapper,
    mounts,
    namespaces,
    netfilter,
    portfilter,
    process,
    reach,
    resolver,
    sasl,
    scsi,
    seccomp,
    spice,
    taps,
    users,
    vfio,
    vnc,
    written,
)
from virtwarden.system.blockstack import Identity
from virtwarden.system.files import Found, Inode
from virtwarden.system.users import Account

# cgroups(7): there wherever the unified hierarchy is mounted.
_CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
# What libvirt takes where qemu.conf names no others (migration_port_min, migration_port_max).
_MIGRATION_PORTS = (49152, 49215)


class Facts(Protocol):
    """The host as a guard sees it; tests use a fake."""

    def account(self, name: str) -> Account | None:
        """The user of this name."""

    def groups_of(self, account: Account) -> tuple[int, ...]:
        """The gids of all groups that a user is in."""

    def group_id(self, name: str) -> int | None:
        """The gid of the group of this name."""

    def service_groups(self) -> frozenset[int]:
        """The primary groups of system users."""

    def look(self, path: str) -> Found:
        """A path, walked without following symlinks. Raises HostError."""

    def left_of(self, number: str) -> tuple[str, ...]:
        """What libvirt's directories have under the name of a domain with this id."""

    def directories_of(self, number: str) -> tuple[Inode, ...]:
        """libvirt's directories with the sockets of the running domain that has this id."""

    def links_in(self, directory: str) -> tuple[str, ...]:
        """The paths of the symlinks in a directory; none where it is gone."""

    def writer_of(self, path: str) -> str:
        """The UUID of the domain whose user could last write an image; empty if none ever could."""

    def other_user_of(self, path: str, domain: str) -> str:
        """Another domain whose stored XML names this file, under whatever name; or empty."""

    def has_processes(self, uid: int) -> bool:
        """Whether a process of this uid lives."""

    def below(self, inode: Inode) -> tuple[Identity, ...]:
        """All that a block device lies on; empty for a file."""

    def held(self, inode: Inode) -> str:
        """The block device that the host itself uses: this one, or one over this file; or empty."""

    def claims_near(self, claim: Claim) -> tuple[Claim, ...]:
        """The running domains' claims on the same file, on what lies on it, or is below it."""

    def unfinished_adoptions(self, domain: str) -> tuple[str, ...]:
        """The targets of a domain's disks whose `luks adopt` is not finished."""

    def maps(self) -> tuple[mapper.Map, ...]:
        """What the device mapper has open, LUKS containers among it."""

    def backend_works(self, name: str) -> bool:
        """Whether this backend works on the host."""

    def cannot_keep(self, backend: str, promise: netfilter.TapFilter) -> str:
        """The parts of a promise that this backend cannot keep; empty if it keeps all."""

    def is_tap(self, device: str) -> bool:
        """Whether a network interface is a tap, whose frames can be filtered."""

    def domain_at(self, tap: str) -> str:
        """The UUID of the domain for which a tap is filtered; empty if it is none's."""

    def filtered_by(self, tap: str) -> str:
        """The backend that filters this tap; empty if none does."""

    def missing_rules(self, backend: str, promise: netfilter.TapFilter) -> str:
        """What is missing of a filter in the kernel; empty if it is complete."""

    def lacking_for_sasl(self, kind: str) -> str:
        """The packages that QEMU lacks for this SASL; empty if none is missing."""

    def port_backend_works(self, name: str) -> bool:
        """Whether this firewall works on the host for TCP ports."""

    def missing_port_rules(self, backend: str, promise: portfilter.PortFilter) -> str:
        """What is missing of a port filter in the kernel; empty if it is complete."""

    def compiles_calls(self) -> bool:
        """Whether libseccomp is there, which compiles filters of system calls."""

    def reach_works(self) -> bool:
        """Whether nftables can limit what a user sends from this host."""

    def limit_of(self, domain: str) -> reach.Limit | None:
        """What a running domain's user may send; None where nothing limits it."""

    def missing_limit(self, limit: reach.Limit) -> str:
        """What is missing of a limit in the kernel; empty if it is complete."""

    def addresses_of(self, host: str) -> resolver.Addresses:
        """The addresses of a host's name, and who else was asked for them. Raises HostError."""

    def migration_ports(self, domain: str) -> tuple[int, int] | None:
        """The TCP ports at which QEMU waits for a migration; None for a domain that starts anew."""

    def is_defined(self, name: str) -> bool:
        """Whether libvirt keeps the domain; one that is only created it forgets at the stop."""

    def cannot_adopt(self) -> str:
        """Why a start that nobody enrolled cannot get its own user; empty if it can."""

    def qemu_setting(self, name: str) -> conf.Located:
        """A setting of libvirt's for all its VMs, from qemu.conf, and the line that says it."""

    def memory_directories(self) -> tuple[str, ...]:
        """Where libvirt makes files for guests' memory: of huge pages, and qemu.conf's."""

    def has_cgroups(self) -> bool:
        """Whether libvirt can limit, by a cgroup, what a domain's processes use."""

    def has_landlock(self) -> bool:
        """Whether the kernel has Landlock, by which the wrapper confines QEMU."""

    def mac_model(self) -> str:
        """`apparmor` or `selinux`, whichever is on in the kernel; empty where neither."""

    def has_profile(self, name: str) -> bool:
        """Whether AppArmor has a profile of this name."""

    def arguments_of(self, pid_file: Path) -> tuple[str, ...]:
        """The command line of the process that a pid file names; empty where none runs."""

    def mac_is_permissive(self) -> bool:
        """Whether SELinux is permissive: it only logs and confines nothing."""

    def selinux_vm_types(self) -> frozenset[str]:
        """The types that the SELinux policy has for the processes of VMs."""

    def selinux_label(self, path: str) -> str:
        """The label of a file, or an empty string."""

    def bridge_of(self, interface: str) -> str:
        """The bridge that an interface is a port of; empty where it is none's."""

    def is_vlan_aware(self, bridge: str) -> bool:
        """Whether a bridge keeps VLANs apart."""

    def port(self, interface: str) -> bridges.Port:
        """How a bridge's port is set up. Raises CommandError where there is none."""

    def vfio_group(self, name: str) -> str:
        """By what QEMU opens a PCI or mediated device, such as /dev/vfio/7; empty if by nothing."""

    def generic_scsi(self, adapter: str, bus: str, target: str, unit: str) -> str:
        """The path of the device for commands to this SCSI device; empty where it has none."""

    def twin_of(self, domain: str, bridge: str, mac: str) -> tuple[str, str]:
        """Another running domain that has this MAC address on this bridge, and its tap there.

        `domain` is the name of the one that asks. Two empty strings where there is none.
        """

    def amiss_at_gate(self, names: Sequence[str]) -> list[str]:
        """What is wrong with the gate, and which of these taps it shuts out."""

    def strangers_at(self, queues: Mapping[str, int], uid: int) -> list[str]:
        """Who has any of these taps open but root and this user, a sentence each.

        `queues` has the number that the domain has of each tap, by the tap's name.
        """

    def host_names(self) -> tuple[str, ...]:
        """The names under which viewers may reach this host."""

    def vnc_offers(self, host: str, port: int) -> vnc.Offer:
        """What a VNC server offers a viewer before any password. Raises HostError.

        A host with a slash is a Unix socket, which has no port.
        """

    def vnc_takes_anyone(self, host: str, port: int) -> bool:
        """Whether a VNC server with TLS accepts a viewer without a certificate."""

    def takes_plain_websocket(self, host: str, port: int) -> bool:
        """Whether a VNC server accepts WebSocket without TLS."""

    def spice_offers(self, host: str, port: int) -> spice.Offer:
        """How a SPICE server answers a viewer without a password. Raises HostError.

        A host with a slash is a Unix socket, which has no port.
        """


def _with_domains_own(paths: Paths) -> tuple[str, ...]:
    """Where libvirt makes something by a domain's id."""
    own = (str(paths.libvirt_state), *libvirts_for_domains(paths))
    return (*own, *libvirts_for_helpers(paths))


def _leaf(path: str) -> Inode | None:
    return files.look(path).leaf


@dataclass(frozen=True)
class HostFacts(Facts):
    """Facts of the host that this runs on."""

    paths: Paths

    def account(self, name: str) -> Account | None:
        return users.account(name)

    def groups_of(self, account: Account) -> tuple[int, ...]:
        return users.groups_of(account)

    def group_id(self, name: str) -> int | None:
        return users.group_id(name)

    def service_groups(self) -> frozenset[int]:
        return users.service_groups()

    def look(self, path: str) -> Found:
        return files.look(path)

    def left_of(self, number: str) -> tuple[str, ...]:
        if not number.isdecimal():
            return ()
        found = [
            path
            for place in _with_domains_own(self.paths)
            for name in (f"domain-{number}-*", f"{number}-*")
            for path in Path(place).glob(name)
        ]
        return tuple(map(str, found))

    def directories_of(self, number: str) -> tuple[Inode, ...]:
        # QEMU itself makes files in the one for its guest's memory, also when some is attached.
        memory = f"{self.paths.libvirt_state}/ram/"
        found = (path for path in self.left_of(number) if not path.startswith(memory))
        leaves = map(_leaf, found)
        return tuple(leaf for leaf in leaves if leaf and stat.S_ISDIR(leaf.mode))

    def links_in(self, directory: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(str(p) for p in Path(directory).iterdir() if p.is_symlink()))
        except FileNotFoundError:
            return ()

    def writer_of(self, path: str) -> str:
        try:
            former = written.look_up(self.paths.written, path)
        except OSError:  # other reviews say that it is not there
            return ""
        return former.domain if former else ""

    def other_user_of(self, path: str, domain: str) -> str:
        # Imported here: only domains with an overlay over their own disk need it.
        from virtwarden.domain import neighbours

        return neighbours.user_of(self.paths, domain, path)

    def has_processes(self, uid: int) -> bool:
        return users.has_processes(uid)

    def below(self, inode: Inode) -> tuple[Identity, ...]:
        return blockstack.below(inode)

    def held(self, inode: Inode) -> str:
        is_device = stat.S_ISBLK(inode.mode)
        devices = [inode.path] if is_device else blockstack.loops_over(inode.identity)
        return next(filter(blockstack.is_held, devices), "")

    def claims_near(self, claim: Claim) -> tuple[Claim, ...]:
        return claims_on(self.paths, claim.device, claim.number, claim.below)

    def unfinished_adoptions(self, domain: str) -> tuple[str, ...]:
        if not (self.paths.state / "adoptions").exists():
            return ()
        # Imported here: hardly any start needs it.
        from virtwarden.luks import adoption

        found = adoption.unfinished(self.paths, domain)
        return tuple(state.target for state in found if state.phase is not adoption.Phase.DONE)

    def maps(self) -> tuple[mapper.Map, ...]:
        return mapper.maps(self.paths.block_devices)

    def backend_works(self, name: str) -> bool:
        return worked.has_filtered_taps(self.paths, name) or netfilter.BACKENDS[name].works()

    def cannot_keep(self, backend: str, promise: netfilter.TapFilter) -> str:
        return netfilter.BACKENDS[backend].cannot(promise)

    def is_tap(self, device: str) -> bool:
        return taps.find(device) is not None

    def domain_at(self, tap: str) -> str:
        return gate.owner_of(self.paths, tap)

    def filtered_by(self, tap: str) -> str:
        return gate.backend_of(self.paths, tap)

    def missing_rules(self, backend: str, promise: netfilter.TapFilter) -> str:
        return netfilter.BACKENDS[backend].missing(promise)

    def lacking_for_sasl(self, kind: str) -> str:
        return sasl.lacking(kind)

    def port_backend_works(self, name: str) -> bool:
        return worked.has_limited_ports(self.paths, name) or portfilter.BACKENDS[name].works()

    def missing_port_rules(self, backend: str, promise: portfilter.PortFilter) -> str:
        return portfilter.BACKENDS[backend].missing(promise)

    def compiles_calls(self) -> bool:
        return seccomp.is_there()

    def reach_works(self) -> bool:
        return worked.has_limited_reach(self.paths) or reach.works()

    def limit_of(self, domain: str) -> reach.Limit | None:
        return noted(self.paths, domain)

    def missing_limit(self, limit: reach.Limit) -> str:
        return reach.missing(limit)

    def addresses_of(self, host: str) -> resolver.Addresses:
        return resolver.addresses_of(host)

    def migration_ports(self, domain: str) -> tuple[int, int] | None:
        if not arrivals.is_noted(self.paths, domain):
            return None
        settings = conf.settings(_QEMU_CONF, conf.QEMU)
        lowest, highest = (
            int(str(settings.get(f"migration_port_{end}", default)))
            for end, default in zip(("min", "max"), _MIGRATION_PORTS, strict=True)
        )
        return lowest, highest

    def is_defined(self, name: str) -> bool:
        return (self.paths.libvirt_config / f"{name}.xml").exists()

    def cannot_adopt(self) -> str:
        if not self.paths.adopt_socket.exists():
            return "virt-warden.service, which would give it one, does not run"
        return namespaces.why_not()

    def qemu_setting(self, name: str) -> conf.Located:
        try:
            return conf.setting(_QEMU_CONF, conf.QEMU, name)
        except HostError:  # libvirtd, which runs, has read another one
            return conf.Located()

    def memory_directories(self) -> tuple[str, ...]:
        named = self.qemu_setting("memory_backing_dir").values
        return tuple(path for path in (*named, *mounts.of_type("hugetlbfs")) if path[:1] == "/")

    def has_cgroups(self) -> bool:
        return _CGROUPS.exists()

    def has_landlock(self) -> bool:
        # Imported here: hardly any start needs it.
        from virtwarden.system import landlock

        return landlock.abi() > 0

    def mac_model(self) -> str:
        return mac.model()

    def has_profile(self, name: str) -> bool:
        return mac.has_profile(name)

    def arguments_of(self, pid_file: Path) -> tuple[str, ...]:
        try:
            return process.arguments(int(pid_file.read_text()))
        except (OSError, ValueError):
            return ()

    def mac_is_permissive(self) -> bool:
        return mac.is_permissive()

    def selinux_vm_types(self) -> frozenset[str]:
        return mac.vm_types()

    def selinux_label(self, path: str) -> str:
        return mac.selinux_label(path)

    def bridge_of(self, interface: str) -> str:
        return bridges.bridge_of(interface)

    def is_vlan_aware(self, bridge: str) -> bool:
        return bridges.is_vlan_aware(bridge)

    def port(self, interface: str) -> bridges.Port:
        return bridges.port(interface)

    def vfio_group(self, name: str) -> str:
        return vfio.group(name)

    def generic_scsi(self, adapter: str, bus: str, target: str, unit: str) -> str:
        return scsi.generic(adapter, bus, target, unit)

    def twin_of(self, domain: str, bridge: str, mac: str) -> tuple[str, str]:
        return twins.twin_of(self.paths, domain, bridge, mac)

    def amiss_at_gate(self, names: Sequence[str]) -> list[str]:
        return gate.missing(self.paths, names)

    def strangers_at(self, queues: Mapping[str, int], uid: int) -> list[str]:
        return strangers_at(queues, uid)

    def host_names(self) -> tuple[str, ...]:
        return (os.uname().nodename, "localhost")

    def vnc_offers(self, host: str, port: int) -> vnc.Offer:
        return vnc.offer(host, port)

    def vnc_takes_anyone(self, host: str, port: int) -> bool:
        return vnc.takes_anyone(host, port)

    def takes_plain_websocket(self, host: str, port: int) -> bool:
        return vnc.takes_plain_websocket(host, port)

    def spice_offers(self, host: str, port: int) -> spice.Offer:
        return spice.offer(host, port)
