# SPDX-License-Identifier: GPL-2.0-or-later
"""VNC passwords, of which only the first eight characters count (RFC 6143, 7.2.2).

No message ever contains one of them.
"""

from __future__ import annotations

import secrets
import string

from virtwarden.domain.model import from_tree, parse
from virtwarden.errors import HostError
from virtwarden.policy import Mode, Rules
from virtwarden.words import shown

LENGTH = 8
# No shell, key file or terminal gives these characters a meaning when they are pasted.
_SPECIAL = "#%+-=?@_"
_CLASSES = {
    "lower-case letter": string.ascii_lowercase,
    "upper-case letter": string.ascii_uppercase,
    "digit": string.digits,
}
# The letter that each character replaces when somebody spells a word with it.
_MEANT = str.maketrans("@431!0$57+8|", "aaeliossttbl")
_ALPHABET = "".join(_CLASSES.values()) + _SPECIAL


def fresh() -> str:
    """A random password with all four kinds of characters; each such password is equally likely."""
    while True:
        password = "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))
        if not _lacking(password):
            return password


def weakness(password: str) -> str:
    """Why a password is easily guessed, in words that do not tell it; empty where it is not.

    Raises ImportError where cracklib, which has the word list, is not installed.
    """
    if len(password) < LENGTH:
        return f"has fewer than {LENGTH} characters"
    lacking = _lacking(password)
    if lacking:
        return f"has no {lacking}"
    import cracklib

    # cracklib strips what is put before and behind a word, but misses some look-alike letters.
    for spelling in (password, password.lower().translate(_MEANT)):
        try:
            cracklib.FascistCheck(spelling)
        except ValueError:
            # cracklib's own message stays out: another program wrote it, and it could quote the
            # password.
            return "is in a word list, or nearly so"
    return ""


def _lacking(password: str) -> str:
    """The first kind of character that a password lacks."""
    for name, letters in _CLASSES.items():
        if not set(password) & set(letters):
            return name
    known = set("".join(_CLASSES.values()))
    return "" if set(password) - known else "special character"


def objection(untrusted_xml: bytes, rules: Rules) -> HostError | None:
    """What the policy has against the static passwords in a domain's XML.

    None where it has nothing against them, or where they are empty: nobody can log in with an empty
    one. Raises HostError where it cannot check them.
    """
    root = parse(untrusted_xml)
    displays = root.findall("devices/graphics[@passwd]")
    standing = [word for word in (display.get("passwd") for display in displays) if word]
    if not standing or rules.mode is Mode.DISABLED:
        return None
    name = shown(from_tree(root).name)
    if rules.static_passwords == "deny":
        return HostError(
            "its display has a static password",
            where=rules.where("console.static_passwords"),
            fix=f"virsh edit {name}: remove passwd=; virt-warden console {name} gives one",
        )
    weak = "".join(list(filter(None, map(_weakness_by_list, standing)))[:1])
    if not weak:
        return None
    return HostError(
        f"the password of its display {weak}",
        fix=f"virsh edit {name}: 8 random characters, of all four kinds, or no password",
    )


def _weakness_by_list(password: str) -> str:
    try:
        return weakness(password)
    except ImportError:
        raise HostError(
            "its display's password cannot be checked against a word list",
            fix="apt install python3-cracklib",
        ) from None
