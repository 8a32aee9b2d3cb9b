# SPDX-License-Identifier: GPL-2.0-or-later
"""SELinux's labels on our hooks, and whether its policy has our module.

A new file gets its directory's label, and with that label libvirt may not execute it. The admin
loads the policy module: docs/selinux.md.
"""

from __future__ import annotations

from pathlib import Path

from virtwarden.errors import FIX, CommandError
from virtwarden.package import hookfile
from virtwarden.paths import Paths
from virtwarden.system import mac
from virtwarden.system.run import run

_RESTORECON = Path("/usr/sbin/restorecon")
# selinux_policy_root(3), selinux_semanage_conf(5): one store for each policy, with one directory
# for each module.
_MODULE = "*/active/modules/[0-9]*/virt-warden"
_DISABLED = "*/active/modules/disabled/virt-warden"


def permit(paths: Paths) -> list[str]:
    """Label the hooks as the policy says. Gives a sentence for each thing wrong or missing."""
    if mac.model() == "selinux" and not _is_known(paths.selinux_modules):
        what = "SELinux is on without virt-warden's modules: when it enforces, no VM starts"
        fix = f"semodule -i {paths.share}/selinux/virt-warden.cil, and the rest of"
        return [f"{what}{FIX}{fix} /usr/share/doc/virt-warden/selinux.md"]
    return label_hooks(paths)


def _is_known(modules: Path) -> bool:
    return any(modules.glob(_MODULE)) and not any(modules.glob(_DISABLED))


def label_hooks(paths: Paths) -> list[str]:
    """Label the hooks with restorecon(8). Gives a sentence for each failure."""
    hooks = [where for kind in hookfile.KINDS if (where := hookfile.placed(paths, kind))]
    if not hooks or mac.model() != "selinux":
        return []
    try:
        run(str(_RESTORECON), *map(str, hooks))
    except CommandError as error:
        return [f"SELinux may keep libvirt from running its hooks: {error}"]
    return []
