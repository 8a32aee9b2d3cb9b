# SPDX-License-Identifier: GPL-2.0-or-later
"""What the policy says of a domain, and which line of which file says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from virtwarden.policy.allowances import BROAD_EXCEPTION, KINDS, word

Choice = Literal["deny", "allow"]
Backend = Literal["auto", "nftables", "ebtables"]
Switch = Literal["on", "off"]
Need = Literal["required", "off"]
Encryption = Literal["optional", "required"]
Sandbox = Literal["auto", "required", "off"]
SystemCalls = Literal["enforce", "log", "off"]
Svirt = Literal["required", "preferred", "off"]
Via = Literal["port", "libvirt"]
Sasl = Literal["off", "tickets", "kerberos"]
Exemption = Literal["emulator", "host-devices", "qemu-commandline", "spice"]
IDLE_EXCEPTIONS = frozenset({"spice"})
"""Exceptions of former versions that change nothing any more: what they allowed is guarded now."""
KeyKind = Literal["file", "credential", "clevis", "ask"]


class Mode(StrEnum):
    """What happens to a start that a guard objects to, in SELinux's words."""

    ENFORCING = "enforcing"
    PERMISSIVE = "permissive"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Origin:
    """The line that set a value; no file means that no line did."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, as editors and refusals write it."""
        return f"{self.file}:{self.line}" if self.file else "built-in default"


@dataclass(frozen=True)
class Setting:
    """A value with the line that set it."""

    value: Any
    origin: Origin


Settings = Mapping[str, Setting]
"""Settings by their dotted key, such as `network.backend`."""


@dataclass(frozen=True)
class KeySource:
    """Where the key of an encrypted disk comes from; never the key itself.

    `value` is a path. For `ask` it is the seconds that somebody has to answer. For `clevis` it may
    be "header": then the container's own LUKS header says how to get the key.
    """

    kind: KeyKind
    value: str | int


@dataclass(frozen=True)
class DiskRules:
    """The rules for one disk: its container, the container's key, its name while it is open."""

    luks: str = ""
    key: KeySource | None = None
    mapper: str = ""


@dataclass(frozen=True)
class Waiver:
    """An item of the audit that may be bad, for these subjects and until this day, YYYY-MM-DD."""

    item: str = ""
    subject: str = "*"
    reason: str = ""
    until: str = ""


@dataclass(frozen=True)
class NicRules:
    """The rules for one NIC: the IP addresses that it may use (without any: all), more MACs."""

    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    zone: str = ""


@dataclass(frozen=True)
class Zone:
    """A security zone; a `vlan` of 0 means none."""

    bridges: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    vlan: int = 0
    peers: Choice = "allow"


NAMED: Mapping[str, type] = {"disks": DiskRules, "nics": NicRules, "waivers": Waiver, "zones": Zone}
"""The tables whose keys the admin names (`disks.vda`), each with what one of them becomes."""


@dataclass(frozen=True)
class Rules:
    """The rules for one domain; a key's last word is the name of its field.

    A table of NAMED is one field: its entries, by name.
    """

    mode: Mode
    sandbox: Sandbox
    system_calls: SystemCalls
    svirt: Svirt
    directories: tuple[str, ...]
    tcp_bind: tuple[int, ...]
    tcp_connect: tuple[int, ...]
    zone: tuple[str, ...]
    foreign_taps: tuple[str, ...]
    bond: str
    slaves: tuple[str, ...]
    management: str
    management_addresses: tuple[str, ...]
    management_gateway: str
    management_dns: tuple[str, ...]
    user_prefix: str
    uid_range: tuple[int, int]
    encryption: Encryption
    shared_directories: Choice
    backend: Backend
    mac_spoofing: Choice
    arp_spoofing: Choice
    vlan_tags: Choice
    neighbour_spoofing: Choice
    dhcp_server: Choice
    router_advertisements: Choice
    link_protocols: Choice
    broadcast_limit: int
    multicast_limit: int
    untapped: Choice
    host_network: Choice
    hosts: tuple[str, ...]
    display: Switch
    via: Via
    listen: tuple[str, ...]
    admin_workstations: tuple[str, ...]
    tls: Need
    client_certificates: Need
    password: Need
    sasl: Sasl
    keytab: str
    static_passwords: Choice
    operators: tuple[str, ...]
    ticket_seconds: int
    exceptions: frozenset[str]
    allow: tuple[str, ...]
    disks: Mapping[str, DiskRules]
    waivers: Mapping[str, Waiver]
    nics: Mapping[str, NicRules]
    zones: Mapping[str, Zone]
    origins: Mapping[str, Origin]

    def allows(self, kind: str, *names: str) -> bool:
        """Whether the domain may use a thing of the host that has any of these names."""
        if BROAD_EXCEPTION in self.exceptions and KINDS[kind].is_device:
            return True
        return any(word(kind, name) in self.allow for name in names)

    @property
    def asks_by_sasl(self) -> bool:
        """Whether viewers log in with SASL, which needs TLS around it."""
        return self.sasl != "off" and self.tls == "required"

    @property
    def principals(self) -> tuple[str, ...]:
        """The operators under the names that Cyrus SASL gives to owners of a Kerberos ticket.

        `alice` is of the host's default realm, `alice@EXAMPLE.ORG` of another one. Has no groups.
        """
        return tuple(name for name in self.operators if not name.startswith("@"))

    def value(self, key: str) -> Any:
        """The value of a dotted key, such as `network.backend` or `disks.vda.luks`."""
        table, *steps = key.split(".")
        if table in NAMED:
            return getattr(getattr(self, table)[steps[0]], steps[1])
        return getattr(self, key.rpartition(".")[2])

    def nic(self, mac: str, place: int) -> NicRules:
        """The rules for a NIC: by its MAC address, or else by its place among the domain's NICs."""
        return self.nics.get(mac.lower()) or self.nics.get(str(place)) or NicRules()

    def where(self, key: str) -> str:
        """Which line set a dotted key: `file:line`, or `built-in default`."""
        return str(self.origins.get(key, Origin()))

    def is_permissive_by(self, file: Path) -> bool:
        """Whether it is permissive because a line of this file says so."""
        return self.mode is Mode.PERMISSIVE and self.origins["mode"].file == str(file)


