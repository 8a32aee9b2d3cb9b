"""What virt-warden did, a line of key=value pairs each, to syslog and so to the journal."""

from __future__ import annotations

import syslog
from enum import IntEnum

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+,@")


class Level(IntEnum):
    """How urgent a line is; syslog(3)."""

    CRITICAL = syslog.LOG_CRIT
    ERROR = syslog.LOG_ERR
    WARNING = syslog.LOG_WARNING
    NOTICE = syslog.LOG_NOTICE


def event(level: Level, what: str, **fields: object) -> None:
    """Write `event=WHAT key=value …`; values are quoted where they are not plain words."""
    pairs = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
    syslog.openlog("virt-warden", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(level, f"event={what} {pairs}".rstrip())


def _quoted(value: str) -> str:
    if value and _PLAIN.issuperset(value):
        return value
    escaped = "".join(
        letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in value
    )
    return '"' + escaped.replace('"', "'") + '"'
