# SPDX-License-Identifier: GPL-2.0-or-later
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


def luks(path: Path, key: str, size: str = "32M", version: int = 2, mode: int = 0o600) -> Path:
    """Create a LUKS container whose key is guessed, and so tried, quickly."""
    run("truncate", "-s", size, str(path))
    quick = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    kind = ("--type", f"luks{version}", *quick)
    run("cryptsetup", "luksFormat", "-q", *kind, "--key-file=-", str(path), stdin=key)
    path.chmod(mode)
    return path


def qemu_luks(path: Path, key: str, form: str, size: str = "4M") -> Path:
    """Create an image that QEMU encrypts, raw or qcow2."""
    secret = path.with_suffix(".secret")
    secret.write_text(key)
    prefix = "encrypt." if form == "qcow2" else ""
    options = [f"{prefix}iter-time=10", f"{prefix}key-secret=key"]
    options += ["encrypt.format=luks"] if form == "qcow2" else []
    command = (
        *("qemu-img", "create", "-q", "-f", form if form == "qcow2" else "luks"),
        *("--object", f"secret,id=key,file={secret}"),
        *("-o", ",".join(options), str(path), size),
    )
    # QEMU times its key derivation, and gives up where the host lent it no CPU meanwhile.
    while "accurate CPU usage" in (done := run(*command, check=False)).stderr:
        path.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    secret.unlink()
    path.chmod(0o600)
    return path
