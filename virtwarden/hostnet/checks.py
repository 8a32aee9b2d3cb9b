# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with the host's network: pure, from the plan and what was seen."""

from __future__ import annotations

from virtwarden.hostnet.exposure import exposure
from virtwarden.hostnet.finding import Finding
from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.seen import Network
from virtwarden.hostnet.uplinks import bond
from virtwarden.hostnet.zonebridges import bridges


def findings(plan: HostPlan, network: Network) -> list[Finding]:
    """All findings; none where the host is as the policy wants it."""
    return [*bond(plan, network), *bridges(plan, network), *exposure(plan, network)]
