# SPDX-License-Identifier: GPL-2.0-or-later
"""The places of our hooks among libvirt's; an admin's own hook is never touched.

libvirt runs `hooks/qemu` and, since 6.5, every executable in `hooks/qemu.d`, for domains. It does
the same with `hooks/network` for its networks (https://libvirt.org/hooks.html). Our hook is the
first of these where the admin has none. It is no conffile of dpkg's, since an admin may put another
hook in its place at any time. A record of what was written where tells the two apart.
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
    """Copy `source` to where libvirt runs it, over our former hook.

    Gives its path, and whether libvirt must look for hooks again to find it.
    """
    content = source.read_bytes()
    former = placed(paths, kind)
    where = former or _free_place(paths, kind)
    where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _record(_record_file(paths, kind), where, content)
    files.write_atomically(where, content, _EXECUTABLE)
    return where, former is None


def placed(paths: Paths, kind: str = "qemu") -> Path | None:
    """The path of our hook; None where there is none, or where somebody else's is in its place."""
    known = _packaged(paths)
    places = [paths.hooks / kind, paths.hooks / f"{kind}.d" / "virt-warden"]
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(_record_file(paths, kind).read_text())
        places, known = [Path(record["path"]), *places], known | {*record["sha256"]}
    return next((place for place in places if _digest(place) in known), None)


def take_away(paths: Paths, kind: str = "qemu") -> None:
    """Remove our hook; does nothing where it is gone or is somebody else's by now."""
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
    """The digests of this version's hooks, which identify ours where the record is lost."""
    return {digest for hook in (paths.share / "hooks").glob("*") if (digest := _digest(hook))}


def _digest(path: Path) -> str:
    """The file's digest; empty where there is no such file, or where it is a symlink."""
    try:
        return "" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _record(place: Path, where: Path, content: bytes) -> None:
    """Write the record before the hook, with both digests: of what is there and of what will be."""
    known = [digest for digest in (hashlib.sha256(content).hexdigest(), _digest(where)) if digest]
    files.private_directory(place.parent)
    record = json.dumps({"path": str(where), "sha256": known}) + "\n"
    files.write_atomically(place, record.encode(), 0o600, durable=True)
