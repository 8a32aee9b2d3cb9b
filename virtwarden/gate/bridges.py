# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep bridges from learning addresses from frames that they do not forward, such as LLDP.

No filter of a bridge sees LLDP. With a forged sender it would attract another VM's frames. This is
done while guarded domains run.
"""

from __future__ import annotations

from collections.abc import Iterable

from virtwarden.paths import Paths
from virtwarden.system import bridges, files


def stop_learning(paths: Paths, domain: str, names: Iterable[str]) -> None:
    """Have these bridges learn less, and write down for which domain."""
    for bridge in {bridges.bridge_of(name) for name in names} - {""}:
        needing = paths.bridges / bridge
        learns = bridges.learns_from_groups(bridge)
        if learns or needing.is_dir():
            files.private_directory(needing)
            (needing / domain).touch(0o600)
        if learns:
            bridges.set_learns_from_groups(bridge, learns=False)


def learn_again(paths: Paths, domain: str) -> None:
    """Have bridges learn as before, once no domain is left for which they were told not to."""
    if not paths.bridges.is_dir():
        return
    for needing in paths.bridges.iterdir():
        (needing / domain).unlink(missing_ok=True)
        if not any(needing.iterdir()):
            bridges.set_learns_from_groups(needing.name, learns=True)
            needing.rmdir()
    if not any(paths.bridges.iterdir()):
        paths.bridges.rmdir()
