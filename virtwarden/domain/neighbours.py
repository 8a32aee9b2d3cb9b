# SPDX-License-Identifier: GPL-2.0-or-later
"""Which other domain has a file among its own, whether or not it runs, and under whatever name."""

from __future__ import annotations

import html
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from virtwarden.domain.model import read
from virtwarden.domain.uses import uses
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.system import blockstack, files
from virtwarden.system.blockstack import Identity

# libvirt writes <, >, & and both kinds of quotes in a path as entities.
_PATH = re.compile(rb"""[>'"](/[^<>'"]*)[<'"]""")


def data(path: str) -> tuple[Identity, ...] | None:
    """A file or device, and all that it lies on; None where it is not there. Raises HostError."""
    leaf = files.look(os.path.realpath(path)).leaf
    return (blockstack.identity(leaf), *blockstack.below(leaf)) if leaf else None


def user_of(paths: Paths, domain: str, path: str, *, only_writers: bool = False) -> str:
    """Another persistent domain that uses a file, or writes it; empty where none does.

    Its disk may have another name, lie on this one, or be below it. Raises HostError.
    """
    own = data(path)
    for file in paths.libvirt_config.glob("*.xml") if own else ():
        if own and _uses(file, domain, own, only_writers=only_writers):
            return file.stem
    return ""


def _uses(file: Path, domain: str, own: tuple[Identity, ...], *, only_writers: bool) -> bool:
    try:
        xml = file.read_bytes()
        if not any(_is_same(own, path) for path in _named(xml)):
            return False
        other = read(xml)
        found = [use for use in uses(other) if use.write or not only_writers]
    except (WardenError, OSError):
        return False
    return other.uuid != domain and any(_is_same(own, use.path) for use in found)


def _named(xml: bytes) -> set[str]:
    """All paths in an XML, in less time than it takes to parse that of each domain."""
    found = {path.decode(errors="surrogateescape") for path in _PATH.findall(xml)}
    return {html.unescape(path) for path in found}


def _is_same(own: tuple[Identity, ...], path: str) -> bool:
    with suppress(OSError, ValueError, WardenError):
        found = Path(path).stat()
        if blockstack.identity_of(found) in own:
            return True
        return stat.S_ISBLK(found.st_mode) and own[0] in (data(path) or ())
    return False
