# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy: whatever stands in it, there are rules or a list of complaints with their lines."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["virtwarden"]):
    from virtwarden.paths import Paths
    from virtwarden.policy import InvalidPolicy
    from virtwarden.policy.compile import compile_policy
    from virtwarden.policy.plain import from_plain, readers, to_plain
    from virtwarden.policy.schema import read

POLICY = Path(__file__).parents[2] / "policy"
DIRECTORY = Path(tempfile.mkdtemp())
PATHS = Paths(
    policy=DIRECTORY / "policy.toml",
    policy_dir=DIRECTORY / "policy.d",
    schema=POLICY / "schema.json",
)
READERS = readers(read(PATHS.schema))


def one(data: bytes) -> None:
    """Compile it; what comes out survives the cache, and is asked for a domain's rules."""
    PATHS.policy.write_bytes(data)
    PATHS.policy.chmod(0o600)
    try:
        policy = compile_policy(PATHS, os.getuid())
    except InvalidPolicy as error:
        for problem in error.problems:
            assert re.match(r"/.*:[1-9][0-9]*: ", problem), repr(problem)
            assert problem.isprintable(), repr(problem)
    else:
        kept = json.loads(json.dumps(to_plain(policy)))
        assert from_plain(kept, READERS) == policy
        policy.rules_for("web01")


if __name__ == "__main__":
    # What is found to lead further is written into the first directory, seeds are only read.
    atheris.Setup([*sys.argv, tempfile.mkdtemp(), str(POLICY / "examples")], one)
    atheris.Fuzz()
