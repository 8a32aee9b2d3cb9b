# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance's disk, made once for each recipe and kept in build/appliance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.appliance.recipe import ARCHIVE, ROOTFS, Recipe
from tests.appliance.scratch import scratch
from tests.debian import sources
from tests.debian.kept import key, once
from tests.host.command import run
from tests.host.namespace import CHECKOUT

STORE = CHECKOUT / "build" / "appliance"
_HERE = Path(__file__).parent
_DISK_SIZE = "4G"
_BUILD_SECONDS = 900
# Nobody reads them there, and unpacking them takes a third of the time.
_UNREAD = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Image:
    """A disk to boot from, which nobody writes any more, and the kernel that boots it.

    `kernel_line` is what the kernel is told besides what every machine's is.
    """

    disk: Path
    disk_format: str
    kernel: Path
    kernel_line: str


def base(recipe: Recipe) -> Image:
    """A host with libvirt, and without virt-warden."""
    made_of = key(repr(recipe), *_contents(ROOTFS), *_contents(_HERE / "image"), _text(__file__))
    directory = once(STORE, f"{recipe.codename}-{made_of}", lambda path: _make(recipe, path))
    return Image(directory / "disk", "raw", directory / "vmlinuz", recipe.kernel_line)


def _make(recipe: Recipe, to: Path) -> None:
    with scratch() as directory:
        root = directory / "root"
        _bootstrap(recipe, root)
        if recipe.selinux:
            # In a namespace for mounts of its own.
            run("unshare", "--mount", f"{_HERE}/image/label", str(root), seconds=300)
        shutil.copy(_only(root.glob("boot/vmlinuz-*")), to / "vmlinuz")
        _write_disk(root, to / "disk")


def _bootstrap(recipe: Recipe, root: Path) -> None:
    """mmdebstrap(1), with image/customise as its last step."""
    options = [f"--aptopt={line}" for line in sources.options()]
    options += [f"--dpkgopt=path-exclude={path}" for path in _UNREAD]
    options.append(f"--include={','.join((recipe.host + recipe.tools).split())}")
    options.append(f"--customize-hook={_HERE}/image/customise")
    run(
        "mmdebstrap",
        *("--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
        *options,
        recipe.codename,
        str(root),
        *sources.lines(recipe.codename),
        seconds=_BUILD_SECONDS,
        # initramfs-tools' hook of the kernel package: it boots without an initrd.
        environment=os.environ
        | {
            "INITRD": "No",
            "ROOTFS": str(ROOTFS),
            "ARCHIVE": ARCHIVE,
            "ARCHIVED": recipe.archive,
        },
    )


def _write_disk(root: Path, disk: Path) -> None:
    options = ("-F", "-q", "-L", "appliance", "-E", "lazy_itable_init=1", "-J", "size=16")
    run("mke2fs", "-t", "ext4", *options, "-d", str(root), str(disk), _DISK_SIZE, seconds=300)
    disk.chmod(0o444)


def _contents(directory: Path) -> list[str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [f"{path.relative_to(directory)}\n{path.read_text()}" for path in files]


def _text(path: str) -> str:
    return Path(path).read_text()


def _only(found: Iterator[Path]) -> Path:
    (path,) = found
    return path
