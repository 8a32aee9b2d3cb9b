# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit's titles say what is so: a bad item never shows the title of a good one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from virtwarden import audit
from virtwarden.audit.certificates import CertificateCheck
from virtwarden.audit.item import Check
from virtwarden.audit.libvirt_settings import RULES


def found(value: Any) -> Iterator[Check]:
    if isinstance(value, Check):
        yield value
    elif isinstance(value, dict | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from found(each)


def all_checks() -> dict[str, Check]:
    """Every check of the audit by its id, wherever its module keeps it."""
    names = [each.name for each in pkgutil.iter_modules(audit.__path__)]
    modules = [importlib.import_module(f"{audit.__name__}.{name}") for name in names]
    checks = [check for module in modules for check in found(tuple(vars(module).values()))]
    return {check.id: check for check in [*checks, *(rule.check for rule in RULES)]}


CHECKS = all_checks()


def test_every_check_is_here() -> None:
    assert len(CHECKS) == 88


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_a_bad_item_never_shows_its_good_title(check: Check) -> None:
    assert check.good("x").title == check.good_title
    assert check.bad("x").title == check.bad_title
    assert check.good_title not in check.bad_title
    assert check.bad_title not in check.good_title
    assert check.unknown("x").title not in (check.good_title, check.bad_title)
    if isinstance(check, CertificateCheck):
        assert check.title_of_soon not in (check.good_title, check.bad_title)


def test_no_two_checks_have_the_same_title() -> None:
    titles = [title for check in CHECKS.values() for title in (check.good_title, check.bad_title)]
    assert sorted(titles) == sorted(set(titles))


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_a_title_is_a_short_sentence(check: Check) -> None:
    for title in (check.good_title, check.bad_title):
        assert title == title.strip().rstrip(".")
        assert len(title) < 80, title
