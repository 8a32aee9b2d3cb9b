# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a storage pool's volume, by what libvirt keeps of the pool.

A domain names pool and volume (`<disk type='volume'>`, as Terraform's provider writes it), and
libvirt finds the file at each start, and tells no hook of it. In a pool that is a directory or a
volume group, that file is the volume's name below the pool's `<target>`: `virStorageBackend…` in
libvirt's src/storage. The wrapper compares it with what libvirt then gives to QEMU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxml import etree

# A running pool may be another than the defined one of its name, or not be defined at all.
KEPT = (Path("/run/libvirt/storage"), Path("/etc/libvirt/storage"))
# The type of a disk that names such a file itself.
_FILE_OF = {"dir": "file", "fs": "file", "netfs": "file", "logical": "block"}


@dataclass(frozen=True)
class Place:
    """Where a volume is; `kind` is the type of a disk that names it by its path."""

    kind: str
    path: str


def place(pool: str, volume: str) -> Place | None:
    """The file or device of a volume; None where the pool is none of ours, or of another type."""
    if not (_is_name(pool) and _is_name(volume)):
        return None
    for directory in KEPT:
        found = _pool(directory / f"{pool}.xml")
        if found is not None:
            kind = _FILE_OF.get(found.get("type", ""))
            target = found.findtext("target/path") or ""
            return Place(kind, f"{target}/{volume}") if kind and target.startswith("/") else None
    return None


def _is_name(word: str) -> bool:
    return word not in ("", ".", "..") and "/" not in word and "\0" not in word


def _pool(path: Path) -> etree._Element | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(path.read_bytes(), parser)
    except (OSError, etree.XMLSyntaxError):
        return None
    return root if root.tag == "pool" else root.find("pool")
