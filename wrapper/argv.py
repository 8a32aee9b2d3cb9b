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
IMPLIED_KEYS = {
    "accel": "accel",
    "audiodev": "driver",
    "boot": "order",
    "chardev": "backend",
    "device": "driver",
    "fsdev": "fsdriver",
    "fw_cfg": "name",
    "m": "size",
    "machine": "type",
    "name": "guest",
    "netdev": "type",
    "numa": "type",
    "object": "qom-type",
    "smp": "cpus",
    "tpmdev": "type",
    "vnc": "vnc",
}
# The key that says of which kind an object is, and so which other keys it has.
KIND_KEYS = {
    "accel": "accel",
    "audiodev": "driver",
    "blockdev": "driver",
    "chardev": "backend",
    "device": "driver",
    "fsdev": "fsdriver",
    "netdev": "type",
    "numa": "type",
    "object": "qom-type",
    "tpmdev": "type",
}
# A network disk's configuration, and its server where that is a Unix socket.
LOCAL_KEYS = words_of("conf server")
NETWORK_DRIVERS = words_of("ftp ftps gluster http https iscsi nbd nfs rbd ssh")

# With these alone QEMU runs no guest; libvirt's qemuProcessQMPLaunch, and a person who asks.
PROBE_OPTIONS = words_of("""
    M S accel audio-help cpu daemonize device h help machine no-user-config nodefaults nographic
    pidfile qmp version""")


class Option:
    """One option: its name without dashes, its value, its words, each (key, text) in its value.

    `parts` has each key with the kind of the object that it is in. `tree` is the value as an
    object; where a key stands twice in it, it `is_ambiguous`.
    """

    def __init__(self, name: str, value: str, words: list[str]) -> None:
        self.name, self.value, self.words = name, value, words
        self.readable, self.tree = True, {}
        self.is_ambiguous = False
        try:
            kind = KIND_KEYS.get(name, "")
            if name in JSON_OPTIONS and value.startswith("{"):
                self.tree = load_json(value)
                self.texts = list(walk(self.tree))
                self.parts = list(parts_of(self.tree, kind, name == "blockdev"))
            else:
                self.texts = [part[:2] for part in split_opts(value, IMPLIED_KEYS.get(name, ""))]
                self.tree = dict(self.texts)
                self.is_ambiguous = len(self.tree) < len(self.texts)
                is_of = self.tree.get(kind, "")
                self.parts = [(is_of, without_numbers(key)) for key, _ in self.texts]
        except (ValueError, RecursionError):
            self.texts, self.parts, self.tree, self.readable = [], [], {}, False

    def under(self, key: str) -> list[str]:
        """Every text under this key."""
        return [text for at, text in self.texts if at == key]


def walk(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Each text with its dotted key; of a network disk's only what is a file of this host."""
    if isinstance(node, str):
        yield at, node
    elif isinstance(node, list):
        for item in node:
            yield from walk(item, at)
    elif isinstance(node, dict):
        is_remote = str(node.get("driver")) in NETWORK_DRIVERS
        for key, value in node.items():
            if key in LOCAL_KEYS or not is_remote:
                yield from walk(value, f"{at}.{key}".removeprefix("."))


def parts_of(node: Any, kind_key: str, nests: bool, at: str = "") -> Iterator[tuple[str, str]]:
    """Each key, with the kind of its object; where it `nests`, the objects within have their own.

    `qcow2`, for one of that kind; `nbd/server`, for what is under `server` in one of kind nbd.
    """
    if isinstance(node, list):
        for item in node:
            yield from parts_of(item, kind_key, nests, at)
    elif isinstance(node, dict):
        kind = str(node.get(kind_key, "")) if (nests and kind_key in node) or not at else at
        for key, value in node.items():
            yield kind, key
            yield from parts_of(value, kind_key, nests, f"{kind}/{key}")


def without_numbers(key: str) -> str:
    """`sgx-epc.N.node` for each of sgx-epc.0.node, sgx-epc.1.node."""
    return ".".join("N" if part.isdecimal() else part for part in key.split("."))


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
    if any(option.name not in PROBE_OPTIONS for option in options):
        return False
    return any(
        option.name in ("audio-help", "h", "help", "version")
        or option.value in ("?", "help")
        or (option.name in ("M", "machine") and option.value.split(",")[0] == "none")
        for option in options
    )
