# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy: what the admin says, compiled once, and looked up at each step of a domain's life."""

from __future__ import annotations

from virtwarden.paths import Paths
from virtwarden.policy import cache
from virtwarden.policy.cache import last_good
from virtwarden.policy.problems import InvalidPolicy, Problem
from virtwarden.policy.rules import (
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
    Waiver,
    Zone,
)

__all__ = [
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
    "Waiver",
    "Zone",
    "last_good",
    "load",
]


def load(paths: Paths, owner: int = 0, *, store: bool = False) -> Policy:
    """The policy that holds now; `owner` is the uid that all its files must belong to.

    Comes from the compiled policy in /run where no file has changed since, else from the files.
    Nothing is altered, but where `store` asks that it be kept in /run for the next call; that it
    could not be kept loses nothing but time. Raises InvalidPolicy where what the files say is
    wrong, and PolicyError where a file may not be believed or cannot be read.
    """
    look = cache.look(paths)
    policy = cache.fetch(paths, look, owner)
    if policy is None:
        # Imported here: tomllib and jsonschema take longer than all else the hook does.
        from virtwarden.policy.compile import compile_policy

        policy = compile_policy(paths, owner)
        if store:
            cache.store(paths, policy, look, owner)
    return policy
