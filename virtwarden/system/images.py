# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk image's header says, read with qemu-img."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system.run import run

QEMU_IMG = "/usr/bin/qemu-img"


@dataclass(frozen=True)
class Image:
    """A base image."""

    path: str
    format: str
    is_device: bool


def is_plain(path: str) -> bool:
    """Whether a qcow2 image holds exactly one whole disk: no snapshot, no data in another file.

    Raises CommandError.
    """
    listed = run(QEMU_IMG, "info", "--output=json", "-f", "qcow2", path)
    untrusted_header = json.loads(listed)
    own = untrusted_header["format-specific"]["data"]
    return not untrusted_header.get("snapshots") and "data-file" not in own


def backing(path: str, image_format: str) -> Image | None:
    """The base image of an image of this format, or None where it has none.

    It believes the image's header, which comes from whoever wrote the image. So ask it once, before
    a guest has used the image, and store the answer. Raises HostError and CommandError.
    """
    listed = run(QEMU_IMG, "info", "--force-share", "--output=json", "-f", image_format, path)
    untrusted_header = json.loads(listed)
    names = ("full-backing-filename", "backing-filename")
    untrusted_base = next(filter(None, map(untrusted_header.get, names)), "")
    if not untrusted_base:
        return None
    untrusted_format = untrusted_header.get("backing-filename-format")
    if not untrusted_format:
        raise HostError(
            f"{path} does not say of which format its base {untrusted_base} is",
            fix=f"qemu-img rebase -u -b {untrusted_base} -F FORMAT {path}",
        )
    try:
        mode = Path(untrusted_base).stat().st_mode
    except OSError as error:
        raise HostError(f"the base {untrusted_base} of {path}: {error.strerror}") from None
    base = str(Path(untrusted_base).resolve())
    return Image(base, untrusted_format, stat.S_ISBLK(mode))