@dataclass(frozen=True)
class Entry:
    """One `[[domain]]`: what it sets for the domains whose name its glob matches."""

    match: str
    settings: Settings


@dataclass(frozen=True)
class Policy:
    """Everything that the admin says; `host` has every key, `files` are the policy files read."""

    host: Settings
    entries: tuple[Entry, ...]
    files: tuple[str, ...]

    def manages(self, name: str) -> bool:
        """Whether virt-warden manages a domain: the last glob of `managed` that matches wins."""
        managed = False
        for pattern in self.host["managed"].value:
            if fnmatchcase(name, pattern.removeprefix("!")):
                managed = not pattern.startswith("!")
        return managed

    def rules_for(self, name: str) -> Rules:
        """The rules of a domain of this name: the host's, changed by each entry that matches."""
        settings = {key: setting for key, setting in self.host.items() if key != "managed"}
        for entry in self.entries:
            if fnmatchcase(name, entry.match):
                settings.update(entry.settings)
        plain, named = _told_apart(settings)
        values: dict[str, Any] = {k.rpartition(".")[2]: s.value for k, s in plain.items()}
        values |= {table: _by_name(kind, named[table]) for table, kind in NAMED.items()}
        return Rules(**values, origins={k: setting.origin for k, setting in settings.items()})

    @property
    def operators(self) -> frozenset[str]:
        """Everybody who may see any domain's console."""
        found = (each.get("console.operators") for each in (self.host, *self._of_entries))
        return frozenset(name for setting in found if setting for name in setting.value)

    @property
    def _of_entries(self) -> tuple[Settings, ...]:
        return tuple(entry.settings for entry in self.entries)

    @property
    def zones(self) -> Mapping[str, Zone]:
        """The host's security zones, by name."""
        _, named = _told_apart(self.host)
        return _by_name(Zone, named["zones"])

    @property
    def idle(self) -> tuple[Origin, ...]:
        """The lines that name one of IDLE_EXCEPTIONS."""
        found = (entry.settings.get("exceptions") for entry in self.entries)
        return tuple(each.origin for each in found if each and IDLE_EXCEPTIONS & {*each.value})

    def where(self, key: str) -> str:
        """Which line set a dotted key, also `managed`, for the whole host."""
        setting = self.host.get(key)
        return str(setting.origin if setting else Origin())


def _told_apart(settings: Settings) -> tuple[Settings, Mapping[str, Settings]]:
    """The keys that always exist, and each table's keys without the table's own name."""
    plain: dict[str, Setting] = {}
    named: dict[str, dict[str, Setting]] = {table: {} for table in NAMED}
    for key, setting in settings.items():
        table, _, rest = key.partition(".")
        if table in NAMED:
            named[table][rest] = setting
        else:
            plain[key] = setting
    return plain, named


def _by_name(kind: type, settings: Settings) -> Mapping[str, Any]:
    """The values of one table of names: for each name what is set, and otherwise the defaults."""
    found: dict[str, dict[str, Any]] = {}
    for key, setting in settings.items():
        name, _, field = key.partition(".")
        found.setdefault(name, {})[field] = setting.value
    return {name: kind(**values) for name, values in found.items()}
