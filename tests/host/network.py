# SPDX-License-Identifier: GPL-2.0-or-later
"""A bridge, and a neighbour on it who sends and listens."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.host.command import run
from tests.host.frames import tagged
from tests.host.namespace import require_private_host

# linux/if_ether.h, linux/if_packet.h
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_PACKET_OUTGOING = 4
_TP_STATUS_VLAN_VALID = 0x10
# status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_AUXDATA = struct.Struct("=IIIHHHH")
_LONGEST_FRAME = 65536
# linux/if_bridge.h
_BR_STATE_FORWARDING = "3"
_FORWARDING_SECONDS = 30

_port_numbers = itertools.count()


@contextmanager
def bridge(name: str) -> Iterator[str]:
    """Make a bridge that forwards from the first moment, and says nothing of its own."""
    require_private_host()
    run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    try:
        _without_ipv6(name)
        run("ip", "link", "set", name, "up")
        yield name
    finally:
        run("ip", "link", "delete", name)


@contextmanager
def veth_port(bridge: str) -> Iterator[str]:
    """Plug a cable into the bridge and give back the name of its other end."""
    require_private_host()
    neighbour = f"neighbour{next(_port_numbers)}"
    port = f"{neighbour}-br"
    run("ip", "link", "add", neighbour, "type", "veth", "peer", "name", port)
    try:
        _without_ipv6(neighbour)
        _without_ipv6(port)
        run("ip", "link", "set", port, "master", bridge, "up")
        run("ip", "link", "set", neighbour, "up")
        await_forwarding(port)
        yield neighbour
    finally:
        run("ip", "link", "delete", neighbour)


def await_forwarding(port: str) -> None:
    """Wait until a bridge forwards what comes from a port that was just plugged in.

    The kernel tells the bridge of a carrier in its own time, later on a busy machine.
    """
    state = Path("/sys/class/net", port, "brport", "state")
    deadline = time.monotonic() + _FORWARDING_SECONDS
    while state.read_text().strip() != _BR_STATE_FORWARDING:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{port} does not forward: {state.read_text().strip()}")
        os.sched_yield()


class Sniffer:
    """Hears every frame that arrives at an interface, and sends frames from it.

    With `outgoing`, it hears what the host sends out of the interface instead.
    """

    def __init__(self, interface: str, *, outgoing: bool = False) -> None:
        require_private_host()
        self._outgoing = outgoing
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._packets.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._packets.bind((interface, _ETH_P_ALL))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, frame: bytes) -> None:
        """Send a frame as it is."""
        self._packets.send(frame)

    def frames_until(self, marker: bytes, timeout: float = 5) -> list[bytes]:
        """Give back the frames that arrived before one with `marker` in it.

        That a frame is missing in it is a proof: the marker was sent after it, took the same way
        and did arrive. Raises TimeoutError, with what came instead, where the marker did not.
        """
        arrived: list[bytes] = []
        deadline = time.monotonic() + timeout
        with suppress(TimeoutError):
            while (left := deadline - time.monotonic()) > 0:
                self._packets.settimeout(left)
                frame = self._next_frame()
                if frame is None:
                    continue
                if marker in frame:
                    return arrived
                arrived.append(frame)
        came = "\n".join(frame.hex(" ") for frame in arrived) or "nothing"
        raise TimeoutError(f"no frame with {marker!r} came in {timeout} s, but:\n{came}")

    def waiting(self) -> list[bytes]:
        """Give back the frames that are there already."""
        arrived: list[bytes] = []
        self._packets.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                frame = self._next_frame()
                arrived += [frame] if frame is not None else []
        return arrived

    def close(self) -> None:
        """Stop listening."""
        self._packets.close()

    def _next_frame(self) -> bytes | None:
        frame, ancillary, _flags, address = self._packets.recvmsg(
            _LONGEST_FRAME, socket.CMSG_SPACE(_AUXDATA.size)
        )
        if (address[2] == _PACKET_OUTGOING) is not self._outgoing:
            return None
        # The kernel takes an 802.1q tag out of the frame and tells of it apart.
        for level, kind, data in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                status, *_lengths, tag, protocol = _AUXDATA.unpack(data)
                if status & _TP_STATUS_VLAN_VALID:
                    return tagged(frame, protocol, tag)
        return frame


@contextmanager
def neighbour(bridge: str) -> Iterator[Sniffer]:
    """Put somebody on the bridge who listens and sends."""
    with veth_port(bridge) as interface:
        sniffer = Sniffer(interface)
        try:
            yield sniffer
        finally:
            sniffer.close()


class Workstation:
    """A machine of its own on a bridge: a network namespace with one cable."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, whether or not it goes well."""
        return run("ip", "netns", "exec", self._namespace, *command, check=False)

    def reaches(self, host: str, port: int) -> bool:
        """Whether a connection comes about; False where nothing answers for a second.

        Raises ConnectionRefusedError where the host says that nobody listens.
        """
        done = self.run("/usr/bin/python3", "-IS", "-c", _CONNECT, host, str(port))
        if "ConnectionRefusedError" in done.stderr:
            raise ConnectionRefusedError(host, port)
        return done.returncode == 0


_CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
"""
_workstation_numbers = itertools.count()


@contextmanager
def workstation(bridge: str, *addresses: str) -> Iterator[Workstation]:
    """Put a machine with these addresses, each with its prefix length, on the bridge."""
    require_private_host()
    name = f"work{next(_workstation_numbers)}"
    cable = f"{name}-br"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "eth0", "netns", name)
        run("ip", "link", "set", cable, "master", bridge, "up")
        station = Workstation(name)
        for link in ("lo", "eth0"):
            station.run("ip", "link", "set", link, "up")
        for address in addresses:
            give_address("eth0", address, namespace=name)
        yield station
    finally:
        run("ip", "netns", "delete", name)
        run("ip", "link", "delete", cable, check=False)


def give_address(interface: str, address: str, *, namespace: str = "") -> None:
    """Give an interface an address with its prefix length, of either version, usable at once."""
    require_private_host()
    within = ("-n", namespace) if namespace else ()
    if ":" in address:
        if not namespace:
            Path("/proc/sys/net/ipv6/conf", interface, "disable_ipv6").write_text("0")
        run("ip", *within, "address", "add", address, "dev", interface, "nodad")
    else:
        run("ip", *within, "address", "add", address, "dev", interface)


def _without_ipv6(interface: str) -> None:
    # The kernel's own announcements would stand among the frames of a test.
    with suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv6/conf", interface, "disable_ipv6").write_text("1")
