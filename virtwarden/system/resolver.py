# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of hosts' names, as every program on this host finds them (nsswitch.conf(5))."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from virtwarden.errors import CommandError, HostError
from virtwarden.system.run import run

_GETENT = "/usr/bin/getent"
# libvirt waits meanwhile.
_LONGEST_SECONDS = 10
_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True)
class Addresses:
    """A host's addresses; `servers` are the name servers that must be asked for them, if any."""

    found: tuple[str, ...]
    servers: tuple[str, ...] = ()


def addresses_of(host: str) -> Addresses:
    """The addresses of a host. Of a name, those that /etc/hosts has, or else name servers.

    Raises HostError where there are none.
    """
    try:
        return Addresses((str(ipaddress.ip_address(host.partition("%")[0])),))
    except ValueError:
        pass
    try:
        return Addresses(_ask("--service=hosts:files", host))
    except CommandError:
        pass
    try:
        return Addresses(_ask(host), _servers())
    except CommandError:
        raise HostError(
            f"no address is known for {host!r}",
            fix=f"see what fails: getent -- ahosts {quote(host)}",
        ) from None


def _ask(*words: str) -> tuple[str, ...]:
    *options, host = words
    answer = run(_GETENT, *options, "--", "ahosts", host, timeout=_LONGEST_SECONDS)
    found = (line.split()[0].partition("%")[0] for line in answer.splitlines() if line.strip())
    return tuple(dict.fromkeys(found))


def _servers() -> tuple[str, ...]:
    """The name servers of resolv.conf(5)."""
    try:
        lines = _RESOLV_CONF.read_text().splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    return tuple(
        str(ipaddress.ip_address(line[1].partition("%")[0]))
        for line in words
        if len(line) > 1 and line[0] == "nameserver" and _is_address(line[1])
    )


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.partition("%")[0])
    except ValueError:
        return False
    return True
