# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel must be told whichever way the interfaces are made (sysctl.d(5)).

systemd applies these to each interface when it comes up, by its own udev rule; for bridges' IP
firewall, which may be loaded at any time, sysctl.d(5) wants a rule as well. A minus says that what
is not there is no failure.
"""

from __future__ import annotations

from virtwarden.hostnet.plan import HostPlan

_PATH = "/etc/sysctl.d/60-virt-warden-network.conf"
_RULE_PATH = "/etc/udev/rules.d/60-virt-warden-network.rules"
_RULE = (
    'ACTION=="add", SUBSYSTEM=="module", KERNEL=="br_netfilter",'
    ' RUN+="/usr/lib/systemd/systemd-sysctl --prefix=/net/bridge"\n'
)


def render(plan: HostPlan) -> dict[str, str]:
    """The files by their paths."""
    lines = ["# The host answers on none of the zones' interfaces for any of its addresses."]
    for name in plan.carriers:
        lines += [
            f"-net/ipv4/conf/{name}/rp_filter = 1",
            f"-net/ipv4/conf/{name}/arp_ignore = 1",
            f"-net/ipv4/conf/{name}/forwarding = 0",
            f"-net/ipv6/conf/{name}/disable_ipv6 = 1",
        ]
    lines.append("# The higher of this and an interface's own counts: 2, loose, would undo it.")
    lines.append("net/ipv4/conf/all/rp_filter = 1")
    lines.append("# Frames on bridges are not the host's IP firewall's.")
    lines += [f"-net/bridge/bridge-nf-call-{what}tables = 0" for what in ("ip", "ip6", "arp")]
    return {_PATH: "\n".join([*lines, ""]), _RULE_PATH: _RULE}
