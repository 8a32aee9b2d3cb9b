# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of an adoption on the disk: how far a disk has come into its LUKS container."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.blocks import Layer

_STATE = "state.json"


class Phase(StrEnum):
    """How far a disk has come."""

    FORMATTING = "formatting"
    """The container is being made: it holds nothing yet."""
    COPYING = "copying"
    """The disk is copied, up to `offset`."""
    SWITCHING = "switching"
    """The copy is the same as the disk: the domain's XML is about to name it."""
    DONE = "done"
    """The domain has the container; the former disk is still there, in the clear."""


@dataclass(frozen=True)
class Adoption:
    """The adoption of one disk.

    `chain` are the images that the disk consisted of, the guest's own first.
    """

    domain: str
    name: str
    target: str
    chain: tuple[Layer, ...]
    number: int
    size: int
    container: str
    phase: Phase = Phase.FORMATTING
    offset: int = 0
    digest: str = ""

    @property
    def source(self) -> str:
        """The former disk."""
        return self.chain[0].path


def workplace(paths: Paths) -> Paths:
    """Where adoptions have their journals: apart from the domains' journals, which others undo."""
    return replace(paths, state=paths.state / "adoptions")


def key(domain: str, target: str) -> str:
    """The name of one disk's journal."""
    return f"{domain}-{target}"


def load(paths: Paths, domain: str, target: str) -> Adoption | None:
    """How far the adoption of a disk has come, or None where none has begun."""
    return _read(_file(paths, domain, target))


def _read(file: Path) -> Adoption | None:
    try:
        said = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    said["chain"] = tuple(Layer(**layer) for layer in said["chain"])
    return Adoption(**{**said, "phase": Phase(said["phase"])})


def store(paths: Paths, adoption: Adoption) -> Adoption:
    """Write the state to the disk for good, before the next step."""
    file = _file(paths, adoption.domain, adoption.target)
    files.private_directory(file.parent)
    files.write_atomically(file, json.dumps(asdict(adoption)).encode(), 0o600, durable=True)
    return adoption


def forget(paths: Paths, adoption: Adoption) -> None:
    """Forget an adoption that is finished or was given up."""
    _file(paths, adoption.domain, adoption.target).unlink(missing_ok=True)


def unfinished(paths: Paths, domain: str) -> tuple[Adoption, ...]:
    """The domain's disks that are not finished, or whose former disk is still in the clear."""
    found = sorted((workplace(paths).state / "domains").glob(f"{domain}-*/{_STATE}"))
    return tuple(adoption for adoption in map(_read, found) if adoption is not None)


def _file(paths: Paths, domain: str, target: str) -> Path:
    return workplace(paths).domain_state(key(domain, target)) / _STATE
