"""`virt-warden policy check`: all that is wrong with the policy files, a line each."""

from __future__ import annotations

import sys

from virtwarden.paths import Paths
from virtwarden.policy import InvalidPolicy, load


def check(paths: Paths) -> int:
    """Print what is wrong, or that all is well. Gives the exit code."""
    try:
        load(paths)
    except InvalidPolicy as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    print("The policy is valid.")
    return 0
