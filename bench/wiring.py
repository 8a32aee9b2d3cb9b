# SPDX-License-Identifier: GPL-2.0-or-later
"""Many taps on one bridge, as many VMs make them, for `bench.frames` and `bench.inject`."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.host.command import run
from tests.host.network import bridge, veth_port
from tests.host.tap import open_tap
from virtwarden.system.netfilter import BACKENDS, GATES, TapFilter
from virtwarden.system.taps import Tap

_INTERFACES = Path("/sys/class/net")
_OTHER_FILES = 100
# Who the frames are for, at the other port.
SINK_MAC = "52:54:00:ff:ff:ff"


def mac(number: int) -> str:
    """The MAC address of the VM of this number."""
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def name(number: int) -> str:
    """The tap of the VM of this number."""
    return f"vnet{number}"


@dataclass(frozen=True)
class Wires:
    """The taps' queues, and the port to which all frames go."""

    queues: list[int]
    port: str

    def arrived(self) -> int:
        """How many frames have gone out there."""
        return int((_INTERFACES / self.port / "statistics" / "tx_packets").read_text())


@contextmanager
def wired(taps: int) -> Iterator[Wires]:
    """A bridge with so many taps and one other port."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taps + _OTHER_FILES, most))
    with bridge("br-bench") as bridge_name, ExitStack() as opened:
        queues = []
        for number in range(taps):
            queues.append(open_tap(name(number), multi_queue=False))
            opened.callback(os.close, queues[-1])
        batch = [f"link set {name(number)} master {bridge_name} up" for number in range(taps)]
        run("ip", "-batch", "-", stdin="\n".join(batch))
        port = f"{opened.enter_context(veth_port(bridge_name))}-br"
        run("bridge", "fdb", "add", SINK_MAC, "dev", port, "master", "static")
        yield Wires(queues, port)


def promise(number: int) -> TapFilter:
    """What virt-warden promises of a VM by default."""
    return TapFilter(
        name(number),
        mac(number),
        deny_mac_spoofing=True,
        deny_arp_spoofing=True,
        deny_vlan_tags=True,
    )


def guard(backend: str, taps: int) -> None:
    """Our filters on all taps, and our gate."""
    indices = [int((_INTERFACES / name(n) / "ifindex").read_text()) for n in range(taps)]
    gate = GATES[backend]
    gate.perform(gate.raising([Tap(name(n), index) for n, index in enumerate(indices)], []))
    BACKENDS[backend].install([promise(number) for number in range(taps)])


def nwfilter(taps: int) -> None:
    """What libvirt's filterref to no-mac-spoofing and no-arp-mac-spoofing lays."""
    lines = [line for number in range(taps) for line in nwfilter_rules(number)]
    run("ebtables-restore", "--noflush", stdin="\n".join(["*nat", *lines, ""]))


def nwfilter_rules(number: int) -> Sequence[str]:
    """One tap's rules, in libvirt's chains (nwfilter_ebiptables_driver.c), for ebtables."""
    tap, root = name(number), f"libvirt-I-{name(number)}"
    chains = {"mac": f"I-{tap}-mac", "arp": f"I-{tap}-arp-mac"}
    return [
        f"-N {root}",
        *(f"-N {chain}" for chain in chains.values()),
        f"-A {chains['mac']} -s {mac(number)} -j RETURN",
        f"-A {chains['mac']} -j DROP",
        f"-A {chains['arp']} -p ARP --arp-mac-src {mac(number)} -j RETURN",
        f"-A {chains['arp']} -j DROP",
        f"-A {root} -j {chains['mac']}",
        f"-A {root} -p ARP -j {chains['arp']}",
        f"-A PREROUTING -i {tap} -j {root}",
    ]


def nothing(_taps: int) -> None:
    """No filter."""


def clean() -> None:
    """Take all rules away, of whichever kind."""
    run("nft", "flush", "ruleset")
