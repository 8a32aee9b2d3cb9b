# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes events to the systemd journal with their fields, or to syslog as one line."""

from __future__ import annotations

import syslog
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

IDENTIFIER = "virt-warden"
JOURNAL = Path("/run/systemd/journal/socket")
NOTICES = Path("/run/virt-warden/notices.sock")

# The MESSAGE_ID of each event (systemd.journal-fields(7)); docs/log.md tells what each one means.
EVENTS = {
    "adopted": "4554f00a8c4d401bb41c2d388ab71dc3",
    "all-seen-to": "c02eb8d6c40041b3bf6101f1bb32723e",
    "breach": "66b01ae920c04cf6ace3e5a610644363",
    "broken-policy": "1c47c29a0bf3455b93c05a6075a6bda6",
    "busy": "596a7592b3604d66af7dbc6e766744ad",
    "connected": "fa1df4fef51f46cfb3db785e26aa9438",
    "console-denied": "776751dd470346acbeba8800d3f4faf1",
    "console-opened": "48f78ad009ec44e7827b2a112fdabf5f",
    "console-refused": "e9ec2b1826534692a182ae7722f43475",
    "console-revoked": "97aca7dd87a5458b88b8fb32a4822406",
    "console-ticket": "9df4ffa9f33f488f829efd5d9b7389c9",
    "console-unused": "c40214be33b642ad91fab914986ce5e0",
    "contested": "642f2c8645d94600be71be0963c7b488",
    "disconnected": "35752e3f59c4436ebb546ed939822f60",
    "enrolled": "86b02f2a21c0483fbb8312d2bb70a1e2",
    "failed": "8e6d672e00bd427e9ef641fa4dbc2cc0",
    "forgotten": "fa96d10534954166b7a0f7f41b3d10de",
    "found": "7f04e9105d594261a2379c1e43497db1",
    "graduated": "448a56f746804ce09c81068584e6e31c",
    "ledger-restored": "a4dcfda68e9d4996b7a68b887ab37514",
    "header-differs": "0864cb7c84cd404b832c032d95f3ae8b",
    "left-alone": "1b70cc64a9b54eaa91a4f0304a9ca3c8",
    "left-behind": "fb400b4aeaf7478ba5c0e38322c1013c",
    "not-enrolled": "cd6ea61626a14d8c940f371214086c66",
    "let-in": "a6d342fda787437f9cbc2e9e2dc733fe",
    "overwritten": "d6440f3e80a34109ac3b065e7ce9c5f1",
    "refused": "14b6645771a34c95ac6b683a79074ab4",
    "restored": "2b5475545f0049e98614e04f7efe26db",
    "shut-out": "2b72854839b144958c7a3b1593911683",
    "spoofing": "4732c429794e4221bd97a17c290e0d47",
    "stranger": "fc2f78110b814fc2a2bdbe639a5e1af6",
    "undone": "42e59cf1c68d4da89478fc61dcabf682",
    "unenrolled": "2b40c79c809f4d869d0de9aef6bfb7b1",
    "verified": "ee10e11cb6b747b7918fe91e6812e7ba",
    "would-refuse": "5de50bbb730a418fbffac16a2b35ff72",
}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+,@")


class Level(IntEnum):
    """How urgent a line is; syslog(3)."""

    CRITICAL = syslog.LOG_CRIT
    ERROR = syslog.LOG_ERR
    WARNING = syslog.LOG_WARNING
    NOTICE = syslog.LOG_NOTICE


def event(level: Level, what: str, **fields: object) -> None:
    """Write `event=WHAT key=value …`, values quoted where they are not plain words.

    In the systemd journal each value is also a field: `reason` is VIRT_WARDEN_REASON, and the
    domain's name and UUID are DOMAIN_NAME and DOMAIN_UUID. Never raises if there is no log.
    """
    pairs = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
    line = f"event={what} {pairs}".rstrip()
    if not _to_journal(level, what, line, fields):
        syslog.openlog(IDENTIFIER, syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        syslog.syslog(level, line)
    # Not of itself: a program that fails would be run for that.
    if level <= Level.WARNING and fields.get("op") != "notify":
        _notify(level, what, line, fields)


def _notify(level: Level, what: str, line: str, fields: dict[str, object]) -> None:
    """Have virt-warden.service run the admin's programs, if it is there (watch/notify.py)."""
    import json
    import socket

    told = {field(key): _encodable(str(value)) for key, value in fields.items()}
    told |= {"VIRT_WARDEN_EVENT": what, "PRIORITY": str(int(level)), "MESSAGE": line}
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(json.dumps(told).encode(), str(NOTICES))


def field(key: str) -> str:
    """The journal's field for a key of an event."""
    names = {"domain": "DOMAIN_NAME", "uuid": "DOMAIN_UUID"}
    return names.get(key, f"VIRT_WARDEN_{key.upper().replace('-', '_')}")


def _to_journal(level: Level, what: str, line: str, fields: dict[str, object]) -> bool:
    """Whether the journal took it."""
    # Without this, sd_journal_sendv(3) says that all went well where there is no journal.
    if not JOURNAL.exists():
        return False
    try:
        _send(level, what, line, fields)
    except (ImportError, OSError):
        return False
    return True


def _send(level: Level, what: str, line: str, fields: dict[str, object]) -> None:
    # What systemd.journal.sendv is; systemd.journal itself takes 15 ms to import, this 1 ms.
    from systemd import _journal

    _journal.sendv(
        f"MESSAGE={line}",
        f"MESSAGE_ID={EVENTS[what]}",
        f"PRIORITY={int(level)}",
        f"SYSLOG_IDENTIFIER={IDENTIFIER}",
        f"SYSLOG_FACILITY={syslog.LOG_AUTHPRIV >> 3}",
        f"VIRT_WARDEN_EVENT={what}",
        *(f"{field(key)}={_encodable(str(value))}" for key, value in fields.items()),
    )


def _encodable(value: str) -> str:
    """A file's name may be bytes that are no text."""
    return value.encode(errors="backslashreplace").decode()


def _quoted(value: str) -> str:
    if value and _PLAIN.issuperset(value):
        return value
    escaped = "".join(
        letter if letter.isprintable() and letter != "\\" else f"\\x{ord(letter):02x}"
        for letter in value
    )
    return '"' + escaped.replace('"', "'") + '"'
