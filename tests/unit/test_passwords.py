# SPDX-License-Identifier: GPL-2.0-or-later
"""VNC's passwords: those that are made, and those that somebody chose."""

from __future__ import annotations

import re

import pytest

from virtwarden.enrolment import passwords


def test_a_fresh_one_has_all_kinds_of_characters_and_is_never_the_same() -> None:
    made = {passwords.fresh() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password) == passwords.LENGTH
        assert re.search("[a-z]", password)
        assert re.search("[A-Z]", password)
        assert re.search("[0-9]", password)
        assert re.search("[^a-zA-Z0-9]", password)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "fewer than 8"),
        ("aB3%", "fewer than 8"),
        ("RT7%KQ2Z", "no lower-case letter"),
        ("rt7%kq2z", "no upper-case letter"),
        ("rTx%kqyZ", "no digit"),
        ("rT7xkq2Z", "no special character"),
        ("P@ssw0rd", "word list"),
        ("Secret1!", "word list"),
        ("Admin12!", "word list"),
    ],
)
def test_what_is_easily_guessed_is_told_without_telling_it(password: str, said: str) -> None:
    found = passwords.weakness(password)
    assert said in found
    assert not password or password.lower() not in found.lower()


def test_what_chance_made_passes() -> None:
    assert passwords.weakness("rT7%kq2Z") == ""
