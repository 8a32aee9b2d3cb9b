# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden itself, installed in the private host."""

from __future__ import annotations

from tests.host.command import run
from tests.host.namespace import CHECKOUT, require_private_host


def install() -> None:
    """Install the checkout as an admin would; libvirtd must start or restart after it."""
    require_private_host()
    run("make", "-C", str(CHECKOUT), "install")


def configure() -> None:
    """Put the package that the host has installed to work here, where its hooks and policy are not.

    Fails where no package is installed.
    """
    require_private_host()
    run("virt-warden", "--version")
    policy = str(CHECKOUT / "policy" / "policy.toml")
    run("install", "-D", "-m", "644", policy, "/etc/virt-warden/policy.toml")
    run("virt-warden", "package", "configure")
