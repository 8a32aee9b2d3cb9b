"""A policy as JSON can hold it, and back; nothing is believed of what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from virtwarden.policy.rules import (
    NAMED,
    Backend,
    Choice,
    Encryption,
    Entry,
    Exemption,
    KeyKind,
    KeySource,
    Mode,
    Need,
    Origin,
    Policy,
    Sandbox,
    Sasl,
    Setting,
    Settings,
    Svirt,
    Switch,
)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("not a list")
    return value


def _table(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("not a table")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _ports(value: Any) -> tuple[int, ...]:
    return tuple(_number(item) for item in _list(value))


def _uid_range(value: Any) -> tuple[int, int]:
    lowest, highest = (_number(item) for item in _list(value))
    if not 0 < lowest <= highest:
        raise ValueError("not a range of uids")
    return lowest, highest


def _one_of(words: Any) -> Callable[[Any], str]:
    allowed = get_args(words)

    def read(value: Any) -> str:
        if _text(value) not in allowed:
            raise ValueError("not one of the words")
        return value  # type: ignore[no-any-return]

    return read


def _exemptions(value: Any) -> frozenset[str]:
    one = _one_of(Exemption)
    return frozenset(one(item) for item in _list(value))


def _key_source(value: Any) -> KeySource:
    ((word, said),) = _table(value).items()
    kind: Any = _one_of(KeyKind)(word)
    return KeySource(kind, _number(said) if kind == "ask" else _text(said))


Reader = Callable[[Any], Any]
"""How the plain value of a key becomes the one in Rules; raises ValueError."""

READERS: Mapping[str, Reader] = {
    "mode": Mode,
    "sandbox": _one_of(Sandbox),
    "mac.svirt": _one_of(Svirt),
    "landlock.directories": _texts,
    "landlock.tcp_bind": _ports,
    "landlock.tcp_connect": _ports,
    "managed": _texts,
    "zone": _texts,
    "foreign_taps": _texts,
    "host.bond": _text,
    "host.slaves": _texts,
    "host.management": _text,
    "host.management_addresses": _texts,
    "host.management_gateway": _text,
    "host.management_dns": _texts,
    "identity.user_prefix": _text,
    "identity.uid_range": _uid_range,
    "storage.encryption": _one_of(Encryption),
    "storage.shared_directories": _one_of(Choice),
    "network.backend": _one_of(Backend),
    "network.mac_spoofing": _one_of(Choice),
    "network.arp_spoofing": _one_of(Choice),
    "network.vlan_tags": _one_of(Choice),
    "network.neighbour_spoofing": _one_of(Choice),
    "network.dhcp_server": _one_of(Choice),
    "network.router_advertisements": _one_of(Choice),
    "network.link_protocols": _one_of(Choice),
    "network.broadcast_limit": _number,
    "network.multicast_limit": _number,
    "network.untapped": _one_of(Choice),
    "console.display": _one_of(Switch),
    "console.listen": _texts,
    "console.admin_workstations": _texts,
    "console.tls": _one_of(Need),
    "console.client_certificates": _one_of(Need),
    "console.password": _one_of(Need),
    "console.sasl": _one_of(Sasl),
    "console.keytab": _text,
    "console.static_passwords": _one_of(Choice),
    "console.operators": _texts,
    "console.ticket_seconds": _number,
    "exceptions": _exemptions,
}
"""The keys that always have a value."""

NAMED_READERS: Mapping[str, Mapping[str, Reader]] = {
    "disks": {"luks": _text, "key": _key_source, "mapper": _text},
    "waivers": {"item": _text, "subject": _text, "reason": _text, "until": _text},
    "nics": {"addresses": _texts, "zone": _text},
    "zones": {"bridges": _texts, "networks": _texts, "vlan": _number, "peers": _one_of(Choice)},
}
"""The keys below a name, for each table of NAMED; they have a value where somebody sets one."""


def reader(key: str) -> Reader:
    """The reader of a dotted key. Raises KeyError where there is no such key."""
    table, *steps = key.split(".")
    if table not in NAMED:
        return READERS[key]
    if len(steps) != 2:
        raise KeyError(key)
    return NAMED_READERS[table][steps[1]]


def is_key(dotted: str) -> bool:
    """Whether this is a key with a value of its own, and not a table that holds such keys."""
    try:
        reader(dotted)
    except KeyError:
        return False
    return True


def to_plain(policy: Policy) -> dict[str, Any]:
    """The policy in lists, tables, texts and numbers; `from_plain` gives it back."""
    return {
        "host": _plain_settings(policy.host),
        "entries": [[entry.match, _plain_settings(entry.settings)] for entry in policy.entries],
        "files": list(policy.files),
    }


def _plain_settings(settings: Settings) -> dict[str, list[Any]]:
    return {
        key: [_plain(setting.value), setting.origin.file, setting.origin.line]
        for key, setting in settings.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mode):
        return value.value
    if isinstance(value, KeySource):
        return {value.kind: value.value}
    return sorted(value) if isinstance(value, frozenset) else value


def from_plain(plain: Any) -> Policy:
    """The policy that `to_plain` was given. Raises ValueError for anything else."""
    try:
        policy = _policy(_table(plain))
    except KeyError as error:
        raise ValueError(f"no such key: {error}") from None
    if {key for key in policy.host if key.partition(".")[0] not in NAMED} != READERS.keys():
        raise ValueError("not every key is there")
    return policy


def _policy(plain: dict[str, Any]) -> Policy:
    entries = []
    for item in _list(plain["entries"]):
        match, settings = _list(item)
        entries.append(Entry(_text(match), _settings(settings)))
    return Policy(_settings(plain["host"]), tuple(entries), _texts(plain["files"]))


def _settings(plain: Any) -> Settings:
    settings = {}
    for key, item in _table(plain).items():
        value, file, line = _list(item)
        settings[key] = Setting(reader(key)(value), Origin(_text(file), _number(line)))
    return settings
