# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines that libvirt's AppArmor profiles need to run a wrapper, where they include them.

virt-warden adds one marked line to a file in local/, and later removes only that line. Debian's
libvirt creates this file empty, and it belongs to no package. On Debian 13 what is added to an
abstraction goes into a file of its own instead, which is removed with its last line. Where
libvirt's own profile is missing, nothing is added.

QEMU may read what the kernel shows to anybody of a block device's queue. QEMU reads it, and
libvirt's own abstraction lacks most of it.

A wrapper makes a user namespace where nobody enrolled the domain. AppArmor 4 wants a rule for that;
AppArmor 3 does not know the rule, and allows it. QEMU itself makes none: its filters of system
calls forbid it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from virtwarden.errors import CommandError
from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.run import run

_MARK = "# virt-warden puts this line here, and takes it away"
_PARSER = Path("/usr/sbin/apparmor_parser")
_NAMESPACES = " userns,"
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")


def permit(paths: Paths) -> list[str]:
    """Add the lines and load them into the kernel. Gives a sentence for each failure."""
    reports = []
    for name, line in _lines(paths):
        if (paths.apparmor / name).is_file():
            home = _home(paths, name)
            reports += _write(paths, name, home, [*_others(home), line])
    return reports


def withdraw(paths: Paths) -> list[str]:
    """Remove the lines and nothing else. Gives a sentence for each failure."""
    reports = []
    for name, _ in _lines(paths):
        # Look in both: the host may have had another release when the line was added.
        for home in (_local(paths, name), _drop_in(paths, name)):
            if home.exists():
                reports += _write(paths, name, home, _others(home))
    return reports


def _home(paths: Paths, name: str) -> Path:
    """The file in which a line works: the drop-in, where libvirt's own file asks for those."""
    asks = f"include if exists <{name}.d>" in (paths.apparmor / name).read_text()
    return _drop_in(paths, name) if asks else _local(paths, name)


def _local(paths: Paths, name: str) -> Path:
    return paths.apparmor / "local" / name


def _drop_in(paths: Paths, name: str) -> Path:
    return paths.apparmor / f"{name}.d" / "virt-warden"


def _lines(paths: Paths) -> Iterator[tuple[str, str]]:
    """Each profile or abstraction, by its path below /etc/apparmor.d, with its line."""
    for source in sorted(paths.apparmor_lines.rglob("*")):
        if source.is_file():
            line = source.read_text().strip()
            if _NAMESPACES in line and not _knows_namespaces():
                line = line.replace(_NAMESPACES, "")
            yield str(source.relative_to(paths.apparmor_lines)), line


def _others(local: Path) -> list[str]:
    try:
        lines = local.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if not line.endswith(_MARK)]


def _write(paths: Paths, name: str, local: Path, lines: list[str]) -> list[str]:
    former = local.read_text() if local.exists() else ""
    wanted = "".join(f"{line}\n" for line in lines)
    if wanted == former:
        return []
    if wanted or local != _drop_in(paths, name):
        local.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.write_atomically(local, wanted.encode(), 0o644)
    else:
        _remove(local)
    # libvirt reads an abstraction when it loads the profile of a domain that starts.
    if name.startswith("abstractions/"):
        return []
    try:
        _load(paths.apparmor / name)
    except CommandError as error:
        files.write_atomically(local, former.encode(), 0o644)
        return [f"{local} is not changed, because AppArmor does not accept it: {error}"]
    return []


def _remove(drop_in: Path) -> None:
    drop_in.unlink()
    # The directory stays where others have drop-ins in it.
    with suppress(OSError):
        drop_in.parent.rmdir()


def _knows_namespaces() -> bool:
    """Whether this AppArmor can read a rule on user namespaces, without which nothing loads."""
    if not _PARSER.exists():
        return False
    try:
        run(
            str(_PARSER),
            *("--skip-kernel-load", "--skip-cache", "--quiet"),
            stdin=f"profile virt-warden-asks {{{_NAMESPACES} }}\n",
        )
    except CommandError:
        return False
    return True


def _load(profile: Path) -> None:
    if _PARSER.exists() and _ENABLED.exists() and _ENABLED.read_text().startswith("Y"):
        run(str(_PARSER), "--replace", "--skip-read-cache", "--write-cache", str(profile))
