# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a policy: everything at once, one line for each problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from virtwarden.errors import PolicyError

# A refusal is one line, which an admin reads in virsh; `virt-warden policy check` shows all.
_SHOWN_IN_ONE_LINE = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `text` also says what would be right."""

    file: str
    line: int
    text: str

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        """The whole line."""
        return f"{self.where}: {self.text}"


class InvalidPolicy(PolicyError):
    """The policy files cannot be used; `problems` has a line for each thing that is wrong."""

    def __init__(self, found: Sequence[Problem]) -> None:
        first, *others = found
        shown = [first.text, *(str(problem) for problem in others[: _SHOWN_IN_ONE_LINE - 1])]
        if len(found) > _SHOWN_IN_ONE_LINE:
            shown.append(f"{len(found) - _SHOWN_IN_ONE_LINE} more")
        files = dict.fromkeys(problem.file for problem in found)
        super().__init__(
            "; also ".join(shown),
            where=first.where,
            fix=f"edit {' '.join(files)}, then: virt-warden policy check",
        )
        self.problems = tuple(str(problem) for problem in found)
