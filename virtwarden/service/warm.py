# SPDX-License-Identifier: GPL-2.0-or-later
"""Import, compile and load all that an answer to a hook may need, so that no call pays for it.

It also holds the service to one version of the code: after an upgrade replaces our files, the
service imports nothing from the new ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress

import virtwarden
from virtwarden import lifecycle
from virtwarden.domain.model import read
from virtwarden.errors import PolicyError, WardenError
from virtwarden.guards import calls
from virtwarden.guards.base import Case, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system import certificates
from virtwarden.system.nft import nft

# Installation, commands, reports and the process that listens to libvirt need these. No hook does.
_NOT_FOR_HOOKS = tuple(
    f"virtwarden.{name}"
    for name in (
        *("adoption", "audit", "cli", "consoled", "libvirtd", "package", "remote", "watch"),
        "service.",
    )
)
# Modules that functions import when they need them, here and in the libraries themselves.
_LIBRARIES = (
    "cryptography.hazmat.backends.openssl.backend",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509.oid",
    "encodings.idna",
    "jsonschema",
    "nftables",
    "posix1e",
    "select",
    "sh",
    "shlex",
    "stringprep",
    "systemd._journal",
    "tomllib",
)
_SAMPLE = b"""
<domain type='kvm'>
  <name>rehearsal</name>
  <uuid>00000000-0000-4000-8000-000000000000</uuid>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <emulator>/usr/lib/virt-warden/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/var/lib/libvirt/images/rehearsal.qcow2'/><backingStore/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:00'/><source bridge='br0'/><target dev='rehearsal'/>
    </interface>
    <graphics type='vnc' port='5900'><listen type='address' address='127.0.0.1'/></graphics>
  </devices>
  <seclabel type='static' model='dac' relabel='yes'>
    <label>vmw-rehearsal:vmw-rehearsal</label>
  </seclabel>
</domain>
"""


def warm_up(paths: Paths) -> None:
    """Do all of this. It takes about a second and changes nothing on the host."""
    for module in pkgutil.walk_packages(virtwarden.__path__, "virtwarden."):
        if not module.name.startswith(_NOT_FOR_HOOKS):
            importlib.import_module(module.name)
    for name in _LIBRARIES:
        importlib.import_module(name)
    with suppress(WardenError):
        nft("list tables")
    with suppress(PolicyError):
        _rehearse(paths)


def _rehearse(paths: Paths) -> None:
    """Have the guards review a domain that does not exist: what they compile and load stays."""
    rules, domain = load(paths).rules_for("rehearsal"), read(_SAMPLE)
    for op in Op:
        case = Case(op, domain, rules, HostFacts(paths), paths)
        with suppress(WardenError, OSError):
            lifecycle.reviews(case)
            lifecycle.plan(case, lifecycle.GUARDS)
            # Most domains need the same filters; the ticket has them only where there is a user.
            calls.entry(case)
    key = certificates.new_key()
    certificates.pem_key(key)
    certificates.pem(certificates.self_signed("rehearsal", key, certificates.DAY))
