# SPDX-License-Identifier: GPL-2.0-or-later
"""Anti-spoofing rules on a tap, with either of the kernel's two ways to filter a bridge port.

`promise` says what the frames of a tap must keep to, and `rules` which rules enforce it. Each
backend says the rules in its own words. `gate` shuts out taps that have no rules.
"""

from __future__ import annotations

from virtwarden.system.netfilter.backend import Backend
from virtwarden.system.netfilter.ebtables import EBTABLES_RESTORE, Ebtables
from virtwarden.system.netfilter.gate import GATES, Gate
from virtwarden.system.netfilter.nftables import Nftables
from virtwarden.system.netfilter.promise import TapFilter
from virtwarden.system.netfilter.rules import rules_of

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Nftables(), Ebtables())}

__all__ = [
    "BACKENDS",
    "EBTABLES_RESTORE",
    "GATES",
    "Backend",
    "Gate",
    "TapFilter",
    "rules_of",
]
