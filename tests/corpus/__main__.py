# SPDX-License-Identifier: GPL-2.0-or-later
"""`make corpus`: exits with 1 where something of the corpus shows a fault, and says which."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# The host that is made of values, and the wrapper's files, are there for the unit tests.
sys.path.insert(0, str(REPOSITORY / "tests" / "unit"))

from tests.corpus import domains, lines, source  # noqa: E402 - needs the path above

_SHOWN = 12


def main() -> int:
    """Give 0 where nothing is wrong."""
    libvirt = source.unpacked(REPOSITORY / "build" / "corpus")
    xmls = [file for file in sorted(libvirt.glob("tests/**/*.xml")) if _is_domain(file)]
    print(f"{libvirt.name}: {len(xmls)} domains")
    with tempfile.TemporaryDirectory() as directory:
        schema = libvirt / "src" / "conf" / "schemas" / "domain.rng"
        found = list(domains.outcomes(xmls, schema, Path(directory)))
    for word, count in Counter(outcome.word for outcome in found).most_common():
        print(f"  {count:6} {word}")
    _print_refusals(found)
    wrong = [f"{outcome.file}: {outcome.wrong}" for outcome in found if outcome.wrong]
    return int(bool([*wrong, *_lines(libvirt)]) and _tell(wrong))


def _is_domain(file: Path) -> bool:
    return b"<domain" in file.read_bytes()[:4096].split(b"<name>")[0]


def _print_refusals(found: list[domains.Outcome]) -> None:
    """The reasons, without what is the domain's own in them, by how many domains have each."""
    reasons = Counter(
        refusal.partition("; fix:")[0].rpartition("): ")[2][:60]
        for outcome in found
        for refusal in set(outcome.refusals)
    )
    print("Why domains are refused, most often:")
    for reason, count in reasons.most_common(_SHOWN):
        print(f"  {count:6} {reason}")


def _lines(libvirt: Path) -> list[str]:
    files = sorted(libvirt.glob("tests/**/*.args"))
    found = list(lines.refused(files))
    unknown = [f"{name}: {reason}" for name, reasons in found for reason in reasons]
    print(f"{len(files)} command lines, {len(found)} refused, {len(unknown)} reasons not known")
    for line in unknown:
        print(f"WRONG: {line}")
    return unknown


def _tell(wrong: list[str]) -> bool:
    for line in wrong:
        print(f"WRONG: {line}")
    return True


if __name__ == "__main__":
    sys.exit(main())
