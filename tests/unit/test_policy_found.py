# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of the domains that installation found: written, edited by an admin, read again."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.policy.compile import compile_policy
from virtwarden.policy.found import Found, added, pattern, patterns, without
from virtwarden.policy.source import FILE_LIMIT_BYTES

ME = os.getuid()
REPOSITORY = Path(__file__).parents[2]
FILE = Path("/etc/virt-warden/policy.d/00-found-at-installation.toml")
REASON = "disk vda (/srv/a.img): it is not there; fix: make it, or virsh edit a"
NAMES = [
    *("web01", "*", "?", "[a]", "[!a]", "a]b", "[[]", "we[i]rd*na?me"),
    *("R&D", "a b", " a ", "-", "."),
    *('say "hi"', "it's", "back\\slash", "\\u0041", "ümläut", "数据库", "#", "a = 1", '"""', "'''"),
    "x" * 251,
    "." * 251,
]


def text_of(*names: str, reasons: Sequence[str] = (REASON,)) -> str:
    return added("", [Found(name, tuple(reasons)) for name in names], FILE, FILE_LIMIT_BYTES)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "policy.d").mkdir(mode=0o700)
    return Paths(
        policy=tmp_path / "policy.toml",
        policy_dir=tmp_path / "policy.d",
        schema=REPOSITORY / "policy/schema.json",
    )


def put(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_matches_itself_and_no_other(name: str) -> None:
    assert fnmatchcase(name, pattern(name))
    others = {*NAMES, f"{name}x", f"x{name}", name.replace("a", "b"), name[:-1]} - {name}
    assert not [other for other in others if fnmatchcase(other, pattern(name))]


def test_a_character_that_cannot_be_shown_stands_for_any_one() -> None:
    assert pattern("a\u00a0b") == "a?b"
    assert pattern("a\tb*") == "a?b[*]"


@pytest.mark.parametrize("name", [*NAMES, "a\tb", "a\u2028b", "a\u00a0b"])
def test_the_policy_takes_what_is_written_and_the_domain_is_permissive(
    paths: Paths, name: str
) -> None:
    put(paths.found, text_of(name, "other", reasons=[REASON, name]))
    policy = compile_policy(paths, ME)
    assert policy.rules_for(name).is_permissive_by(paths.found)
    assert policy.rules_for("new").mode is Mode.ENFORCING


@pytest.mark.parametrize("file", ["policy.toml", "policy.d/00-a.toml", "policy.d/99-z.toml"])
def test_whatever_an_admin_writes_wins_in_whichever_file(paths: Paths, file: str) -> None:
    put(paths.found, text_of("web01", "db01"))
    put(paths.policy.parent / file, '[[domain]]\nmatch = "web*"\nmode = "enforcing"\n')
    policy = compile_policy(paths, ME)
    assert policy.rules_for("web01").mode is Mode.ENFORCING
    assert policy.rules_for("db01").is_permissive_by(paths.found)


def test_each_reason_and_its_fix_stand_beside_the_domain_as_comments() -> None:
    text = text_of("a")
    assert "\n#: - disk vda (/srv/a.img): it is not there\n" in text
    assert "\n#:   fix: make it, or virsh edit a\n" in text


def test_a_host_of_many_domains_keeps_within_what_a_policy_file_may_be(paths: Paths) -> None:
    names = [f"customer-{number:04}" for number in range(2000)]
    text = text_of(*names, reasons=[REASON] * 20)
    assert len(text.encode()) < FILE_LIMIT_BYTES
    put(paths.found, text)
    assert compile_policy(paths, ME).rules_for("customer-1999").is_permissive_by(paths.found)
    assert "virt-warden check" in text


def test_what_is_added_later_leaves_the_rest_and_names_no_domain_twice() -> None:
    before = text_of("a") + "# mine\n"
    after = added(before, [Found("a", ("new",)), Found("b", (REASON,))], FILE, FILE_LIMIT_BYTES)
    assert after.startswith(before)
    assert patterns(after, FILE) == ["a", "b"]
    assert added(before, [Found("a", ("new",))], FILE, FILE_LIMIT_BYTES) == before


@pytest.mark.parametrize("name", NAMES)
def test_one_is_taken_out_and_the_others_stay_as_they_were(name: str) -> None:
    text = text_of("first", name, "last")
    assert without(text, pattern(name), FILE) == text_of("first", "last")


def test_the_first_and_the_last_are_taken_out_as_any_other() -> None:
    text = text_of("a", "b", "c")
    assert without(text, "a", FILE) == text_of("b", "c")
    assert without(text, "c", FILE) == text_of("a", "b")


def test_nothing_is_left_of_the_last() -> None:
    assert without(text_of("a"), "a", FILE) == ""


KEPT = """\
# A domain of mine.
[[domain]]
match = "a"
# why it is so
zone = "dmz"
[domain.console]
display = "off"

[waivers.x]
item = "vm.mode"
reason = "#: not a comment"
until = "2030-01-01"
"""


def test_what_an_admin_wrote_around_it_stays() -> None:
    text = text_of("a", "b") + "# for bob\n" + KEPT
    after = without(text, "a", FILE)
    assert "# for bob\n" in after
    assert after.endswith(KEPT)
    assert tomllib.loads(after)["domain"][0] == {"match": "b", "mode": "permissive"}


def test_what_an_admin_added_to_the_entry_stays_without_the_mode() -> None:
    entry = 'match = "a"\n'
    text = text_of("a", "b").replace(entry, f'{entry}zone = "dmz" # his\n# and why\n', 1)
    after = without(text, "a", FILE)
    assert tomllib.loads(after)["domain"] == [
        {"match": "a", "zone": "dmz"},
        {"match": "b", "mode": "permissive"},
    ]
    assert 'zone = "dmz" # his\n# and why\n' in after
    assert REASON.partition(";")[0] not in after.partition('match = "b"')[0]


def test_an_entry_of_the_name_that_is_not_permissive_stays() -> None:
    text = text_of("a") + '[[domain]]\nmatch = "a"\nmode = "disabled"\n'
    assert tomllib.loads(without(text, "a", FILE))["domain"] == [{"match": "a", "mode": "disabled"}]


def test_lines_that_end_as_on_windows_are_understood() -> None:
    after = without(text_of("a", "b").replace("\n", "\r\n"), "a", FILE)
    assert patterns(after, FILE) == ["b"]


@pytest.mark.parametrize(
    "edited",
    [
        'domain = [{match = "a", mode = "permissive"}]\n',
        '[[domain]]\nmatch = "a"\nmode = "permissive" # until May\n',
        "[[domain]]\nmatch = 'a'\nmode = 'permissive'\n",
        '[[domain]]\nmatch = """\na"""\nmode = "permissive"\n',
        '[[domain]] # mine\nmatch = "a"\nmode = "permissive"\n',
    ],
)
def test_what_cannot_be_taken_out_line_by_line_is_left_to_the_admin(edited: str) -> None:
    with pytest.raises(PolicyError, match="edited by hand"):
        without(edited, "a", FILE)


@pytest.mark.parametrize("broken", ["[[domain]\n", "a = \n", "domain = 5 5\n"])
def test_a_file_that_is_no_toml_is_left_as_it_is(broken: str) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        without(broken, "a", FILE)
    with pytest.raises(PolicyError, match="cannot be read"):
        added(broken, [Found("a", ())], FILE, FILE_LIMIT_BYTES)


def test_nothing_is_added_where_the_entries_were_written_in_one_line() -> None:
    with pytest.raises(PolicyError):
        added('domain = [{match = "b"}]\n', [Found("a", ())], FILE, FILE_LIMIT_BYTES)
