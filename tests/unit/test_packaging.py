# SPDX-License-Identifier: GPL-2.0-or-later
"""What the package says agrees with the code: versions, dependencies, manual, completion."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from virtwarden import __version__
from virtwarden.cli.main import COMMANDS, _parser
from virtwarden.policy.schema import defaults, named, read

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"
DEBIAN = PACKAGING / "debian"
SCHEMA = REPOSITORY / "policy" / "schema.json"
MANUAL = (PACKAGING / "man" / "virt-warden.8").read_text()
COMPLETION = PACKAGING / "completion.bash"
# The Debian package of each module that Python itself does not have.
PACKAGE_OF = {
    "apt": "python3-apt",
    "apt_pkg": "python3-apt",
    "augeas": "python3-augeas",
    "cracklib": "python3-cracklib",
    "cryptography": "python3-cryptography",
    "jsonschema": "python3-jsonschema",
    "libvirt": "python3-libvirt",
    "libvirt_qemu": "python3-libvirt",
    "lxml": "python3-lxml",
    "nftables": "python3-nftables",
    "pam": "python3-pampy",
    "posix1e": "python3-pylibacl",
    "seccomp": "python3-seccomp",
    "sh": "python3-sh",
    "nbd": "python3-libnbd",
    "systemd": "python3-systemd",
}


def test_all_say_the_same_version() -> None:
    debians = re.findall(r"^virt-warden \((.*?)\)", (DEBIAN / "changelog").read_text(), re.M)
    ours = re.findall(r"^## \[(\d.*?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert ours == debians
    assert ours[0] == __version__


def imported() -> set[str]:
    """The first part of each module's name that virt-warden imports, wherever in it."""
    found = set()
    sources = [*(REPOSITORY / "virtwarden").rglob("*.py"), *(REPOSITORY / "hooks").glob("*.py")]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def relations() -> dict[str, set[str]]:
    """Depends, Recommends and Suggests of the package."""
    control = re.sub(r"\n ", " ", (DEBIAN / "control").read_text())
    return {
        field: set(re.findall(r"[a-z0-9][a-z0-9+.-]+", words))
        for field, words in re.findall(r"^(Depends|Recommends|Suggests):(.*)$", control, re.M)
    }


def test_every_module_that_is_imported_comes_with_the_package() -> None:
    others = imported() - sys.stdlib_module_names - {"virtwarden"}
    assert others <= PACKAGE_OF.keys(), "say which Debian package it is of"
    wanted = relations()
    for module in others:
        assert PACKAGE_OF[module] in wanted["Depends"] | wanted["Recommends"], module


def test_the_wrapper_runs_on_the_standard_library_alone() -> None:
    files = {file.stem: file for file in (REPOSITORY / "wrapper").glob("*.py")}
    nodes = [node for file in files.values() for node in ast.walk(ast.parse(file.read_text()))]
    modules = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    modules |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
    # Its directory comes first where modules are looked for.
    assert files.keys().isdisjoint(sys.stdlib_module_names)
    # Each of them is imported before every guest: one of json, os or re costs as much as all.
    for_types = {"collections.abc", "typing"}
    # And this one only by starts that nobody enrolled.
    assert modules - files.keys() - for_types - {"_socket"} == {
        *("__future__", "_ctypes", "_json", "_signal", "_stat", "itertools", "posix", "sys")
    }


def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"virtwarden.cli.{command.replace('-', '_')}")
    parser = _parser([command], module)
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)[command]


def actions_of(command: str) -> dict[str, argparse.ArgumentParser]:
    return _actions(parser_of(command))


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def options_of(command: str) -> set[str]:
    """The long options of a command and its actions, without --help."""
    parsers = [parser_of(command), *actions_of(command).values()]
    return {
        string
        for parser in parsers
        for action in parser._actions
        for string in action.option_strings
        if string.startswith("--") and string != "--help"
    }


def item_of(command: str) -> str:
    """What the manual says of a command, up to the next one."""
    start = rf"^\.It Cm {command}\b"
    found = re.findall(rf"{start}.*?(?=^\.It Cm (?!{command}\b)|^\.Sh )", MANUAL, re.M | re.S)
    return "".join(found)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_tells_of_each_command_and_option(command: str) -> None:
    assert re.search(rf"^\.Cm {command}\b|^\.Nm\n\.Cm {command}\b", MANUAL, re.M), "SYNOPSIS"
    told = item_of(command)
    assert told, f".It Cm {command}"
    for option in options_of(command):
        assert re.search(rf"\bFl {option[1:]}\b", told), option
    for action in actions_of(command):
        assert f".It Cm {command} Cm {action}" in told, action


