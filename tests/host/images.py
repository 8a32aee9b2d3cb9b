"""Disk images, small and sparse."""

from __future__ import annotations

from pathlib import Path

from tests.host.command import run


def qcow2(
    path: Path,
    size: str = "16M",
    backing: Path | None = None,
    backing_format: str | None = None,
    mode: int = 0o600,
) -> Path:
    """Create a qcow2 image; one with a backing image takes its size from that."""
    on_top_of: list[str] = []
    if backing is not None:
        on_top_of = ["-b", str(backing), "-F", backing_format or "qcow2"]
    return _create("qcow2", path, [] if backing else [size], on_top_of, mode)


def raw(path: Path, size: str = "16M", mode: int = 0o600) -> Path:
    """Create a raw image."""
    return _create("raw", path, [size], [], mode)


def _create(form: str, path: Path, size: list[str], options: list[str], mode: int) -> Path:
    run("qemu-img", "create", "-q", "-f", form, *options, str(path), *size)
    path.chmod(mode)
    return path
