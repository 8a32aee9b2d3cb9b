# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's addresses, and which name servers are asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.errors import CommandError, HostError
from virtwarden.system import resolver
from virtwarden.system.resolver import Addresses, addresses_of

FILES = "--service=hosts:files"
RESOLV_CONF = """\
# nameserver 192.0.2.99
nameserver 192.0.2.53
nameserver fe80::1%eth0
nameserver nonsense
nameserver
options edns0
"""


class Getent:
    """getent(1), which knows these names."""

    def __init__(self, in_files: dict[str, str], of_servers: dict[str, str]) -> None:
        self._known = {FILES: in_files, "": of_servers}

    def __call__(self, program: str, *words: str, timeout: int) -> str:
        *options, end, database, name = words
        assert (end, database) == ("--", "ahosts")
        try:
            return self._known["".join(options)][name]
        except KeyError:
            raise CommandError("no such name", code=2, said="") from None


@pytest.fixture(autouse=True)
def _getent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = "192.0.2.7  STREAM a\n192.0.2.7  DGRAM\nfe80::7%eth0  STREAM\n2001:db8::7 STREAM\n"
    getent = Getent({"a.example": listed}, {"b.example": listed, "-s": listed})
    monkeypatch.setattr(resolver, "run", getent)
    monkeypatch.setattr(resolver, "_RESOLV_CONF", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text(RESOLV_CONF)


FOUND = ("192.0.2.7", "fe80::7", "2001:db8::7")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", Addresses(("192.0.2.7",))),
        ("2001:DB8::7", Addresses(("2001:db8::7",))),
        ("fe80::7%eth0", Addresses(("fe80::7",))),
        ("a.example", Addresses(FOUND)),
        ("b.example", Addresses(FOUND, ("192.0.2.53", "fe80::1"))),
        ("-s", Addresses(FOUND, ("192.0.2.53", "fe80::1"))),
    ],
)
def test_a_host_has_the_addresses_that_all_programs_find(host: str, expected: Addresses) -> None:
    assert addresses_of(host) == expected


def test_a_host_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(HostError, match=r"no address is known for 'c\.example'"):
        addresses_of("c.example")


def test_no_name_server_is_asked_where_none_is_written(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").unlink()
    assert addresses_of("b.example") == Addresses(FOUND)
