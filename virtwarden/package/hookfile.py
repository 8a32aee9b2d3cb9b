# SPDX-License-Identifier: GPL-2.0-or-later
"""Our hooks' places among libvirt's: an admin's own hook is never touched.

libvirt runs `hooks/qemu` and, since 6.5, every executable in `hooks/qemu.d`, for domains, and
likewise `hooks/network` for its networks (https://libvirt.org/hooks.html). Ours is the first where
the admin has none. It is no conffile of
dpkg's: an admin may put a hook of their own in its place at any time, and which of the two is there
is known by a record of what was put where.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files

KINDS = ("qemu", "network")
"""One script is both: what it is asked tells which (virtwarden/hook.py)."""

_EXECUTABLE = 0o755


def place(paths: Paths, source: Path, kind: str = "qemu") -> tuple[Path, bool]:
    """Put `source` where libvirt runs it, in the place of what was put there before.

    Gives where it is, and whether libvirt must look for hooks again to find it.
    """
    content = source.read_bytes()
    former = placed(paths, kind)
    where = former or _free_place(paths, kind)
    where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _record(_record_file(paths, kind), where, content)
    files.write_atomically(where, content, _EXECUTABLE)
    return where, former is None


def placed(paths: Paths, kind: str = "qemu") -> Path | None:
    """Where our hook is, or None where it is nowhere or somebody else's is in its place."""
    known = _packaged(paths)
    places = [paths.hooks / kind, paths.hooks / f"{kind}.d" / "virt-warden"]
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(_record_file(paths, kind).read_text())
        places, known = [Path(record["path"]), *places], known | {*record["sha256"]}
    return next((place for place in places if _digest(place) in known), None)


def take_away(paths: Paths, kind: str = "qemu") -> None:
    """Remove our hook; harmless where it is gone or has become another's."""
    where = placed(paths, kind)
    if where is not None:
        where.unlink()
        if where.parent != paths.hooks:
            with suppress(OSError):  # an admin's hooks are in it
                where.parent.rmdir()
    _record_file(paths, kind).unlink(missing_ok=True)


def _free_place(paths: Paths, kind: str) -> Path:
    first = paths.hooks / kind
    taken = first.exists() or first.is_symlink()
    return paths.hooks / f"{kind}.d" / "virt-warden" if taken else first


def _record_file(paths: Paths, kind: str) -> Path:
    own = paths.hook_record
    return own if kind == "qemu" else own.with_name(f"{own.stem}-{kind}{own.suffix}")


def _packaged(paths: Paths) -> set[str]:
    """What the hooks of this version are like: by that ours is known where the record is lost."""
    return {digest for hook in (paths.share / "hooks").glob("*") if (digest := _digest(hook))}


def _digest(path: Path) -> str:
    """An empty string where there is no such file, or a symlink of somebody's."""
    try:
        return "" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _record(place: Path, where: Path, content: bytes) -> None:
    """Written before the act, and so with both: what is there and what will be."""
    known = [digest for digest in (hashlib.sha256(content).hexdigest(), _digest(where)) if digest]
    files.private_directory(place.parent)
    record = json.dumps({"path": str(where), "sha256": known}) + "\n"
    files.write_atomically(place, record.encode(), 0o600, durable=True)
