# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled policy in /run, which counts only where nobody else could have written it.

Its key identifies each file that it was made of. So the policy is stale after any edit, any change
of owner or mode, and any file that was added or removed.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from virtwarden import __version__
from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import schema, source, trust
from virtwarden.policy.plain import from_plain, readers, to_plain
from virtwarden.policy.rules import Policy

_FORMAT = 1
_LIMIT_BYTES = 16 * 1024 * 1024
# VMs' users pass through the directory to their own files. After a boot nobody else may have
# created it yet.
_ENTER_ONLY = 0o711
# Twice the longest tick of the clock that stamps files (CONFIG_HZ=100). A file that changed less
# than a tick before the look can change again without a new time.
_TICK_NS = 20_000_000


@dataclass(frozen=True)
class Look:
    """The state of the policy's files at one moment."""

    moment: int
    key: list[list[Any]]

    @property
    def is_settled(self) -> bool:
        """Whether any change after this moment surely alters the key."""
        changes = (item[-1] for item in self.key if len(item) > 2)
        return max(changes, default=0) + _TICK_NS < self.moment


def look(paths: Paths) -> Look:
    """The state of the files now. Call it before reading them: then a later change shows."""
    moment = time.time_ns()
    places = (paths.schema, paths.policy.parent, paths.policy_dir, *source.files(paths))
    return Look(moment, [_identity(path) for path in places])


def _identity(path: Path) -> list[Any]:
    try:
        found = path.lstat()
    except OSError as error:
        return [str(path), error.errno]
    return [
        str(path),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    ]


def fetch(paths: Paths, now: Look, owner: int) -> Policy | None:
    """The compiled policy, where it was made of exactly the files that exist now, else None."""
    document, policy = _stored(paths, owner)
    made = [document.get("version"), document.get("key")]
    moment = document.get("moment")
    if made != [__version__, now.key] or not isinstance(moment, int):
        return None
    return policy if Look(moment, now.key).is_settled else None


def last_good(paths: Paths, owner: int = 0) -> Policy | None:
    """The policy that was compiled last, whatever the files say by now, or None.

    It tells which domains were managed while the policy is broken.
    """
    return _stored(paths, owner)[1]


def _stored(paths: Paths, owner: int) -> tuple[dict[str, Any], Policy | None]:
    """What the cache holds; nothing where it is missing, not trustworthy or not ours."""
    try:
        return _understood(trust.read(paths.policy_cache, owner, _LIMIT_BYTES), paths.schema)
    except (OSError, PolicyError):
        return {}, None


@lru_cache(maxsize=1)  # the service's processes read the same content at each call
def _understood(content: bytes, declared: Path) -> tuple[dict[str, Any], Policy | None]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}, None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        return {}, None
    try:
        return document, from_plain(document.get("policy"), readers(schema.read(declared)))
    except ValueError:
        return document, None


def store(paths: Paths, policy: Policy, found: Look, owner: int) -> None:
    """Store a compiled policy, whole or not at all; a failure costs only time."""
    document = {
        "format": _FORMAT,
        "version": __version__,
        "moment": found.moment,
        "key": found.key,
        "policy": to_plain(policy),
    }
    content = json.dumps(document).encode()
    with suppress(OSError, PolicyError):
        with suppress(FileExistsError):
            paths.run.mkdir(mode=_ENTER_ONLY)
        with trust.directory(paths.run, owner) as directory:
            _write(directory, paths.policy_cache.name, content)


def _write(directory: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{os.getpid()}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
