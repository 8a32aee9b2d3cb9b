# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's files that a recipe writes: shows the edits, keeps the old files, restores them."""

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
    """What to write into a file; `former` is None where the file is new."""

    path: Path
    former: str | None
    content: str
    mode: int = 0o644

    def difference(self) -> str:
        """A unified diff, for an admin to read."""
        before, after = (
            text.splitlines(keepends=True) for text in (self.former or "", self.content)
        )
        name = str(self.path)
        return "".join(
            difflib.unified_diff(before, after, name if self.former else "/dev/null", name)
        )


@dataclass(frozen=True)
class Undone:
    """What was put back: a sentence for each file, and the commands that apply it.

    `left` are the files that were edited since. What was there before them stays in `record`.
    """

    sentences: tuple[str, ...]
    commands: Commands
    left: tuple[str, ...]
    record: Path


def prepare(path: Path, content: str, mode: int = 0o644) -> Edit:
    """An edit of a file as it is now."""
    former = path.read_text() if path.exists() else None
    return Edit(path, former, content, path.stat().st_mode & 0o777 if former is not None else mode)


def write(paths: Paths, recipe: str, edits: Iterable[Edit], undo: Commands) -> Path:
    """Keep what was there and how to go back, then write. Gives the file that keeps it.

    Raises HostError where this recipe was followed before and not undone.
    """
    file = _record_file(paths, recipe)
    if file.exists():
        raise HostError(
            f"{recipe} was set up before", fix=f"virt-warden remote undo {recipe}, then again"
        )
    chosen = list(edits)
    numbers = [record["number"] for record in _records(paths).values()]
    record = {
        "number": max(numbers, default=0) + 1,
        "edits": [_plain(edit) for edit in chosen],
        "commands": undo,
    }
    files.private_directory(file.parent)
    _write_record(file, record)
    for edit in chosen:
        files.private_directory(edit.path.parent)
        files.write_atomically(edit.path, edit.content.encode(), edit.mode, durable=True)
    return file


def is_set_up(paths: Paths, recipe: str) -> bool:
    """Whether a recipe was followed and not undone."""
    return _record_file(paths, recipe).exists()


def put_back(paths: Paths, recipe: str) -> Undone:
    """Put back what a recipe wrote over, except where a file was edited since.

    Raises HostError where the recipe was not followed. Also raises it where a later recipe wrote
    over the same file: undoing that one afterwards would bring this one's text back.
    """
    file, records = _record_file(paths, recipe), _records(paths)
    if recipe not in records:
        raise HostError(
            f"{recipe} is not set up by virt-warden", fix="see: virt-warden remote check"
        )
    record = records[recipe]
    _refuse_out_of_order(recipe, records)
    left, sentences = [], []
    for entry in reversed(record["edits"]):
        sentence = _put_back(entry)
        if not sentence:
            left.append(entry)
            sentence = f"{entry['path']} was edited since: not changed"
        sentences.append(sentence)
    if left:
        _write_record(file, record | {"edits": left[::-1]})
    else:
        file.unlink()
    return Undone(
        tuple(sentences),
        tuple(tuple(command) for command in record["commands"]),
        tuple(entry["path"] for entry in left),
        file,
    )


def _refuse_out_of_order(recipe: str, records: dict[str, Any]) -> None:
    record = records[recipe]
    ours = {entry["path"] for entry in record["edits"]}
    # The recipe that came last must go first.
    for name, other in sorted(records.items(), key=lambda item: -item[1]["number"]):
        shared = sorted(ours.intersection(entry["path"] for entry in other["edits"]))
        if other["number"] > record["number"] and shared:
            raise HostError(
                f"{name} was set up after {recipe}, over the same {shared[0]}",
                fix=f"virt-warden remote undo {name}; then virt-warden remote undo {recipe}",
            )


def _put_back(entry: dict[str, Any]) -> str:
    """What was done, as a sentence; empty where the file was edited since."""
    path = Path(entry["path"])
    now = path.read_text() if path.exists() else None
    if now not in (entry["content"], entry["former"]):
        return ""
    if entry["former"] is None:
        path.unlink(missing_ok=True)
        return f"{path} is removed"
    files.write_atomically(path, entry["former"].encode(), entry["mode"], durable=True)
    return f"{path} is as it was"


def _records(paths: Paths) -> dict[str, Any]:
    """What is kept for each recipe that was followed, by its name.

    The numbers give their order. A version that did not count wrote records without a number.
    """
    found = sorted(_record_file(paths, "any").parent.glob("*.json"))
    return {file.stem: {"number": 0} | json.loads(file.read_text()) for file in found}


def _write_record(file: Path, record: dict[str, Any]) -> None:
    files.write_atomically(file, json.dumps(record).encode(), 0o600, durable=True)


def _plain(edit: Edit) -> dict[str, Any]:
    return {
        "path": str(edit.path),
        "former": edit.former,
        "content": edit.content,
        "mode": edit.mode,
    }


def _record_file(paths: Paths, recipe: str) -> Path:
    return paths.state / "remote" / f"{recipe}.json"
