# SPDX-License-Identifier: GPL-2.0-or-later
"""What the processes of some users may send from this host's network, by nftables.

All users are in one table. Each has a chain, and a map leads from the uid to it. So a packet of any
other user pays for one look-up, and what comes from a tap pays nothing: that is no output of the
host. The kernel takes the uid from whoever made the socket (nft(8), `meta skuid`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from virtwarden.errors import CommandError, HostError
from virtwarden.system.nft import accepts, blocks, nft
from virtwarden.system.scratchnet import in_scratch_network

Protocol = Literal["tcp", "udp", "any"]

_TABLE = "inet vmw-reach"
_MAP = "users"
_BASE = "output"
_CLOSING = re.compile(r'oifname "lo" tcp dport ')
# Before other chains that filter: what is refused here need not meet them.
_HOOK = "type filter hook output priority -10; policy accept;"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HIGHEST_PORT = 65535
_NOBODY = 65534
_ANYBODY = "00000000-0000-0000-0000-000000000000"
# A TCP connection must end at once. Of a socket that was closed with unsent data the kernel knows
# no user any more, and would send the data.
_RESET = "reject with tcp reset"
_REFUSED = (f"meta l4proto tcp {_RESET}", "reject")
# What opens a connection, and all else.
_CONNECTS = "tcp flags & (syn | ack) == syn"
_ANSWERS = "tcp flags & (syn | ack) != syn"


@dataclass(frozen=True)
class Way:
    """What may be sent to a host, or from a TCP port as an answer to whoever connected there.

    Without `host` it is the latter. `host` is as somebody wrote it, `addresses` are its networks;
    without `host` they are our own, at which somebody may connect, and none means all. The ports
    are those of the host, or else our own; 0 means all. `any` means TCP and UDP, and everything
    else where no port is named. `not_for_users`: no user of this host but root connects there.
    """

    protocol: Protocol = "tcp"
    host: str = ""
    addresses: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    not_for_users: bool = False

    def __str__(self) -> str:
        """In words for an admin."""
        ports = "port" if self.first == self.last else "ports"
        which = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        if not self.host:
            # `explain` stands in 0 for a port that libvirt has not chosen yet.
            at = f" at {', '.join(self.addresses)}" if self.addresses else ""
            to = " to other hosts and root" if self.not_for_users else ""
            ports = f"{ports} {which if self.first else 'that libvirt chooses'}"
            return f"answers from TCP {ports}{at}{to}"
        protocol = "" if self.protocol == "any" else f"{self.protocol.upper()} "
        to = self.host if not self.addresses or self.addresses == (self.host,) else self._resolved
        return f"{protocol}{ports} {which} of {to}" if self.first else f"{protocol}to {to}"

    @property
    def _resolved(self) -> str:
        return f"{self.host} ({', '.join(self.addresses)})"

    def check(self) -> None:
        """Check every field, since each becomes part of a rule's text. Raises HostError."""
        if self.protocol not in ("tcp", "udp", "any") or not (
            0 <= self.first <= self.last <= _HIGHEST_PORT
        ):
            raise HostError(f"{self!r} is no way to send")
        if not self.host and (not self.first or self.protocol != "tcp"):
            raise HostError(f"{self!r} is no TCP port to answer from")
        try:
            networks = [ipaddress.ip_network(address) for address in self.addresses]
        except ValueError as error:
            raise HostError(f"no address and no network: {error}") from None
        if any("%" in str(network) for network in networks):
            raise HostError(f"{self!r} names an interface")

    @property
    def _ports(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def closing(self) -> list[str]:
        """The rules that keep users of this host from connecting to its ports.

        A refused answer would not do: the kernel may answer by a cookie, which has no user.
        """
        to = f'oifname "lo" tcp dport {self._ports} {_CONNECTS}'
        return [f"{to} meta skuid 0 accept", f"{to} {_RESET}"] if self.not_for_users else []

    def rules(self) -> list[str]:
        """The rules that let it pass, one for each IP version."""
        ports = self._ports
        if not self.host:
            answer = f"tcp sport {ports} {_ANSWERS} accept"
            return self._for_each_version("saddr", answer) if self.addresses else [answer]
        if self.protocol == "any":
            of = f" meta l4proto {{ tcp, udp }} th dport {ports}" if self.first else ""
        else:
            of = f" {self.protocol} dport {ports}" if self.first else ""
            of = of or f" meta l4proto {self.protocol}"
        return self._for_each_version("daddr", f"{of} accept".strip())

    def _for_each_version(self, field: str, rest: str) -> list[str]:
        """A rule for the addresses of each IP version, if there are any."""
        return [
            f"{family} {field} {_set(networks)} {rest}"
            for family, networks in (("ip", self._networks(4)), ("ip6", self._networks(6)))
            if networks
        ]

    def _networks(self, version: int) -> list[str]:
        found = [ipaddress.ip_network(address) for address in self.addresses]
        chosen = ipaddress.collapse_addresses(n for n in found if n.version == version)  # type: ignore[type-var]
        return [str(network) for network in chosen]


def _set(networks: Sequence[str]) -> str:
    return networks[0] if len(networks) == 1 else f"{{ {', '.join(networks)} }}"


@dataclass(frozen=True)
class Limit:
    """The user of one domain, and all that it may send."""

    domain: str
    uid: int
    ways: tuple[Way, ...]

    def __post_init__(self) -> None:
        """Check every field, since each becomes part of a rule's text. Raises HostError."""
        if not _UUID.fullmatch(self.domain):
            raise HostError(f"{self.domain!r} is no domain's UUID")
        if type(self.uid) is not int or self.uid <= 0:
            raise HostError(f"{self.uid!r} is no user that can be limited")
        for way in self.ways:
            way.check()

    @property
    def chain(self) -> str:
        """The name of its chain."""
        return f"vmw-{self.domain}"

    @property
    def closing(self) -> list[str]:
        """The rules that keep users of this host from connecting to its ports."""
        return [rule for way in self.ways for rule in way.closing()]

    @property
    def element(self) -> str:
        """Its element of the map."""
        return f"{self.uid} : jump {self.chain}"


def works() -> bool:
    """Whether this host's kernel and tools can do it."""
    every = (Way("tcp", "", (), 1, 1), Way("any", "host", ("192.0.2.0/24", "2001:db8::/32"), 1, 2))
    return accepts(_begun() + _added(Limit(_ANYBODY, _NOBODY, every)))


def add(limit: Limit) -> None:
    """Limit one more user, who closes no port.

    Raises CommandError where the table is not there, or has the user.
    """
    nft(_added(limit))


def set_all(limits: Sequence[Limit]) -> None:
    """Limit these users and no others, all at once, whatever is there. Raises CommandError."""
    nft(words_for(limits))


def words_for(limits: Sequence[Limit]) -> str:
    """The transaction of `set_all`, in nft's words."""
    # Only a table that is there can be deleted: so it is added first.
    emptied = f"add table {_TABLE}\ndelete table {_TABLE}\n"
    begun = _begun([rule for limit in limits for rule in limit.closing]) if limits else ""
    return emptied + begun + "".join(map(_added, limits))


def remove(limit: Limit) -> None:
    """Limit a user, who closes no port, no more. Raises CommandError where it is not limited."""
    nft(
        f"delete element {_TABLE} {_MAP} {{ {limit.element} }}\n"
        f"flush chain {_TABLE} {limit.chain}\ndelete chain {_TABLE} {limit.chain}\n"
    )


def missing(limit: Limit) -> str:
    """Which part of a limit the kernel's own listing lacks; empty where none."""
    try:
        there = _listed(limit)
    except CommandError:
        return f"nft knows no chain {limit.chain} in table {_TABLE}, or no element {limit.uid}"
    wanted = in_scratch_network(lambda: _as_listed(limit))
    for part, lines in wanted.items():
        if _kept(there.get(part, []), lines) != lines:
            return f"{part} of nft table {_TABLE} is not what it was"
    return ""


def first_missing(limits: Sequence[Limit]) -> str:
    """What of any of these is missing, the first that is found; faster than one by one."""
    if not limits:
        return ""
    try:
        there = _whole()
    except CommandError:
        return f"nft knows no table {_TABLE}"

    def laid() -> dict[str, list[str]]:
        set_all(limits)
        return _whole()

    for part, lines in in_scratch_network(laid).items():
        if there.get(part) != lines:
            return f"{part} of nft table {_TABLE} is not what it was"
    return ""


def _whole() -> dict[str, list[str]]:
    """All chains of the table, and where the map leads each uid."""
    listed = nft(f"list table {_TABLE}", numeric=True)
    led = re.findall(r"(\d+) : jump (\S+?)[,\s]", listed)
    return blocks(listed) | {f"element {uid}": [chain] for uid, chain in led}


def _kept(there: list[str], wanted: list[str]) -> list[str]:
    """What is there, without the rules that close ports for another domain."""
    return [line for line in there if line in wanted or not _CLOSING.match(line)]


def _begun(closing: Sequence[str] = ()) -> str:
    rules = [f"meta skuid vmap @{_MAP}", *dict.fromkeys(closing)]
    return (
        f"add table {_TABLE}\n"
        f"add map {_TABLE} {_MAP} {{ type uid : verdict; }}\n"
        f"add chain {_TABLE} {_BASE} {{ {_HOOK} }}\n"
    ) + "".join(f"add rule {_TABLE} {_BASE} {rule}\n" for rule in rules)


def _added(limit: Limit) -> str:
    rules = [*(rule for way in limit.ways for rule in way.rules()), *_REFUSED]
    lines = [
        f"create chain {_TABLE} {limit.chain}",
        *(f"add rule {_TABLE} {limit.chain} {rule}" for rule in rules),
        f"create element {_TABLE} {_MAP} {{ {limit.element} }}",
    ]
    return "\n".join([*lines, ""])


def _as_listed(limit: Limit) -> dict[str, list[str]]:
    """The same, as this host's nft lists it in a network namespace of its own."""
    set_all([limit])
    return _listed(limit)


def _listed(limit: Limit) -> dict[str, list[str]]:
    """What leads to a user's chain, and what is in it, by the words for each part."""
    # One thing in each call: of several in one call, nft 1.0.6 lists only the last.
    asked = (
        f"list chain {_TABLE} {_BASE}",
        f"list chain {_TABLE} {limit.chain}",
        f"get element {_TABLE} {_MAP} {{ {limit.uid} }}",
    )
    listed: dict[str, list[str]] = {}
    for words in asked:
        listed |= blocks(nft(words, numeric=True))
    return listed
