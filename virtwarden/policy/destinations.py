# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts as a policy names them: an address or a network, and a port of it after a colon."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# An IPv6 address has colons: with a port after it, it stands in brackets, as in a URL.
_FORM = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:./]+)\]|(?P<bare>[0-9./]+))"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
)
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Destination:
    """A network and a range of its ports; 0 means all ports."""

    network: str
    first: int = 0
    last: int = 0


def destination(written: str) -> Destination:
    """What `192.0.2.5`, `192.0.2.0/24:3260`, `[2001:db8::5]:49152-49215` and the like mean.

    Raises ValueError for anything else, such as a name or a network with host bits.
    """
    found = _FORM.fullmatch(written)
    if found is None:
        if "%" in written:
            raise ValueError(f"a network of one interface: {written!r}")
        return Destination(str(ipaddress.ip_network(written)))
    network = _network(found)
    if found["first"] is None:
        return Destination(network)
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not 0 < first <= last <= _HIGHEST_PORT:
        raise ValueError(f"no ports: {written!r}")
    return Destination(network, first, last)


def _network(found: re.Match[str]) -> str:
    if found["v6"] is not None:
        return str(ipaddress.IPv6Network(found["v6"]))
    return str(ipaddress.IPv4Network(found["bare"]))
