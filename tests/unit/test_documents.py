# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documents say can be followed: links, commands, targets, tests."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtwarden import __version__
from virtwarden.cli.main import COMMANDS, _module, _parser

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
# What else tells an admin which command to type.
SPEAKING = [
    *DOCUMENTS,
    REPOSITORY / "policy" / "policy.toml",
    *sorted((REPOSITORY / "virtwarden").rglob("*.py")),
    *sorted((REPOSITORY / "wrapper").glob("*.py")),
    *sorted((REPOSITORY / "packaging").glob("*.sh")),
]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(document))


def test_there_are_documents() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} <= {
        path.name for path in DOCUMENTS
    }
    assert len([link for document in DOCUMENTS for link in links(document)]) > 20


@each_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors(target), link


def targets(document: Path) -> set[Path]:
    return {(document.parent / link).resolve() for link in links(document) if "://" not in link}


@each_document
def test_every_document_can_be_reached_from_the_readme(document: Path) -> None:
    start = REPOSITORY / "README.md"
    index = REPOSITORY / "docs" / "README.md"
    assert index in targets(start)
    assert document in {start, *targets(start), *targets(index)}


def test_the_readme_is_one_screen() -> None:
    """Beside its picture: 50 lines, as a browser's window shows them."""
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 50


def commands(text: str) -> Iterator[list[str]]:
    """Each `virt-warden …` of a text, by its words up to where prose or a comment begins."""
    for line in re.findall(r"(?<![\w/.-])virt-warden ((?:[\w*.…-]+ ?)+)", text):
        yield shlex.split(line)


def pieces_of_code(text: str) -> list[str]:
    """Fenced blocks, indented lines, and what stands between backticks."""
    fenced = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    rest = fenced.sub("", text)
    return fenced.findall(text) + re.findall(r"^    .*$|`[^`\n]+`", rest, re.MULTILINE)


def named_commands(path: Path) -> list[list[str]]:
    """In documents those that are set as code; elsewhere whatever begins as a command does."""
    text = path.read_text()
    if path.suffix == ".md":
        return [words for code in pieces_of_code(text) for words in commands(code)]
    return [words for words in commands(text) if words[0] in COMMANDS]


@each_document
def test_every_command_that_is_named_exists(document: Path) -> None:
    for words in named_commands(document):
        assert words[0] in COMMANDS or words[0].startswith("--"), words


def test_the_documents_name_every_command() -> None:
    named = {words[0] for document in DOCUMENTS for words in named_commands(document)}
    assert named >= COMMANDS.keys()


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: path.name)
def test_every_option_that_is_named_exists(path: Path) -> None:
    for words in named_commands(path):
        options = [word for word in words if word.startswith("--")]
        assert {*options} <= known_options(words[0]), words


def known_options(command: str) -> set[str]:
    """The options of a command and of its actions."""
    if command not in COMMANDS:
        return {"--version", "--help"}
    parser = _parser([command], _module([command]))
    return set(_options(_choices(parser)[command]))


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
    for inner in _choices(parser).values():
        yield from _options(inner)


@each_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    for code in pieces_of_code(document.read_text()):
        for words in re.findall(r"(?:^ *|`|sudo )make ((?:[a-z-]+ ?)+)", code, re.MULTILINE):
            assert {*words.split()} <= targets, code


def test_make_help_lists_each_target_below_who_calls_it() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    _, *groups = re.split(r"^##@ ", makefile, flags=re.MULTILINE)
    by_reader = {
        group.split("\n")[0]: re.findall(r"^([a-z-]+):.*## ", group, re.MULTILINE)
        for group in groups
    }
    assert {"install", "uninstall", "demo"} == {*by_reader["Admins"]}
    assert {"test", "test-unit", "lint", "picture"} <= {*by_reader["Developers"]}
    assert {"deb", "deb-source", "piuparts", "test-package"} == {*by_reader["Packagers"]}
    listed = [target for targets in by_reader.values() for target in targets]
    assert sorted(listed) == sorted(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def names_by_file() -> dict[str, set[str]]:
    """Every test and class of tests, as `Class::test` and `test`, by the name of its file."""
    found: dict[str, set[str]] = {}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        names = found.setdefault(path.name, set())
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                names |= {f"{node.name}::{method}" for method in methods}
    return found


THREATS = (REPOSITORY / "docs" / "threat-model.md").read_text()
KEPT_OUT = THREATS.split("\n## What is kept out\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(("name", "at_least"), [("threat-model.md", 20), ("compatibility.md", 10)])
def test_every_proof_is_a_test(name: str, at_least: int) -> None:
    known = names_by_file()
    text = (REPOSITORY / "docs" / name).read_text()
    proofs = re.findall(r"`(test_\w+\.py)::([\w:]+)`", text)
    assert len(proofs) > at_least
    for file, name in proofs:
        assert name in known.get(file, set()), f"{file}::{name}"


def test_every_claim_in_the_threat_model_has_its_proof() -> None:
    claims = re.findall(r"^- (.*?)(?=^- |^#|\Z)", KEPT_OUT, re.MULTILINE | re.DOTALL)
    assert len(claims) > 15
    for claim in claims:
        assert "::" in claim, claim


def test_the_page_on_the_audit_names_every_id_of_a_vms_item() -> None:
    modules = (REPOSITORY / "virtwarden" / "audit").glob("*.py")
    ids = {*re.findall(r'"(vm\.[a-z]+)"', "".join(module.read_text() for module in modules))}
    page = (REPOSITORY / "docs" / "audit.md").read_text()
    assert len(ids) > 10
    assert {*re.findall(r"`(vm\.[a-z]+)`", page)} == ids


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(__version__)}\]", changelog, re.MULTILINE)
