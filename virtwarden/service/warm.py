"""Import all that answering a hook may take, so that no call pays for it.

It also holds the service to one version of the code: what an upgrade puts in the place of our
files is not mixed with what was imported before.
"""

from __future__ import annotations

import importlib
import pkgutil

import virtwarden

# The commands and what listens to libvirt: no hook goes there.
_NOT_FOR_HOOKS = ("virtwarden.audit", "virtwarden.cli", "virtwarden.service.")
# What is imported where it is needed, here and in the libraries themselves.
_LIBRARIES = (
    "cryptography.hazmat.backends.openssl.backend",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509.oid",
    "encodings.idna",
    "jsonschema",
    "posix1e",
    "select",
    "sh",
    "shlex",
    "stringprep",
    "systemd._journal",
    "tomllib",
)


def warm_up() -> None:
    """Import it all; takes some tenths of a second."""
    for module in pkgutil.walk_packages(virtwarden.__path__, "virtwarden."):
        if not module.name.startswith(_NOT_FOR_HOOKS):
            importlib.import_module(module.name)
    for name in _LIBRARIES:
        importlib.import_module(name)
