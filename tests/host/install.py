"""virt-warden itself, installed in the private host."""

from __future__ import annotations

from tests.host.command import run
from tests.host.namespace import CHECKOUT, require_private_host


def install() -> None:
    """Install the checkout as an admin would; libvirtd must start or restart after it."""
    require_private_host()
    run("make", "-C", str(CHECKOUT), "install")
