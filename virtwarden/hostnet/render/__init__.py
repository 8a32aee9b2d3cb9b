# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that make the host's network as the policy wants it; none is put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.render import ifupdown, netplan, networkd

Files = Mapping[str, str]
"""The text of each file, by its path."""

FORMATS: Mapping[str, Callable[[HostPlan], Files]] = {
    "networkd": networkd.render,
    "ifupdown": ifupdown.render,
    "netplan": netplan.render,
}
