# SPDX-License-Identifier: GPL-2.0-or-later
"""The host as it is at one moment, in so far as a change of virt-warden's could alter it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import posix1e

from tests.host.command import run

# Spent uids stay spent, images that a VM could write stay remembered, an authority outlives the
# start that founded it, its signer's key and what was dropped are kept until the next boot, the
# compiled policy tells of no domain, and the service leaves its socket and its lock: all else comes
# back.
LASTING = (
    "/var/lib/virt-warden/uids",
    "/var/lib/virt-warden/written",
    "/var/lib/virt-warden/console-ca",
    "/run/virt-warden/drops",
    "/run/virt-warden/ebtables-works",
    "/run/virt-warden/iptables-limits-ports",
    "/run/virt-warden/keys",
    "/run/virt-warden/libvirts-user",
    "/run/virt-warden/nftables-limits-ports",
    "/run/virt-warden/nftables-limits-reach",
    "/run/virt-warden/nftables-works",
    "/run/virt-warden/notices.sock",
    "/run/virt-warden/policy.json",
    "/run/virt-warden/watched",
)
_ACCOUNTS = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")


def snapshot(trees: Iterable[Path]) -> dict[str, str]:
    """Every file below some directories, the accounts, and the kernel's filters."""
    found = {f"/etc/{name}": Path("/etc", name).read_text() for name in _ACCOUNTS}
    found["ports"] = run("bridge", "-d", "link", "show").stdout
    found["nftables"] = run("nft", "list", "ruleset").stdout
    found["ebtables"] = run("ebtables", "-t", "nat", "-L").stdout
    for tree in filter(Path.exists, trees):
        for path in [tree, *sorted(tree.rglob("*"))]:
            if not str(path).startswith(LASTING):
                found[str(path)] = _describe(path)
    return found


def make_base_chains() -> None:
    """Have ebtables make its base chains, as it does when it is first used, and leaves them."""
    for table, chain in (("nat", "PREROUTING"), ("nat", "POSTROUTING"), ("filter", "INPUT")):
        for act in ("-A", "-D"):
            run("ebtables", "-t", table, act, chain, "-j", "RETURN")


def _describe(path: Path) -> str:
    status = path.lstat()
    words = [stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}"]
    if stat.S_ISLNK(status.st_mode):
        return " ".join([*words, str(path.readlink())])
    words.append(posix1e.ACL(file=str(path)).to_any_text(separator=b",").decode())
    if stat.S_ISREG(status.st_mode):
        words.append(hashlib.sha256(path.read_bytes()).hexdigest())
    if stat.S_ISBLK(status.st_mode):
        words.append(str(os.major(status.st_rdev)))
    return " ".join(words)
