"""Files of the host that a recipe writes: shown first, kept as they were, put back on demand."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Edit:
    """What a file is to be; `former` is None where it is made new."""

    path: Path
    former: str | None
    content: str
    mode: int = 0o644

    def difference(self) -> str:
        """A unified diff, for an admin's eyes."""
        before, after = (
            text.splitlines(keepends=True) for text in (self.former or "", self.content)
        )
        name = str(self.path)
        return "".join(
            difflib.unified_diff(before, after, name if self.former else "/dev/null", name)
        )


def of(path: Path, content: str, mode: int = 0o644) -> Edit:
    """An edit of a file as it is now."""
    former = path.read_text() if path.exists() else None
    return Edit(path, former, content, path.stat().st_mode & 0o777 if former is not None else mode)


def write(paths: Paths, recipe: str, edits: Iterable[Edit], undo: Commands) -> Path:
    """Keep what was there and how to go back, then write. Gives the file in which it is kept.

    Raises HostError where this recipe was followed before and not taken back.
    """
    kept = _kept(paths, recipe)
    if kept.exists():
        raise HostError(
            f"{recipe} was set up before", fix=f"virt-warden remote undo {recipe}, then again"
        )
    chosen = list(edits)
    files.private_directory(kept.parent)
    files.write_atomically(
        kept,
        json.dumps({"edits": [_plain(e) for e in chosen], "commands": undo}).encode(),
        0o600,
        durable=True,
    )
    for edit in chosen:
        files.private_directory(edit.path.parent)
        files.write_atomically(edit.path, edit.content.encode(), edit.mode, durable=True)
    return kept


def put_back(paths: Paths, recipe: str) -> tuple[list[str], Commands]:
    """Put back what a recipe wrote, but for what was edited since.

    Gives a sentence for each file, and the commands after which it holds.
    """
    kept = _kept(paths, recipe)
    try:
        document = json.loads(kept.read_text())
    except FileNotFoundError:
        raise HostError(
            f"{recipe} is not set up by virt-warden", fix="see: virt-warden remote check"
        ) from None
    said = [_put_back(entry) for entry in reversed(document["edits"])]
    kept.unlink()
    return said, tuple(tuple(command) for command in document["commands"])


def _put_back(entry: dict[str, Any]) -> str:
    path = Path(entry["path"])
    now = path.read_text() if path.exists() else None
    if now != entry["content"]:
        return f"{path} was edited since: left as it is"
    if entry["former"] is None:
        path.unlink()
        return f"{path} is removed"
    files.write_atomically(path, entry["former"].encode(), entry["mode"], durable=True)
    return f"{path} is as it was"


def _plain(edit: Edit) -> dict[str, Any]:
    return {
        "path": str(edit.path),
        "former": edit.former,
        "content": edit.content,
        "mode": edit.mode,
    }


def _kept(paths: Paths, recipe: str) -> Path:
    return paths.state / "remote" / f"{recipe}.json"
