# SPDX-License-Identifier: GPL-2.0-or-later
"""Each domain of the corpus: read, enrolled, enrolled again, given back, and reviewed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from fake_host import FakeHost, case_of, policy
from lxml import etree

from virtwarden import lifecycle
from virtwarden.domain.model import Domain, read
from virtwarden.domain.uses import uses
from virtwarden.enrolment import headers
from virtwarden.enrolment.enrol import enrol_xml, unenrol_xml
from virtwarden.errors import DomainError, WardenError
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths
from virtwarden.policy import Policy

_SLOW_SECONDS = 1.0
_NOWHERE = Paths(state=Path("/nonexistent"), libvirt_config=Path("/nonexistent"))


@dataclass(frozen=True)
class Outcome:
    """What became of one domain: a word for the table, and what is wrong, if anything is."""

    file: str
    word: str
    wrong: str = ""
    refusals: tuple[str, ...] = ()


def outcomes(files: list[Path], schema: Path, directory: Path) -> Iterator[Outcome]:
    """Try each file. Headers of images, which are not there, are taken to name no base."""
    grammar = etree.RelaxNG(etree.parse(schema))
    rules = policy('managed = ["*"]\n', directory)
    with (
        mock.patch.object(headers, "base", return_value=None),
        mock.patch.object(headers, "is_own", return_value=False),
    ):
        for file in files:
            began = time.monotonic()
            found = _tried(file, grammar, rules)
            slow = time.monotonic() - began > _SLOW_SECONDS
            yield Outcome(file.name, "slow", "it takes over a second") if slow else found


def _tried(file: Path, grammar: etree.RelaxNG, rules: Policy) -> Outcome:
    xml = file.read_bytes()
    try:
        before = read(xml)
    except DomainError as error:
        return Outcome(file.name, "not read", refusals=(str(error),))
    except Exception as error:  # noqa: BLE001 - what the corpus is for
        return Outcome(file.name, "crash", f"reading: {error!r}")
    try:
        return _enrolled(file, xml, before, grammar, rules)
    except WardenError as error:
        return Outcome(file.name, "not enrolled", refusals=(str(error),))
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome(file.name, "crash", repr(error))


def _enrolled(
    file: Path, xml: bytes, before: Domain, grammar: etree.RelaxNG, rules: Policy
) -> Outcome:
    enrolled = enrol_xml(xml, "vmw-", _NOWHERE)
    if _canonical(enrol_xml(enrolled, "vmw-", _NOWHERE)) != _canonical(enrolled):
        return Outcome(file.name, "not steady", "enrolled twice, it is another one")
    if _canonical(unenrol_xml(enrolled, _NOWHERE)) != _canonical(xml):
        return Outcome(file.name, "not given back", "unenrolled, it is another one")
    if _is_valid(grammar, xml) and not _is_valid(grammar, enrolled):
        return Outcome(file.name, "invalid", f"libvirt's schema: {grammar.error_log.last_error}")
    refusals = _reviewed(enrolled, before, rules)
    return Outcome(file.name, "refused" if refusals else "guarded", refusals=refusals)


def _reviewed(enrolled: bytes, before: Domain, rules: Policy) -> tuple[str, ...]:
    host = FakeHost()
    case = case_of(enrolled, rules.rules_for(before.name), host, paths=_NOWHERE)
    for path in _files(case):
        if path.startswith("/") and path not in host.inodes:
            host.file(path)
    found = [str(refusal) for refusals in lifecycle.reviews(case).values() for refusal in refusals]
    if not found:
        for op in (Op.PREPARE, Op.AHEAD):
            lifecycle.plan(replace(case, op=op), lifecycle.GUARDS)
    return tuple(found)


def _files(case: Case) -> list[str]:
    return [use.original or use.path for use in uses(case.domain)]


def _canonical(xml: bytes) -> bytes:
    return bytes(etree.tostring(etree.fromstring(xml), method="c14n2"))


def _is_valid(grammar: etree.RelaxNG, xml: bytes) -> bool:
    return bool(grammar.validate(etree.fromstring(xml)))
