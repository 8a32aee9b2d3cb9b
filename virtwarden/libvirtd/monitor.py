# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends commands to the QEMU of a running domain (QMP), through libvirt."""

from __future__ import annotations

import json
from typing import Any

import libvirt
import libvirt_qemu

from virtwarden.errors import HostError


def command(domain: libvirt.virDomain, execute: str, **arguments: object) -> Any:
    """Make QEMU execute it; gives its answer.

    Raises HostError where QEMU refuses. The error quotes no argument.
    """
    line = json.dumps({"execute": execute, "arguments": arguments})
    try:
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, line, 0))
    except libvirt.libvirtError as error:
        raise HostError(f"QEMU cannot be told: {error}") from None
    if "error" in answer:
        raise HostError(f"QEMU does not take it: {answer['error'].get('desc')}")
    return answer.get("return")
