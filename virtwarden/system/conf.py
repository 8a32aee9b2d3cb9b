# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's configuration files, read by Augeas with the lenses that libvirt ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from virtwarden.errors import HostError

QEMU = "Libvirtd_qemu.lns"
LIBVIRTD = "Libvirtd.lns"

Settings = dict[str, str | tuple[str, ...]]


def settings(path: Path, lens: str) -> Settings:
    """The settings in a file, without comments; empty where there is no such file.

    Raises HostError where the file cannot be parsed: libvirt cannot parse it then either.
    """
    import augeas

    if not path.exists():
        return {}
    flags = augeas.Augeas.NO_MODL_AUTOLOAD | augeas.Augeas.NO_LOAD
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
        return {
            node.rpartition("/")[2]: _value(tree, node)
            for node in tree.match(f"/files{path}/*[label() !~ regexp('#.*')]")
        }
    finally:
        tree.close()


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
