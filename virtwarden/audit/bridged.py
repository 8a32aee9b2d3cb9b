# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the frames of domains get through the host's IP firewall, where it sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.model import Domain
from virtwarden.errors import CommandError
from virtwarden.system.netfilter import bridged
from virtwarden.words import shown

FRAMES = Check(
    "host.network.bridged-frames",
    Severity.MEDIUM,
    "The host's IP firewall lets frames pass between VMs and their network",
    "The host's IP firewall drops what bridges forward for VMs",
    "While net.bridge.bridge-nf-call-iptables is on, frames on bridges pass the firewall's forward"
    " chain too, and there Docker, firewalld or ufw drop what they do not know. Guests get no"
    " address and reach nobody, and nothing logs that.",
    "sysctl -w net.bridge.bridge-nf-call-iptables=0, and the same in /etc/sysctl.d",
)
_FILE = "/etc/sysctl.d/60-bridged-frames.conf"


def checks(domains: Sequence[Domain]) -> Iterator[Item]:
    """Look at each bridge that a domain's NIC is on."""
    names = sorted({nic.bridge for domain in domains for nic in domain.nics if nic.bridge})
    for bridge in names:
        try:
            found = bridged.drops(bridge)
        except CommandError as error:
            yield FRAMES.unknown(str(error), bridge, fix=error.fix)
            continue
        if found:
            places = "; ".join(drop.place for drop in found)
            yield FRAMES.bad(f"dropped in {places}", bridge, fix=_fix(bridge, found))
        else:
            yield FRAMES.good("nothing drops them", bridge)


def _fix(bridge: str, found: Sequence[bridged.Drop]) -> str:
    """Either the switch, which something else on the host may need, or a rule in each chain."""
    on = bridged.switches(bridge)
    for_all = [switch for switch in on if switch.startswith("net.")]
    lines = "".join(f"{switch} = 0\\n" for switch in for_all)
    steps = [f"printf '{lines}' > {_FILE}", f"sysctl -p {_FILE}"] if for_all else []
    own = " ".join(f"{switch} 0" for switch in on if switch not in for_all)
    steps += [f"ip link set {shown(bridge)} type bridge {own}"] if own else []
    rules = "; ".join(drop.fix for drop in found)
    return f"{'; '.join(steps)}. Where Docker or Kubernetes needs it on, after each boot: {rules}"
