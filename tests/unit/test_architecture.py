# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/architecture.md tells is what the code does."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from virtwarden import hook
from virtwarden.changes import KINDS
from virtwarden.guards.base import Guard, Op
from virtwarden.lifecycle import GUARDS
from virtwarden.paths import Paths
from virtwarden.service import warm

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "virtwarden"
TOLD = (REPOSITORY / "docs" / "architecture.md").read_text()
VERSION = "__init__"
"""virtwarden/__init__.py: it has the version, and comes with whatever of ours is imported."""

# Who imports only what stands above it, and nothing that stands beside it in its line.
RANKS = (
    ("words", "log", "paths"),
    ("errors",),
    ("system", "policy"),
    ("drops",),
    ("domain", "gate", "pki", "hostnet"),
    ("changes", "remote"),
    ("luks",),
    ("guards",),
    ("enrolment", "lifecycle", "recovery"),
    ("nextstart",),
    ("hook", "libvirtd"),
    ("package",),
    ("adoption", "audit", "consoled", "watch"),
    ("service",),
    ("cli",),
)
# The ranking would let these: what a change does is in its own fields, and what a guard plans is
# done by others.
STRANGERS = (
    ("changes", "policy"),
    ("changes", "domain"),
    ("changes", "changes.journal"),
    ("guards", "changes.journal"),
)
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
    told = re.findall(r"`(\w+)`", " ".join(first_column(section("A `virsh start`, file by file"))))
    # The wrapper asks for it, and no hook.
    assert set(told) == {*hook._REFUSABLE, *hook._AFTERWARDS, "release", Op.ADOPT.value}


def way_of_a_start() -> list[str]:
    """The files that show a start, in their order."""
    found = section("A `virsh start`, file by file")
    return re.findall(r"^\d\. \[(.*?)\]", found, re.MULTILINE)


WIRE = "virtwarden.service.wire"


def test_the_files_of_a_start_are_there() -> None:
    way = way_of_a_start()
    assert len(way) == 8
    assert "Eight files" in section("A `virsh start`, file by file")
    assert [link for link in way if not (REPOSITORY / link).is_file()] == []


def test_the_files_of_a_start_lead_from_one_to_the_next() -> None:
    """No file of ours on the way is one that nothing before it calls, or speaks with."""
    ours = [
        dotted(REPOSITORY / link) for link in way_of_a_start() if link.startswith("virtwarden/")
    ]
    for place, name in enumerate(ours[1:], start=1):
        called = any(name in DIRECT[before] for before in ours[:place])
        spoken_with = all(WIRE in DIRECT[end] for end in (ours[place - 1], name))
        assert called or spoken_with, name


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
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} imports by a relative name, which this does not follow"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def importers(name: str) -> set[str]:
    return {str(module.relative_to(PACKAGE)) for module in modules() if name in {*imports(module)}}


def dotted(module: Path) -> str:
    parts = module.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The package, or the module at the root, that a module of ours belongs to."""
    return (*name.split("."), "__init__")[1]


OURS = {dotted(module): module for module in modules()}


def direct(module: Path) -> set[str]:
    """What it imports of ours; a package only where more than modules is wanted of it."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= names if names <= OURS.keys() else {*names, str(node.module)}
    return found & OURS.keys()


DIRECT = {name: direct(module) for name, module in OURS.items()}


def reached(name: str) -> set[str]:
    """All modules of ours that come with a module, by whatever it imports at whatever time."""
    found, left = set(), {name}
    while left:
        found |= left
        packages = {each.rpartition(".")[0] for each in left} - {""}
        left = {other for each in left for other in DIRECT[each]} | packages
        left -= found
    return found


def test_the_ranking_is_told() -> None:
    told = [tuple(re.findall(r"`(\w+)`", row)) for row in first_column(section("Imports"))]
    assert told == [*RANKS]


def test_every_package_and_module_has_its_rank() -> None:
    assert sorted(name for rank in RANKS for name in rank) == sorted({*map(room, OURS)} - {VERSION})


@pytest.mark.parametrize("name", [name for rank in RANKS for name in rank])
def test_only_what_ranks_above_is_imported(name: str) -> None:
    """Also by what is imported, and also where a function imports late."""
    above = {VERSION, name}
    for rank in RANKS[: next(place for place, rank in enumerate(RANKS) if name in rank)]:
        above |= {*rank}
    for module in OURS:
        if room(module) == name:
            assert {other for other in reached(module) if room(other) not in above} == set(), module


def test_no_module_imports_itself_by_way_of_others() -> None:
    graphlib.TopologicalSorter(DIRECT).prepare()


def test_modules_are_imported_by_name() -> None:
    """What is imported by a string, no test of this file sees: commands by their names alone."""
    unseen = importers("importlib") | importers("pkgutil")
    # What leaves the hook behind at the removal imports lxml, by its own list of libraries.
    commands, leaving = {"cli/main.py", "cli/luks/__init__.py"}, {"package/farewell.py"}
    assert unseen == commands | leaving | {"service/warm.py"}
    for module in modules():
        assert "__import__" not in module.read_text(), module


def test_the_service_warms_nothing_up_that_ranks_below_it() -> None:
    service = next(place for place, rank in enumerate(RANKS) if "service" in rank)
    below = {f"virtwarden.{name}" for rank in RANKS[service:] for name in rank} - {
        "virtwarden.service"
    }
    assert below <= {*warm._NOT_FOR_HOOKS}


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


def test_the_lifecycle_asks_a_guard_what_every_guard_can_be_asked() -> None:
    guards = {guard.NAME for guard in GUARDS}
    contract = {name for name in vars(Guard) if name[0] != "_"} | {*Guard.__annotations__}
    asked = {
        ast.unparse(node)
        for node in ast.walk(ast.parse((PACKAGE / "lifecycle.py").read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in guards
    }
    assert {each for each in asked if each.partition(".")[2] not in contract} == set()


@pytest.mark.parametrize(("name", "stranger"), STRANGERS)
def test_what_ranks_above_is_kept_apart_all_the_same(name: str, stranger: str) -> None:
    for module in OURS:
        if room(module) == name and module != f"virtwarden.{stranger}":
            found = {other.removeprefix("virtwarden.") for other in reached(module)}
            assert {each for each in found if f"{each}.".startswith(f"{stranger}.")} == set(), (
                module
            )


def test_the_hook_never_comes_near_libvirt() -> None:
    libraries = {"libvirt", "libvirt_qemu"}
    asking = {name for name, module in OURS.items() if libraries & {*imports(module)}}
    for called_by_libvirt in ("virtwarden.hook", "virtwarden.package.farewell"):
        assert reached(called_by_libvirt) & asking == set()
    below = {"adoption", "audit", "cli", "consoled", "libvirtd", "package", "service"}
    assert {*map(room, asking)} == below
    listening = {"admitter", "definitions", "enroller", "revoker", "spoofing", "watcher"}
    assert {name.split(".")[2] for name in asking if room(name) == "service"} == listening


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
