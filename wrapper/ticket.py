# SPDX-License-Identifier: GPL-2.0-or-later
"""The ticket is root's word on what was reviewed: only root can have written what this reads."""

from __future__ import annotations

import _stat as stat
import posix as os

from refusal import HOOK, Refusal
from texts import is_hex, is_mac, is_name, is_path, is_text, is_user, is_uuid, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Ticket = dict[str, Any]

TICKETS = "/run/virt-warden"
TICKET_LIMIT = 1 << 20
# What root says of the start of a domain that nobody enrolled, and where.
WAITING = "/run/virt-warden/waiting"
OWN_USER, OWN_USER_IF_IT_CAN, AS_IT_IS = "own-user", "own-user-if-it-can", "as-it-is"
LONGEST_WORD = 64
LAST_ID = 0xFFFFFFFF

PLACE = ({"listen": is_text, "port": int}, {"socket": is_path})
FORM = {
    "version": int,
    "mode": ("enforcing", "permissive", "disabled"),
    "uuid": is_uuid,
    "name": is_name,
    "user": is_user,
    "uid": int,
    "gid": int,
    "groups": [int],
    "emulator": is_path,
    "files": [is_path],
    "memory": [is_path],
    "outside": ([is_text], type(None)),
    "macs": [is_mac],
    "vnc": [PLACE],
    "tls_dir": (is_path, type(None)),
    "password": bool,
    "sasl": ({"dir": is_path, "names": ([is_text], type(None))}, type(None)),
    "display": bool,
    "client_certificates": bool,
    "static_passwords": bool,
    "passthrough": bool,
    "spice": (bool, [PLACE]),
    "closed": [PLACE],
    "landlock": (
        {
            "required": bool,
            "execute": [is_path],
            "read": [is_path],
            "write": [is_path],
            "bind": ([int], type(None)),
            "connect": ([int], type(None)),
        },
        type(None),
    ),
    "system_calls": (
        {"call": int, "filters": [{"code": is_hex, "log": bool, "incoming": bool}]},
        type(None),
    ),
}
# What former versions do not write, as it is without them: an upgrade may come amid a start.
NEWER: Ticket = {"memory": [], "outside": None, "system_calls": None, "closed": []}


def fits(value: Any, form: Any) -> Any:
    """Whether a JSON value has this form.

    A form is a type, a word or a kind of text; one of a tuple of forms; or a list or dict of them.
    """
    if form is None:  # there is no such key
        return False
    if isinstance(form, tuple):
        return any(fits(value, choice) for choice in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        same = isinstance(value, dict) and value.keys() == form.keys()
        return same and all(fits(value[key], form[key]) for key in form)
    if form is int:
        return type(value) is int and 0 < value < LAST_ID
    if isinstance(form, type):
        return type(value) is form
    return isinstance(value, str) and (value == form if isinstance(form, str) else form(value))


def parse_ticket(text: str, uuid: str) -> Ticket:
    """The ticket of this UUID, in its one form."""
    ticket = load_json(text)
    ticket = NEWER | ticket if isinstance(ticket, dict) else {}
    wrong = [key for key in {**FORM, **ticket} if not fits(ticket.get(key, ...), FORM.get(key))]
    if wrong or ticket["version"] != 1:
        raise Refusal(f"its ticket is malformed at {' '.join(wrong) or 'version'}", HOOK)
    if ticket["uuid"] != uuid:
        raise Refusal(f"its ticket is another domain's, {ticket['uuid']}", HOOK)
    return ticket


def open_roots_own(name: str, flags: int, owner: int, at: int | None = None) -> int:
    """Open what only `owner`, who is root, can have made, changed or swapped."""
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    found = os.fstat(fd)
    if found.st_uid != owner or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refusal(f"its ticket could be forged: {name} is not root's alone to write", HOOK)
    return fd


def read_ticket(uuid: str, tickets: str = TICKETS, owner: int = 0) -> Ticket:
    """What root wrote for this UUID; any doubt about it is a refusal, whatever the mode."""
    try:
        # O_PATH, because a VM's user may pass through these directories but not list them.
        run = open_roots_own(tickets, os.O_PATH | os.O_DIRECTORY, owner)
        cell = open_roots_own(uuid, os.O_PATH | os.O_DIRECTORY, owner, run)
        ticket = open_roots_own("ticket.json", os.O_RDONLY, owner, cell)
        found = os.fstat(ticket)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Refusal("its ticket could be forged: not a file with just one name", HOOK)
        if found.st_size > TICKET_LIMIT:
            raise Refusal("its ticket is too big", HOOK)
        return parse_ticket(os.read(ticket, TICKET_LIMIT).decode(), uuid)
    except FileNotFoundError:
        raise Refusal("the hook wrote no ticket for this start", HOOK) from None
    except OSError as error:
        raise Refusal(f"its ticket cannot be read: {error}", HOOK) from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"its ticket is malformed: {error}", HOOK) from None


def awaited(uuid: str, waiting: str = WAITING, owner: int = 0) -> str:
    """What root says of the start of a domain that nobody enrolled; else an empty string."""
    try:
        run = open_roots_own(waiting, os.O_PATH | os.O_DIRECTORY, owner)
        note = open_roots_own(uuid, os.O_RDONLY, owner, run)
        return os.read(note, LONGEST_WORD).decode()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise Refusal(f"what root says of its start cannot be read: {error}", HOOK) from None
