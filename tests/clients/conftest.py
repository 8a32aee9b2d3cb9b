# SPDX-License-Identifier: GPL-2.0-or-later
r"""What the tests of clients share: the fixtures of tests/libvirt.

Run from the checkout's root, as root:

    /usr/bin/python3 -B -m tests.host -- \
        /usr/bin/python3 -B -m pytest -q tests/clients/test_define_and_start.py
"""

from __future__ import annotations

from tests.libvirt.conftest import (  # noqa: F401 - pytest finds fixtures by their names here
    _libvirt,
    bridge,
    domains,
    images,
    service,
    syslog,
    warden,
)
