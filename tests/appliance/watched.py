# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of which the reports of failures tell, as long as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.appliance.build import Image
from tests.appliance.hardware import Hardware
from tests.appliance.machine import Host, booted

HOSTS = pytest.StashKey[list[Host]]()

Boot = Callable[..., Host]


@contextmanager
def watched(request: pytest.FixtureRequest, image: Image, hardware: Hardware) -> Iterator[Host]:
    """Boot a host, as long as this lasts."""
    running = request.config.stash[HOSTS]
    with booted(image, hardware) as host:
        running.append(host)
        try:
            yield host
        finally:
            running.remove(host)
