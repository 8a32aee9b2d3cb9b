# SPDX-License-Identifier: GPL-2.0-or-later
"""Each command line of the corpus: what the wrapper says that libvirt does not write by itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wrapped

from virtwarden.domain.model import from_tree, parse
from virtwarden.domain.outside import outside

# What libvirt writes, and no guard reviews or no QEMU of Debian knows; the wrapper refuses it.
KNOWN = {
    "-incoming exec:cat": "former versions of libvirt",
    "-incoming tcp:": "former versions of libvirt",
    "'idontexist": "a NIC that no QEMU has",
    "-display sdl": "a window on the host's screen",
    "-display dbus": "a display for programs of the host",
    "-enable-fips": "QEMU dropped it",
    "'pc-i440fx-5.1,usb=off": "what follows -enable-fips",
    "-full-screen": "a window on the host's screen",
    "-net nic": "boards without PCI",
    "-soundhw": "QEMU dropped it",
    "'vxhs": "QEMU dropped it",
    "'vxhs/": "QEMU dropped it",
    "'sheepdog": "QEMU dropped it",
    "leads to 'vsock 42'": "the guest's address is chosen when it starts",
    "leads to 'pci 0001:02:03.4'": "a NIC of a network of devices: the XML names it when it starts",
    "leads to 'iscsi iscsi.example.com port 3260'": "a volume of a pool, whose host no XML names",
    "in -drive": "an SD card over the network, on ARM boards",
    '\'{"id":"char': "JSON for -chardev, which no QEMU takes yet",
    "-chardev '{": "JSON for -chardev, which no QEMU takes yet",
}


def refused(files: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Each command line that is refused, with the reasons that are not known."""
    for file in files:
        words = _words(file)
        if words is None or _passes_arguments(file):
            continue
        options = wrapped.argv.parse_argv(words)
        found = [
            str(refusal)
            for check in (wrapped.review.check_vocabulary, wrapped.review.check_presence)
            for refusal in check(options)
        ]
        found += _not_in_the_xml(file, options)
        if found:
            yield file.name, [line for line in found if not any(known in line for known in KNOWN)]


def _not_in_the_xml(file: Path, options: list[Any]) -> list[str]:
    """The endpoints and devices of the host that the domain of the command line does not name."""
    xml = _xml(file)
    if xml is None:
        return []
    known = {"outside": outside(from_tree(parse(xml.read_bytes())))}
    return [str(refusal) for refusal in wrapped.outside.check_outside(known, options)]


def _words(file: Path) -> list[str] | None:
    """The arguments after the environment and the emulator."""
    words = shlex.split(file.read_text().replace("\\\n", " "))
    for at, word in enumerate(words):
        if "=" not in word.partition("/")[0]:
            return words[at + 1 :] if "qemu" in word else None
    return None


def _passes_arguments(file: Path) -> bool:
    """Whether its domain has <qemu:commandline>."""
    xml = _xml(file)
    return xml is not None and bool(from_tree(parse(xml.read_bytes())).passes_arguments)


def _xml(file: Path) -> Path | None:
    """The domain of a command line."""
    name = file.name.removesuffix(".args").partition(".")[0]
    candidates = file.with_name(f"{name}.xml"), file.with_suffix(".xml")
    return next((xml for xml in candidates if xml.exists()), None)
