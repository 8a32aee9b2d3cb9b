# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's configuration files, read by Augeas with the lenses that libvirt ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from virtwarden.errors import HostError

QEMU = "Libvirtd_qemu.lns"
LIBVIRTD = "Libvirtd.lns"

Settings = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Located:
    """A setting's value, and the line that sets it: `/etc/libvirt/qemu.conf:812`."""

    value: str | tuple[str, ...] = ""
    where: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """All of its texts; empty where it is not set."""
        return self.value if isinstance(self.value, tuple) else (self.value,) * bool(self.value)


def settings(path: Path, lens: str) -> Settings:
    """The settings in a file, without comments; empty where there is no such file.

    Raises HostError where the file cannot be parsed: libvirt cannot parse it then either.
    """
    return {name: found.value for name, found in located(path, lens).items()}


def located(path: Path, lens: str) -> Mapping[str, Located]:
    """The settings in a file with their lines. Raises HostError as `settings` does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return {}
    return _located(path, lens, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


def setting(path: Path, lens: str, name: str) -> Located:
    """One setting with its line. Raises HostError as `settings` does.

    To parse a file as it was installed, with each setting in a comment, takes 20 ms.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Located()
    if not re.search(rb"^[ \t]*%b\b" % name.encode(), text, re.MULTILINE):
        return Located()
    return located(path, lens).get(name, Located())


@lru_cache(maxsize=4)
def _located(path: Path, lens: str, _identity: tuple[int, ...]) -> Mapping[str, Located]:
    import augeas

    flags = augeas.Augeas.NO_MODL_AUTOLOAD | augeas.Augeas.NO_LOAD | augeas.Augeas.ENABLE_SPAN
    tree = augeas.Augeas(flags=flags)
    try:
        tree.set("/augeas/load/it/lens", lens)
        tree.set("/augeas/load/it/incl[1]", str(path))
        tree.load()
        error = f"/augeas/files{path}/error"
        if tree.match(error):
            raise HostError(
                f"{tree.get(f'{error}/message')}",
                where=f"{path}:{tree.get(f'{error}/line') or '?'}",
                fix=f"correct the line: sensible-editor {path}",
            )
        text = path.read_bytes()
        return {
            node.rpartition("/")[2]: Located(
                _value(tree, node), f"{path}:{_line(tree, node, text)}"
            )
            for node in tree.match(f"/files{path}/*[label() !~ regexp('#.*')]")
        }
    finally:
        tree.close()


def _line(tree: Any, node: str, text: bytes) -> int:
    return text.count(b"\n", 0, tree.span(node)[5]) + 1


def _value(tree: Any, node: str) -> str | tuple[str, ...]:
    elements = tree.match(f"{node}/*")
    if elements:
        return tuple(tree.get(element) or "" for element in elements)
    return tree.get(node) or ""


def with_settings(text: str, lens: str, wanted: Settings) -> str:
    """A file's text with these settings in it. All else stays as it was, and so do comments.

    Raises HostError where the text cannot be parsed.
    """
    import augeas

    tree = augeas.Augeas(flags=augeas.Augeas.NO_MODL_AUTOLOAD | augeas.Augeas.NO_LOAD)
    try:
        tree.add_transform(lens, "/nowhere")
        tree.set("/text", text if text.endswith("\n") or not text else f"{text}\n")
        tree.text_store(lens, "/text", "/file")
        if tree.match("/augeas/text/file/error"):
            raise HostError(str(tree.get("/augeas/text/file/error/message")))
        for key, value in wanted.items():
            _put(tree, f"/file/{key}", value)
        tree.text_retrieve(lens, "/text", "/file", "/result")
        if tree.match("/augeas/text/file/error"):
            raise HostError(str(tree.get("/augeas/text/file/error/message")))
        return str(tree.get("/result"))
    finally:
        tree.close()


def _put(tree: Any, node: str, value: str | tuple[str, ...]) -> None:
    if isinstance(value, str):
        tree.set(node, value)
        return
    tree.remove(node)
    for number, element in enumerate(value, start=1):
        tree.set(f"{node}/{number}", element)
