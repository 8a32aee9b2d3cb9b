# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit asks each group of checks once."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from virtwarden.audit import collect
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def test_each_group_of_checks_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    found = {name: value for name, value in vars(collect).items() if isinstance(value, ModuleType)}
    for name, module in found.items():
        for function in ("checks", "authority"):
            if hasattr(module, function):
                monkeypatch.setattr(module, function, _counting(asked, name))
    assert collect.items(Paths(), Policy({}, (), ()), []) == []
    # Those of a domain are asked for each domain, of which there is none.
    assert set(asked) == set(found) - {"domains"}
    assert set(asked.values()) == {1}


def _counting(asked: Counter[str], name: str) -> Any:
    def checks(*_: object, **_more: object) -> list[object]:
        asked[name] += 1
        return []

    return checks
