# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of the policy: which exist, in which order, and what they contain."""

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
    """policy.toml, whether or not it exists, and the drop-ins by name; later ones win.

    What installation wrote comes before all that an admin writes.
    """
    try:
        names = os.listdir(paths.policy_dir)  # noqa: PTH208 - the hook's time counts
    except OSError:
        names = []
    chosen = sorted(n for n in names if n.endswith(".toml") and not n.startswith("."))
    found = paths.found.name
    first = [paths.found] if found in chosen else []
    return (*first, paths.policy, *(paths.policy_dir / n for n in chosen if n != found))


def read(paths: Paths, owner: int) -> tuple[Source, ...]:
    """The content of the policy files, in order, without those that do not exist.

    Raises PolicyError where others than the owner could have written a file or its directory, and
    where a file is not regular, is too large or cannot be read.
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
    """Check it also where it is empty: others could add a drop-in, or could have removed one."""
    try:
        with trust.directory(path, owner):
            pass
    except FileNotFoundError:
        pass
