"""libvirt's configuration files, read by Augeas with the lenses that libvirt ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from virtwarden.errors import HostError

QEMU = "Libvirtd_qemu.lns"
LIBVIRTD = "Libvirtd.lns"

Settings = dict[str, str | tuple[str, ...]]


def settings(path: Path, lens: str) -> Settings:
    """What a file sets, comments left out; empty where there is no such file.

    Raises HostError where it cannot be understood: then libvirt does not either.
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
                fix=f"mend the line: sensible-editor {path}",
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
