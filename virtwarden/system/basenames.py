# SPDX-License-Identifier: GPL-2.0-or-later
"""The name that an image has for its base: a path, or `json:` and a description of a file.

Both libvirt and QEMU take the latter, and libvirt itself writes it for some snapshots. Reference:
virStorageSourceParseBackingJSON in libvirt's storage_source_backingstore.c.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from virtwarden.errors import HostError

_JSON = "json:"
_ON_THIS_HOST = frozenset({"file", "host_cdrom", "host_device"})
# Formats that describe a whole image: QEMU's -blockdev names them so.
_FORMATS = frozenset({"bochs", "cloop", "dmg", "qcow", "qcow2", "qed", "raw", "vdi", "vmdk", "vpc"})
_DEEPEST = 3


def located(path: str, untrusted_base: str) -> tuple[str, str]:
    """Where the base of an image is, and its format where its name says that.

    A plain name counts from the image's directory. Raises HostError for a description of anything
    but a whole file or device of this host.
    """
    if untrusted_base.startswith(_JSON):
        return _described(path, untrusted_base.removeprefix(_JSON))
    if not untrusted_base or "\0" in untrusted_base:
        return untrusted_base, ""
    name = untrusted_base.removeprefix("file:")
    return os.path.realpath(Path(path).parent / name), ""


def _described(path: str, untrusted_text: str) -> tuple[str, str]:
    try:
        untrusted_tree = json.loads(untrusted_text)
        untrusted_keys = dict(_flat(untrusted_tree)) if isinstance(untrusted_tree, dict) else {}
    except (ValueError, RecursionError):
        untrusted_keys = {}
    found = _file(untrusted_keys)
    if found is None:
        raise HostError(
            f"{path} describes its base in a way that virt-warden does not take:"
            f" {_JSON}{untrusted_text}",
            fix=f"qemu-img rebase -u -b BASE -F FORMAT {path}, with the name of that file",
        )
    name, image_format = found
    return os.path.realpath(name), image_format


def _flat(untrusted_tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its dotted key: nested and dotted forms mean the same."""
    for key, value in untrusted_tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _file(untrusted_keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """The one file in a description that has nothing else in it, and its format or ''.

    Around the file's own `driver` and `filename` there may be a format, with the file as `file`.
    """
    left, image_format, at = dict(untrusted_keys), "", ""
    for _ in range(_DEEPEST):
        driver = left.pop(f"{at}driver", None)
        name = left.pop(f"{at}filename", None)
        if name is not None:
            is_local = driver is None or driver in _ON_THIS_HOST
            is_whole = is_local and not left and isinstance(name, str) and name.startswith("/")
            return (name, image_format) if is_whole and "\0" not in name else None
        if driver in _FORMATS:
            # What is within a raw image is the same bytes.
            image_format = driver if image_format in ("", "raw") else image_format
        elif driver is not None:
            return None
        at += "file."
    return None
