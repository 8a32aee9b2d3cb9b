# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk image's header says it is based on."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system import basenames, filesystems, qcow2
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

    Raises HostError.
    """
    header = qcow2.read(path)
    return not header.snapshots and not header.has_data_file


def named_base(path: str) -> str:
    """The base that a qcow2 image names, as an absolute path, or an empty string.

    Raises HostError where it is no qcow2 image.
    """
    base, _ = basenames.located(path, qcow2.read(path).untrusted_base)
    return base


def backing(path: str, image_format: str) -> Image | None:
    """The base image of an image of this format, or None where it has none.

    It believes the image's header, which comes from whoever wrote the image. So ask it once, before
    a guest has used the image, and store the answer. Raises HostError and CommandError.
    """
    if image_format == "qcow2":
        header = qcow2.read(path)
        untrusted_base, untrusted_format = header.untrusted_base, header.untrusted_format
    else:
        untrusted_base, untrusted_format = _asked_of_qemu(path, image_format)
    if not untrusted_base:
        return None
    base, described_format = basenames.located(path, untrusted_base)
    untrusted_format = untrusted_format or described_format
    if not untrusted_format:
        raise HostError(
            f"{path} does not say of which format its base {untrusted_base} is",
            fix=f"qemu-img rebase -u -b {base} -F FORMAT {path}",
        )
    try:
        mode = Path(base).stat().st_mode
    except OSError as error:
        raise filesystems.unreadable(base, error, f"the base {base} of {path}") from None
    except ValueError as error:
        raise HostError(f"the base {untrusted_base} of {path}: {error}") from None
    return Image(base, untrusted_format, stat.S_ISBLK(mode))


def _asked_of_qemu(path: str, image_format: str) -> tuple[str, str]:
    listed = run(QEMU_IMG, "info", "--force-share", "--output=json", "-f", image_format, path)
    untrusted_header = json.loads(listed)
    names = ("full-backing-filename", "backing-filename")
    untrusted_base = next(filter(None, map(untrusted_header.get, names)), "")
    return untrusted_base, untrusted_header.get("backing-filename-format") or ""
