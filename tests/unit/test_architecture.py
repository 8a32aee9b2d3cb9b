"""What docs/architecture.md tells is what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from virtwarden import hook
from virtwarden.changes import KINDS
from virtwarden.lifecycle import GUARDS
from virtwarden.paths import Paths

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "virtwarden"
TOLD = (REPOSITORY / "docs" / "architecture.md").read_text()
# Made by tools, held by nobody.
PASSING = {"build", "__pycache__"}


def section(title: str) -> str:
    return TOLD.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_column(text: str) -> list[str]:
    """The first column of a section's table, without its head."""
    rows = re.findall(r"^\| *(.*?) *\|", text, re.MULTILINE)
    return rows[2:]


def test_the_guards_are_told_in_their_order() -> None:
    told = re.findall(r"^\d+\. \*\*(\w+)\*\*", section("Guards"), re.MULTILINE)
    assert told == [guard.NAME for guard in GUARDS]


def test_every_change_is_told() -> None:
    told = first_column(section("Plan, apply, undo"))
    assert sorted(told) == sorted(f"`{name}`" for name in KINDS)


def test_every_step_at_which_something_is_done_is_told() -> None:
    told = re.findall(r"`(\w+)`", " ".join(first_column(section("A `virsh start` in four files"))))
    assert set(told) == {*hook._REFUSABLE, *hook._AFTERWARDS, "release"}


def test_the_four_files_are_there() -> None:
    links = re.findall(r"^\d\. \[(.*?)\]", section("A `virsh start` in four files"), re.MULTILINE)
    assert len(links) == 4
    assert all((REPOSITORY / link).is_file() for link in links)


def test_every_place_is_told() -> None:
    told = section("Where things are")
    for field in fields(Paths):
        assert f"`{field.default}`" in told, field.name


def told_folders() -> set[str]:
    """The tree of the section Folders, as paths."""
    block = section("Folders").split("```")[1]
    found, top = set(), ""
    for indent, name in re.findall(r"^( *)([\w-]+)/", block, re.MULTILINE):
        top = top if indent else name
        found.add(f"{top}/{name}" if indent else name)
    return found


def real_folders() -> set[str]:
    """Those with files of ours in them, two deep."""
    return {
        str(folder.relative_to(REPOSITORY))
        for pattern in ("*", "*/*")
        for folder in REPOSITORY.glob(pattern)
        if folder.is_dir() and not _passes(folder)
    }


def _passes(folder: Path) -> bool:
    parts = folder.relative_to(REPOSITORY).parts
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return bool(PASSING & {*parts}) or parts[0].startswith(".") or not any(files)


def test_every_folder_is_told_and_is_there() -> None:
    assert told_folders() == real_folders()


def modules(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def imports(module: Path) -> Iterator[str]:
    """What a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def importers(name: str) -> set[str]:
    return {str(module.relative_to(PACKAGE)) for module in modules() if name in {*imports(module)}}


@pytest.mark.parametrize("module", modules("system"), ids=lambda path: path.stem)
def test_system_knows_nothing_of_domains(module: Path) -> None:
    ours = [name for name in imports(module) if name.startswith("virtwarden")]
    allowed = ("virtwarden.system", "virtwarden.errors")
    assert [name for name in ours if not name.startswith(allowed) and name != "virtwarden"] == []


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.NAME)
def test_a_guard_knows_nothing_of_another(guard: object) -> None:
    module = Path(str(guard.__file__))  # type: ignore[attr-defined]
    others = {f"virtwarden.guards.{other.NAME}" for other in GUARDS if other is not guard}
    assert others & {*imports(module)} == set()


@pytest.mark.parametrize("layer", ["changes", "guards", "system", "policy"])
def test_imports_run_one_way(layer: str) -> None:
    above = {
        "system": ("changes", "guards", "lifecycle", "journal", "hook", "cli", "policy"),
        "changes": ("guards", "lifecycle", "journal", "hook", "cli", "policy"),
        "policy": ("changes", "guards", "lifecycle", "journal", "hook", "cli"),
        "guards": ("lifecycle", "journal", "hook", "cli"),
    }[layer]
    forbidden = tuple(f"virtwarden.{name}" for name in above)
    for module in modules(layer):
        found = [name for name in imports(module) if name.startswith(forbidden)]
        assert found == [], module


def test_the_hook_never_comes_near_libvirt() -> None:
    listening = {"service/doorman.py", "service/keeper.py", "service/watcher.py"}
    rooms = ("adoption", "cli", "consoled", "libvirtd")
    asking = {str(path.relative_to(PACKAGE)) for room in rooms for path in modules(room)}
    assert importers("libvirt") <= asking | listening


def test_commands_are_run_in_one_place() -> None:
    assert importers("sh") | importers("subprocess") == {"system/run.py"}


def test_the_journal_alone_applies_and_undoes_changes() -> None:
    def calls(module: Path) -> bool:
        return any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("apply", "undo")
            and ast.unparse(node.func.value) != "journal"
            for node in ast.walk(ast.parse(module.read_text()))
        )

    assert [module.name for module in modules() if calls(module)] == ["journal.py"]