def test_the_manual_tells_of_no_command_or_option_that_is_not_there() -> None:
    assert {*re.findall(r"^\.It Cm ([\w-]+)", MANUAL, re.M)} == COMMANDS.keys()
    told = {f"-{option}" for option in re.findall(r"Fl (-[a-z-]+)", MANUAL)}
    assert told == {o for c in COMMANDS for o in options_of(c)} | {"--help", "--version"}


@pytest.fixture(scope="module")
def policy_page() -> str:
    keys = importlib.util.spec_from_file_location("keys", PACKAGING / "man" / "keys.py")
    assert keys is not None
    assert keys.loader is not None
    module = importlib.util.module_from_spec(keys)
    keys.loader.exec_module(module)
    template = (PACKAGING / "man" / "virt-warden.toml.5").read_text()
    return str(module.page(template, read(SCHEMA)))


@pytest.mark.parametrize(("key", "value"), sorted(defaults(read(SCHEMA)).items()))
def test_the_policys_manual_has_every_key_with_its_default(
    policy_page: str, key: str, value: object
) -> None:
    table, _, name = key.rpartition(".")
    if table:
        policy_page = policy_page.split(f".Ss [{table}]\n")[1].split(".Ss ")[0]
    item = policy_page.split(f".It Ic {name}\n")[1].split(".It ")[0]
    default = json.dumps(value).replace("-", "\\-")
    assert f"\\&Default: {default}\n" in item


def test_the_policys_manual_has_the_tables_whose_keys_an_admin_names(policy_page: str) -> None:
    for name, node in named(read(SCHEMA)).items():
        (section,) = re.findall(
            rf"\.Ss \[(?:domain\.)?{name}\.NAME\]\n(.*?)\.Ss ", policy_page + ".Ss ", re.S
        )
        for key in node["properties"]:
            assert f".It Ic {key}\n" in section


def test_no_line_of_the_policys_manual_is_taken_for_a_request(policy_page: str) -> None:
    known = {"Dd", "Dt", "Os", "Sh", "Ss", "Nm", "Nd", "Pa", "br", "Pp", "Li", "Ic", "Bl", "El"}
    known |= {"It", "Bd", "Ed", "Xr", "Lk"}
    requests = {*re.findall(r"^\.(\w+)", policy_page, re.M)}
    assert requests <= known


def completed(*words: str) -> list[str]:
    """What bash completes the last of these words to."""
    script = f"""
        _init_completion() {{ words=("${{COMP_WORDS[@]}}"); cword=$COMP_CWORD
            cur="${{words[cword]}}"; prev="${{words[cword-1]}}"; }}
        _filedir() {{ COMPREPLY=(A-FILE); }}
        virsh() {{ printf '%s\\n' web01 db01; }}
        source {COMPLETION}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _virt_warden; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shell = ["/bin/bash", "-c", script, "bash", "virt-warden", *words]
    return subprocess.run(shell, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.process
class TestCompletion:
    def test_it_knows_every_command(self) -> None:
        assert set(completed("")) == {*COMMANDS, "--help", "--version"}
        assert completed("unen") == ["unenrol"]

    @pytest.mark.parametrize("command", COMMANDS)
    def test_it_knows_every_option_and_action(self, command: str) -> None:
        actions = actions_of(command)
        if actions:
            assert {*completed(command, "")} - {"--help"} == {*actions}
        words = [command, *list(actions)[:1], "--"]
        assert {*completed(*words)} - {"--help"} == options_of(command)

    def test_it_knows_the_domains(self) -> None:
        assert set(completed("enrol", "")) == {"web01", "db01"}
        assert completed("status", "--json", "w") == ["web01"]

    def test_it_completes_files_where_one_is_wanted(self) -> None:
        assert completed("enrol", "--xml", "") == ["A-FILE"]


@pytest.mark.parametrize(
    ("search", "is_kept"),
    [("exit 0", False), ("exit 1", False), ("kill -KILL $$", True), ("kill -TERM $PPID", True)],
)
@pytest.mark.process
def test_a_purge_keeps_a_user_whose_files_it_could_not_search_for(
    tmp_path: Path, search: str, is_kept: bool
) -> None:
    """find exits with 1 where a file went meanwhile; killed, it has not seen all there is."""
    programs = {
        "getent": "echo 'vmw-x:x:64000:64000:virt-warden domain 1:/nonexistent:/bin/false'",
        "find": f"case $* in *-xdev*) {search};; esac",
        "userdel": f"touch {tmp_path}/deleted",
        "groupdel": "true",
    }
    for name, script in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", "-ec", f". {PACKAGING}/purge.sh; PATH={tmp_path}:$PATH; purge_users"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (tmp_path / "deleted").exists() is not is_kept
    assert ("not all files could be searched" in said) is is_kept
