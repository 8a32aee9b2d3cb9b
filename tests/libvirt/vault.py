# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain whose disk is encrypted, as its admin sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.host.domain import Disk
from tests.libvirt.warden import ENFORCING, Warden, set_policy
from virtwarden.paths import Paths
from virtwarden.system import mapper

PATHS = Paths()
KEY = "correct horse battery staple"


def opened() -> list[str]:
    return [found.name for found in mapper.maps(PATHS.block_devices)]


def key_file(path: Path, key: str = KEY, mode: int = 0o400) -> Path:
    path.write_text(key)
    path.chmod(mode)
    return path


@dataclass
class Vault:
    """A domain's encrypted disk: its container, its key, and what the policy says of them."""

    warden: Warden
    container: Path
    key: Path
    said: dict[str, str] = field(default_factory=dict)
    disk: dict[str, Any] = field(default_factory=dict)
    host: str = ""

    def say(self, name: str = "web01", **said: str) -> None:
        """Write the policy."""
        keys = {"luks": f'"{self.container}"', "key.file": f'"{self.key}"', **self.said}
        keys |= {key.replace("_", "."): value for key, value in said.items()}
        lines = [f"{key} = {value}" for key, value in keys.items() if value]
        entry = f'[[domain]]\nmatch = "{name}"\n[domain.disks.vda]\n'
        set_policy(ENFORCING + self.host + entry + "\n".join(lines))

    def enrol(self, name: str = "web01", node: Path | str | None = None) -> str:
        """Define and enrol a domain with this disk."""
        path = node or f"/dev/mapper/vmw-{name}-vda"
        disk = Disk(path, **({"format": "raw", "kind": "block"} | self.disk))
        return self.warden.enrolled(name, disks=[disk])

    def refusal(self, name: str = "web01", **how: Any) -> str:
        """Start a domain that is refused; nothing of it stays open."""
        before = opened()
        self.enrol(name, **how)
        line = self.warden.refusal(name)
        assert opened() == before
        assert self.warden.status(name)["breaches"] == []
        return line


def eventually(look: Callable[[], int]) -> int:
    """What is found, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        os.sched_yield()
    raise TimeoutError(look.__name__)
