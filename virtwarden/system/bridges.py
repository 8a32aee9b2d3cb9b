# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux bridges and their ports (ip-link(8), bridge(8))."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtwarden.errors import CommandError, HostError
from virtwarden.system.run import run

BRIDGE = "/usr/sbin/bridge"
IP = "/usr/sbin/ip"

_INTERFACES = Path("/sys/class/net")
_NO_GROUPS = "no_linklocal_learn"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True)
class Port:
    """How a bridge treats the frames of a port, and which other ports the port may reach.

    `vlans` are the VLANs of which it is a member. `pvid` is the VLAN of its untagged frames, or 0
    for none. `untagged` are the VLANs whose frames leave without a tag. All are empty or 0 where
    the bridge is not VLAN-aware. Isolated ports do not reach one another.
    """

    vlans: tuple[int, ...] = ()
    pvid: int = 0
    untagged: tuple[int, ...] = ()
    isolated: bool = False

    def is_access_port_of(self, vlan: int) -> bool:
        """Whether it belongs only to this VLAN, and tags nothing."""
        return (self.vlans, self.pvid, self.untagged) == ((vlan,), vlan, (vlan,))


def bridge_of(port: str) -> str:
    """The bridge of which an interface is a port; empty where it is not a port."""
    try:
        return (_INTERFACES / port / "brport/bridge").readlink().name
    except OSError:
        return ""


def ports(bridge: str) -> tuple[str, ...]:
    """The ports of a bridge; none where there is no such bridge."""
    try:
        return tuple(os.listdir(_INTERFACES / _checked(bridge) / "brif"))  # noqa: PTH208
    except OSError:
        return ()


def is_vlan_aware(bridge: str) -> bool:
    """Whether a bridge keeps VLANs apart (ip-link(8), vlan_filtering)."""
    return _setting(bridge, "bridge/vlan_filtering") == "1"


def learns_from_groups(bridge: str) -> bool:
    """Whether a bridge learns the sender's MAC from frames to the groups that it does not forward.

    Some of these frames, LLDP's, pass none of the bridge's filters (net/bridge/br_input.c). No
    honest sender needs a bridge to learn from them (ip-link(8), no_linklocal_learn).
    """
    return _setting(bridge, f"bridge/{_NO_GROUPS}") == "0"


def set_learns_from_groups(bridge: str, *, learns: bool) -> None:
    """Turn this learning on or off; harmless where the bridge is gone. Raises CommandError.

    It uses netlink, like all code here that alters a bridge: systemd's ProtectKernelTunables=
    forbids writing to /sys.
    """
    try:
        run(
            IP,
            "link",
            "set",
            _checked(bridge),
            "type",
            "bridge",
            _NO_GROUPS,
            "0" if learns else "1",
        )
    except CommandError:
        if (_INTERFACES / bridge).exists():
            raise


def port(name: str) -> Port:
    """How a port is set up. Raises CommandError where there is no such interface."""
    isolated = _setting(name, "brport/isolated") == "1"
    if not is_vlan_aware(bridge_of(name)):
        return Port(isolated=isolated)
    (found,) = json.loads(run(BRIDGE, "-j", "vlan", "show", "dev", _checked(name))) or [{}]
    members = [*memberships(found)]
    return Port(
        vlans=tuple(vlan for vlan, _ in members),
        pvid=next((vlan for vlan, flags in members if "PVID" in flags), 0),
        untagged=tuple(vlan for vlan, flags in members if "Egress Untagged" in flags),
        isolated=isolated,
    )


def memberships(port: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """The VLANs of a port in the output of `bridge -j vlan` (bridge(8)), each with its flags."""
    for entry in port.get("vlans", []):
        for vlan in range(entry["vlan"], entry.get("vlanEnd", entry["vlan"]) + 1):
            yield vlan, entry.get("flags", [])


def set_port(name: str, wanted: Port) -> None:
    """Set up a port. It sets VLANs only on a VLAN-aware bridge. Raises CommandError."""
    if is_vlan_aware(bridge_of(name)) and wanted.vlans:
        _set_vlans(_checked(name), wanted)
    isolated = "on" if wanted.isolated else "off"
    run(BRIDGE, "link", "set", "dev", _checked(name), "isolated", isolated)


def _set_vlans(name: str, wanted: Port) -> None:
    lines = [f"vlan del dev {name} vid {vlan}" for vlan in port(name).vlans]
    for vlan in wanted.vlans:
        flags = " pvid" if vlan == wanted.pvid else ""
        flags += " untagged" if vlan in wanted.untagged else ""
        lines.append(f"vlan add dev {name} vid {vlan}{flags}")
    run(BRIDGE, "-batch", "-", stdin="\n".join([*lines, ""]))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise HostError(f"{name!r} is no name of a network interface")
    return name


def _setting(interface: str, setting: str) -> str:
    if not interface:
        return ""
    try:
        return (_INTERFACES / interface / setting).read_text().strip()
    except OSError:
        return ""
