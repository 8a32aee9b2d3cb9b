# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy: what the admin says, compiled once, and read at each step of a domain's life."""

from __future__ import annotations

from virtwarden.paths import Paths
from virtwarden.policy import cache
from virtwarden.policy.cache import last_good
from virtwarden.policy.problems import InvalidPolicy, Problem
from virtwarden.policy.rules import (
    IDLE_EXCEPTIONS,
    Backend,
    Choice,
    DiskRules,
    Encryption,
    Entry,
    Exemption,
    KeyKind,
    KeySource,
    Mode,
    Need,
    NicRules,
    Origin,
    Policy,
    Rules,
    Sandbox,
    Setting,
    Svirt,
    Switch,
    Via,
    Waiver,
    Zone,
)

__all__ = [
    "IDLE_EXCEPTIONS",
    "Backend",
    "Choice",
    "DiskRules",
    "Encryption",
    "Entry",
    "Exemption",
    "InvalidPolicy",
    "KeyKind",
    "KeySource",
    "Mode",
    "Need",
    "NicRules",
    "Origin",
    "Policy",
    "Problem",
    "Rules",
    "Sandbox",
    "Setting",
    "Svirt",
    "Switch",
    "Via",
    "Waiver",
    "Zone",
    "last_good",
    "load",
]


def load(paths: Paths, owner: int = 0, *, store: bool = False) -> Policy:
    """The policy that holds now; `owner` is the uid that all its files must belong to.

    Comes from the compiled policy in /run where no file has changed since, else from the files.
    Alters nothing, except that `store` keeps the result in /run for the next call. Where that
    fails, only time is lost. Raises InvalidPolicy where what the files say is wrong, and
    PolicyError where a file is not trustworthy or not readable.
    """
    look = cache.look(paths)
    policy = cache.fetch(paths, look, owner)
    if policy is None:
        # A late import: tomllib and jsonschema take longer than everything else that the hook does.
        from virtwarden.policy.compile import compile_policy

        policy = compile_policy(paths, owner)
        if store:
            cache.store(paths, policy, look, owner)
    return policy
