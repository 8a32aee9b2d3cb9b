# SPDX-License-Identifier: GPL-2.0-or-later
"""On what an image is based: from what is remembered of it, or else, once, from its header."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from virtwarden.changes.accounts import was_ever_a_vms
from virtwarden.changes.claims import claims_on
from virtwarden.domain import neighbours
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import images, written
from virtwarden.system.images import Image
from virtwarden.system.written import Written
from virtwarden.words import shown


@dataclass(frozen=True)
class Asker:
    """The domain that is enrolled."""

    paths: Paths
    uuid: str
    name: str


def base(asker: Asker, path: str, image_format: str) -> Image | None:
    """The base image of an image, or None where it has none.

    The header of an image that a VM's user could ever write is not believed. Raises HostError where
    nothing else says what is below it, where the header differs from what is remembered, or where
    the base is another domain's disk; and HostError and CommandError where it cannot be read.
    """
    former = _remembered(asker.paths, path)
    if former is None and _is_a_vms(asker.paths, path):
        raise _unknown(asker, path, image_format, "a VM's user owns it, or did")
    if former is None:
        found = images.backing(path, image_format)
    else:
        found = _as_before(asker, path, image_format, former)
    if found is not None:
        whose = _other_owner(asker, found)
        if whose:
            raise HostError(
                f"{path} says that it is based on {found.path}, which is {whose}",
                fix=f"{_rebase(path, image_format, None)}, or confirm it:"
                f" {_confirm(asker, path, found)}",
            )
    return found


def is_own(asker: Asker, path: str) -> bool:
    """Whether an image was this domain's own disk, before it got an overlay, and is nobody else's.

    Such as after a snapshot: `virsh blockcommit` has QEMU write it again.
    """
    former = _remembered(asker.paths, path)
    if former is None or former.domain != asker.uuid:
        return False
    return not neighbours.user_of(asker.paths, asker.uuid, path)


def _is_a_vms(paths: Paths, path: str) -> bool:
    try:
        return was_ever_a_vms(paths, Path(path).stat().st_uid)
    except OSError:
        return False  # who reads its header says why


def _remembered(paths: Paths, path: str) -> Written | None:
    try:
        return written.look_up(paths.written, path)
    except OSError:
        return None  # who reads its header says why


def _as_before(asker: Asker, path: str, image_format: str, former: Written) -> Image | None:
    if image_format != former.format:
        reason = f"a VM could write it, as an image of format {former.format}"
        raise _unknown(asker, path, image_format, reason)
    if not former.is_known:
        raise _unknown(asker, path, image_format, "a VM could write it")
    if image_format != "qcow2":
        return former.base
    untrusted_base = images.named_base(path)
    before = os.path.realpath(former.base.path) if former.base else ""
    if untrusted_base == before:
        return former.base
    raise HostError(
        f"{path} now says that it is based on {untrusted_base or 'no image'}, which the VM that"
        f" wrote it may have forged: it was based on {before or 'no image'}",
        fix=f"{_rebase(path, image_format, former.base)}, or confirm the new one:"
        f" {_confirm(asker, path, _image(untrusted_base))}",
    )


def _image(untrusted_base: str) -> Image | None:
    return Image(untrusted_base, "FORMAT", is_device=False) if untrusted_base else None


def _unknown(asker: Asker, path: str, image_format: str, reason: str) -> HostError:
    return HostError(
        f"nothing but its own header, which its guest may have forged, tells on what {path} is"
        f" based: {reason}",
        fix=f"if that is no other image: {_confirm(asker, path, None)}; what it says itself:"
        f" qemu-img info -U -f {image_format} {shown(path)}",
    )


def _rebase(path: str, image_format: str, below: Image | None) -> str:
    onto = f"-F {below.format} -b {shown(below.path)}" if below else '-b ""'
    return f"qemu-img rebase -u -f {image_format} {onto} {shown(path)}"


def _confirm(asker: Asker, path: str, below: Image | None) -> str:
    """The edit with which an admin says on what an image is based."""
    if below is None:
        element = "<backingStore/>"
    else:
        kind, attribute = ("block", "dev") if below.is_device else ("file", "file")
        element = (
            f"<backingStore type='{kind}'><format type='{escape(below.format)}'/>"
            f"<source {attribute}={quoteattr(below.path)}/></backingStore>"
        )
    return f"virsh edit {shown(asker.name)}, and after the <source> of {path}: {element}"


def _other_owner(asker: Asker, base: Image) -> str:
    """Whose disk a base is, in words; an empty string where it is no other domain's."""
    former = _remembered(asker.paths, base.path)
    if former is not None and former.domain != asker.uuid:
        return f"a disk that domain {former.domain} could write"
    data = neighbours.data(base.path)
    if data is None:
        return ""
    for claim in claims_on(asker.paths, *data[0], data[1:]):
        if claim.write and claim.domain != asker.uuid:
            return f"a disk of the running domain {claim.name}"
    other = neighbours.user_of(asker.paths, asker.uuid, base.path, only_writers=True)
    return f"a disk of domain {other}" if other else ""
