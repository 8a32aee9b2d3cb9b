"""What the policy says of a domain, and which line of which file says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Literal

Choice = Literal["deny", "allow"]
Backend = Literal["auto", "nftables", "ebtables"]
Need = Literal["required", "off"]
Exemption = Literal["emulator", "qemu-commandline", "spice"]


class Mode(StrEnum):
    """What becomes of a start that a guard objects to, in SELinux's words."""

    ENFORCING = "enforcing"
    PERMISSIVE = "permissive"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Origin:
    """The line that set a value; without a file, nobody did."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, as editors and refusals have it."""
        return f"{self.file}:{self.line}" if self.file else "built-in default"


@dataclass(frozen=True)
class Setting:
    """A value with the line it came from."""

    value: Any
    origin: Origin


Settings = Mapping[str, Setting]
"""Settings by their dotted key, such as `network.backend`."""


@dataclass(frozen=True)
class Rules:
    """What holds for one domain; a key's last word names its field."""

    mode: Mode
    user_prefix: str
    uid_range: tuple[int, int]
    shared_directories: Choice
    backend: Backend
    mac_spoofing: Choice
    arp_spoofing: Choice
    vlan_tags: Choice
    untapped: Choice
    listen: tuple[str, ...]
    tls: Need
    password: Need
    exceptions: frozenset[str]
    origins: Mapping[str, Origin]

    def where(self, key: str) -> str:
        """Where the value of a dotted key was set: `file:line`, or `built-in default`."""
        return str(self.origins.get(key, Origin()))


@dataclass(frozen=True)
class Entry:
    """One `[[domain]]`: what it sets for the domains whose name its glob matches."""

    match: str
    settings: Settings


@dataclass(frozen=True)
class Policy:
    """All that the admin says; `host` has every key, `files` are those that it was read from."""

    host: Settings
    entries: tuple[Entry, ...]
    files: tuple[str, ...]

    def manages(self, name: str) -> bool:
        """Whether a domain is virt-warden's: the last glob of `managed` that matches wins."""
        managed = False
        for pattern in self.host["managed"].value:
            if fnmatchcase(name, pattern.removeprefix("!")):
                managed = not pattern.startswith("!")
        return managed

    def rules_for(self, name: str) -> Rules:
        """The rules of a domain of this name: the host's, with each matching entry laid over."""
        settings = {key: setting for key, setting in self.host.items() if key != "managed"}
        for entry in self.entries:
            if fnmatchcase(name, entry.match):
                settings.update(entry.settings)
        return Rules(
            **{key.rpartition(".")[2]: setting.value for key, setting in settings.items()},
            origins={key: setting.origin for key, setting in settings.items()},
        )

    def where(self, key: str) -> str:
        """Where a dotted key, `managed` too, was set for the whole host."""
        setting = self.host.get(key)
        return str(setting.origin if setting else Origin())
