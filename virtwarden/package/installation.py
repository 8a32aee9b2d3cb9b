# SPDX-License-Identifier: GPL-2.0-or-later
"""What installation does to a host, beyond placing files."""

from __future__ import annotations

from collections.abc import Callable

from virtwarden.changes.accounts import ledger
from virtwarden.errors import WardenError
from virtwarden.package import apparmor, daemon, emulators, farewell, found, hookfile, selinux
from virtwarden.paths import Paths

Say = Callable[[str], None]
"""What is done with a line for the admin."""


def configure(paths: Paths, say: Say, warn: Say, *, first: bool = False) -> None:
    """Configure after an installation or upgrade, or after somebody replaced the hook.

    At a `first` installation it reviews the domains that are there, before any hook could refuse
    one. Needs no libvirt.
    """
    if first:
        found.make_due(paths)
    found.review_on_this_host(paths, say, warn)
    hooks = [hookfile.place(paths, paths.share / "hooks" / "qemu", kind) for kind in hookfile.KINDS]
    for where, is_new in hooks:
        if is_new:
            say(f"libvirt's hook is {where}")
    for report in (*apparmor.permit(paths), *selinux.permit(paths)):
        warn(report)
    farewell.withdraw(paths)
    has_new_helpers = emulators.link(paths)
    try:
        ledger(paths).check()
    except WardenError as error:
        warn(str(error))
    if any(is_new for _, is_new in hooks):
        daemon.reload(paths)
    try:
        daemon.have_wrappers(paths, warn, anew=has_new_helpers)
    except (WardenError, OSError) as error:
        warn(f"libvirt's daemon is not restarted, so new domains must be enrolled: {error}")
