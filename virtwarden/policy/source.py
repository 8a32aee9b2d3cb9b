# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that make up the policy: which there are, in which order, and what is in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import trust

FILE_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Source:
    """A policy file as it was read."""

    file: str
    content: bytes


def files(paths: Paths) -> tuple[Path, ...]:
    """policy.toml, there or not, and the drop-ins by name; later ones win."""
    try:
        names = os.listdir(paths.policy_dir)  # noqa: PTH208 - the hook's time counts
    except OSError:
        names = []
    chosen = sorted(n for n in names if n.endswith(".toml") and not n.startswith("."))
    return (paths.policy, *(paths.policy_dir / name for name in chosen))


def read(paths: Paths, owner: int) -> tuple[Source, ...]:
    """What the policy files contain, in order; those that are not there are left out.

    Raises PolicyError where a file or its directory could have been written by others than the
    owner, is no regular file, is too large or cannot be read.
    """
    _check_directory(paths.policy_dir, owner)
    found = []
    for path in files(paths):
        if not path.name.isprintable():
            raise PolicyError(
                f"a drop-in has a name that cannot be shown: {path.name!a}",
                where=str(paths.policy_dir),
                fix=f"rename it: ls -b {trust.quoted(paths.policy_dir)}",
            )
        try:
            content = trust.read(path, owner, FILE_LIMIT_BYTES)
        except FileNotFoundError:
            continue
        found.append(Source(str(path), content))
    return tuple(found)


def _check_directory(path: Path, owner: int) -> None:
    """Also where no drop-in is in it: others could put one there, or take one away."""
    try:
        with trust.directory(path, owner):
            pass
    except FileNotFoundError:
        pass
