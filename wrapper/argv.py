# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line, read as QEMU reads it."""

from __future__ import annotations

from itertools import islice

from refusal import XML, Refusal
from texts import is_uuid, load_json, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# QEMU's words (7.2, all targets). FLAGS take no argument; any other option takes the next word.
FLAGS = words_of("""
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable portrait preconfig s semihosting singlestep snapshot usb
    version win2k-hack xen-attach xen-domid-restrict""")
JSON_OPTIONS = words_of("audiodev blockdev compat device display netdev object")
IMPLIED_KEYS = {"fw_cfg": "name", "name": "guest", "object": "qom-type", "vnc": "vnc"}
NETWORK_DRIVERS = words_of("ftp ftps gluster http https iscsi nbd nfs rbd ssh")


class Option:
    """One option: its name without dashes, its value, its words, each (key, text) in its value."""

    def __init__(self, name: str, value: str, words: list[str]) -> None:
        self.name, self.value, self.words = name, value, words
        self.readable = True
        try:
            if name in JSON_OPTIONS and value.startswith("{"):
                self.texts = list(walk(load_json(value)))
            else:
                self.texts = [part[:2] for part in split_opts(value, IMPLIED_KEYS.get(name, ""))]
        except (ValueError, RecursionError):
            self.texts, self.readable = [], False

    def under(self, key: str) -> list[str]:
        """Every text under this key."""
        return [text for at, text in self.texts if at == key]


def walk(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Each text with its dotted key; none of a network disk's, which opens no file."""
    if isinstance(node, str):
        yield at, node
    elif isinstance(node, list):
        for item in node:
            yield from walk(item, at)
    elif isinstance(node, dict) and str(node.get("driver")) not in NETWORK_DRIVERS:
        for key, value in node.items():
            yield from walk(value, f"{at}.{key}".removeprefix("."))


def split_opts(text: str, implied: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, value and raw text of each part of a QemuOpts string, split where QEMU splits it."""
    if implied and "=" not in text.partition(",")[0]:
        text = f"{implied}={text}"
    # Two commas in a value stand for one. During the split a NUL replaces them, which no command
    # line contains.
    parts = text.replace(",,", "\0").split(",")
    for more, part in enumerate(parts, 1 - len(parts)):
        keys, equals, value = part.partition("=")
        *flags, key = keys.replace("\0", ",,").split(",")
        if equals:
            pair = [(key, value.replace("\0", ","), f"{key}={value}".replace("\0", ",,"))]
        else:
            pair = []
            flags += [key] if key or more else []  # not the empty text at the end
        for flag in flags:  # 'nopassword' is QEMU's old 'password=off'
            yield flag.removeprefix("no"), "", flag
        yield from pair


def parse_argv(argv: Iterable[str]) -> list[Option]:
    """The options as QEMU reads them, with one dash or two; a word without one has the name ''."""
    options = []
    rest = iter(argv)
    for word in rest:
        name = word.replace("-", "", 2 if word.startswith("--") else 1) if word[:1] == "-" else ""
        value = [] if name in FLAGS or not name else [*islice(rest, 1)]
        if name == "display" and value and value[0].startswith("vnc="):
            options.append(Option("vnc", value[0][4:], [word, *value]))
        else:
            options.append(Option(name, "".join(value), [word, *value]))
    return options


def guest_names(options: Iterable[Option]) -> list[str]:
    return [name for option in options if option.name == "name" for name in option.under("guest")]


def guest_uuid(options: Iterable[Option]) -> str:
    """The one -uuid, in the one form that cannot lead to another directory."""
    uuids = [option.value for option in options if option.name == "uuid"]
    if len(uuids) != 1 or not is_uuid(uuids[0]):
        raise Refusal("its command line has no -uuid, or several, or a malformed one", XML)
    return uuids[0]


def is_probe(options: Iterable[Option]) -> bool:
    """Whether this QEMU runs no guest: libvirt asks what it can do, or somebody its version."""
    return all(option.name != "uuid" for option in options) and any(
        option.name in ("audio-help", "h", "help", "version")
        or option.value in ("?", "help")
        or (option.name in ("M", "machine") and option.value.split(",")[0] == "none")
        for option in options
    )
