# SPDX-License-Identifier: GPL-2.0-or-later
"""A Kerberos realm in the private host: a KDC, the service vnc, and people who have tickets."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.command import run
from tests.host.namespace import require_private_host

REALM = "EXAMPLE.ORG"
_CONFIGURATION = Path("/etc/krb5.conf")
_DIRECTORY = Path("/run/test-kdc")
_READY_SECONDS = 20
_TEXT = f"""[libdefaults]
default_realm = {REALM}
dns_canonicalize_hostname = false
dns_lookup_kdc = false
rdns = false
[realms]
{REALM} = {{
  kdc = 127.0.0.1:8888
  database_name = {_DIRECTORY}/principal
  key_stash_file = {_DIRECTORY}/stash
  kdc_ports = 8888
  kdc_tcp_ports = 8888
}}
OTHER.ORG = {{ }}
"""


def host_principal() -> str:
    """What viewers ask the KDC for."""
    return f"vnc/{os.uname().nodename}@{REALM}"


@contextmanager
def realm(keytab: Path) -> Iterator[None]:
    """Run a KDC, as long as this lasts, with the host's key in a keytab of root's."""
    require_private_host()
    former = _CONFIGURATION.read_bytes() if _CONFIGURATION.exists() else None
    _DIRECTORY.mkdir(mode=0o700)
    _CONFIGURATION.write_text(_TEXT)
    environment = {"KRB5_KDC_PROFILE": str(_CONFIGURATION), "PATH": os.environ["PATH"]}
    run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM, environment=environment)
    for command in (
        f"addprinc -randkey {host_principal()}",
        f"ktadd -k {keytab} {host_principal()}",
    ):
        run("kadmin.local", "-q", command, environment=environment)
    kdc = subprocess.Popen(["krb5kdc", "-n"], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        kdc.kill()
        kdc.wait()
        run("rm", "-rf", str(_DIRECTORY), str(keytab))
        _CONFIGURATION.unlink()
        if former is not None:
            _CONFIGURATION.write_bytes(former)


def ticket(name: str) -> str:
    """Make a person of this realm and get them a ticket; the name of the cache that holds it."""
    environment = {"KRB5_KDC_PROFILE": str(_CONFIGURATION), "PATH": os.environ["PATH"]}
    run("kadmin.local", "-q", f"addprinc -pw secret {name}", environment=environment)
    cache = f"FILE:{_DIRECTORY}/cache-{name}"
    deadline = time.monotonic() + _READY_SECONDS
    while True:  # kinit tries again by itself, until the KDC listens
        done = run("kinit", "-c", cache, name, stdin="secret\n", check=False)
        if done.returncode == 0:
            return cache
        if time.monotonic() > deadline:
            raise TimeoutError(done.stderr)
