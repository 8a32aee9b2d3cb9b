"""One domain after the other, and a line for each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import libvirt

from virtwarden.errors import WardenError
from virtwarden.libvirtd.connection import connected


def for_each(
    chosen: Callable[[libvirt.virConnect], list[libvirt.virDomain]],
    act: Callable[[libvirt.virConnect, libvirt.virDomain], str],
) -> int:
    """Do it to one domain after the other; one that fails does not keep the others from it."""
    failed = False
    with connected() as connection:
        for domain in chosen(connection):
            try:
                print(f"{domain.name()} {act(connection, domain)}")
            except WardenError as error:
                print(f"virt-warden: {domain.name()}: {error}", file=sys.stderr)
                failed = True
    return int(failed)
