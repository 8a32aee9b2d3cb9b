# SPDX-License-Identifier: GPL-2.0-or-later
"""A running process, as the kernel sees it (proc(5))."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError


@dataclass(frozen=True)
class Process:
    """What /proc says of one process; `uids` and `gids` are real, effective, saved, file system.

    `seccomp_filters` is None where the kernel does not count them (before 5.9). `environment` has
    only the names of its variables: a value may be a secret.
    """

    pid: int
    executable: str
    arguments: tuple[str, ...]
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    seccomp_filters: int | None
    cgroup: str
    core_limit: str
    umask: int
    label: str
    environment: frozenset[str]
    is_closed: bool
    """Its memory is root's, as proc(5) says it: it is not dumpable, so only root traces it."""


# prctl(2), PR_GET_SECCOMP
_SECCOMP_FILTER = "2"
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


def read(pid: int) -> Process:
    """The process with this pid. Raises HostError where there is none."""
    directory = Path("/proc") / str(pid)
    try:
        status = dict(line.split(":", 1) for line in _text(directory / "status").split("\n")[:-1])
        capabilities = 0
        for name in _CAPABILITY_SETS:
            capabilities |= int(status[name], 16)
        return Process(
            pid=pid,
            executable=str((directory / "exe").readlink()),
            arguments=arguments(pid),
            uids=_numbers(status["Uid"]),
            gids=_numbers(status["Gid"]),
            groups=_numbers(status["Groups"]),
            capabilities=capabilities,
            no_new_privileges=status["NoNewPrivs"].strip() == "1",
            seccomp=status["Seccomp"].strip() == _SECCOMP_FILTER,
            seccomp_filters=int(counted) if (counted := status.get("Seccomp_filters")) else None,
            cgroup=cgroup(pid),
            core_limit=_core_limit((directory / "limits").read_text()),
            umask=int(status["Umask"], 8),
            label=_label(directory / "attr" / "current"),
            environment=_names((directory / "environ").read_bytes()),
            is_closed=(directory / "mem").stat().st_uid == 0,
        )
    except (FileNotFoundError, ProcessLookupError):
        raise HostError(f"there is no process {pid}") from None


def arguments(pid: int) -> tuple[str, ...]:
    """Its command line; empty of one that has ended. Raises OSError where there is none."""
    return tuple(_text(Path("/proc") / str(pid) / "cmdline").split("\0")[:-1])


def _text(file: Path) -> str:
    """What the kernel says of a process, which chose its name and command line: any bytes."""
    return file.read_bytes().decode(errors="replace")


def cgroup(pid: int) -> str:
    """The cgroup of a process in the unified hierarchy; cgroups(7). Raises OSError."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]


def descriptors(pid: int) -> tuple[str, ...]:
    """What a process has open: paths, and `socket:[…]` and the like. Raises OSError."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(link.readlink()))
    return tuple(found)


def mount_options(mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The mount options of /proc. Where several are mounted on it, those of the last."""
    lines = [line.split() for line in mounts.read_text().splitlines()]
    return next((words[-1] for words in reversed(lines) if words[4] == "/proc"), "")


def are_hidden(options: str) -> bool:
    """Whether hidepid hides users' processes from each other, by name or by number; proc(5)."""
    wanted = {"hidepid=invisible", "hidepid=ptraceable", "hidepid=2", "hidepid=4"}
    return not wanted.isdisjoint(options.split(","))


def _label(file: Path) -> str:
    """The label by which AppArmor or SELinux confines a process; empty where neither is on."""
    try:
        return file.read_text().strip("\0\n")
    except OSError:
        return ""


def _names(environ: bytes) -> frozenset[str]:
    words = environ.split(b"\0")
    return frozenset(word.partition(b"=")[0].decode(errors="replace") for word in words if word)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _core_limit(limits: str) -> str:
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    return line.removeprefix("Max core file size").split()[1]
