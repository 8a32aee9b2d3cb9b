# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a forged frame passes after somebody flushed the kernel's rules, with few VMs and many.

A tap sends frames with another machine's source address without a break, as a guest would that
waits for its chance. `nft flush ruleset` takes all rules away, virt-warden.service restores them.
The time is from the first frame that passes to the last one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median
from uuid import NAMESPACE_DNS, uuid5

from bench import wiring
from tests.host.frames import ETHERTYPE_EXPERIMENT, ethernet
from tests.host.install import install
from tests.host.service import service
from virtwarden import gate
from virtwarden.paths import Paths
from virtwarden.system.nft import NFT

_DEFAULT_TAPS = (1, 100)
_DEFAULT_FLUSHES = 200
# After a restoration the service rests, at most for this long with so few VMs.
_BETWEEN_SECONDS = 0.5
# It is over when nothing has passed for this long.
_QUIET_SECONDS = 0.1
_TOO_LONG_SECONDS = 30
_MS = 1000
_VICTIM = "52:54:00:ee:ee:ee"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table."""
    options = _parser().parse_args(arguments)
    install()
    seconds = {taps: _measure(taps, options.flushes) for taps in options.taps}
    _print_table(seconds, options.flushes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.heal", description=__doc__)
    parser.add_argument("--taps", type=int, nargs="+", default=_DEFAULT_TAPS)
    parser.add_argument("--flushes", type=int, default=_DEFAULT_FLUSHES)
    return parser


def _measure(taps: int, flushes: int) -> list[float]:
    paths = Paths()
    domains = [str(uuid5(NAMESPACE_DNS, wiring.name(number))) for number in range(taps)]
    with wiring.wired(taps) as wires:
        for number, domain in enumerate(domains):
            promises = [wiring.promise(number)]
            gate.install(paths, domain, "nftables", "nftables", (), promises)
        try:
            with service():
                frame = ethernet(_VICTIM, wiring.SINK_MAC, ETHERTYPE_EXPERIMENT, b"")
                queue = wires.queues[taps // 2]
                return [_seconds_open(wires, queue, frame) for _ in range(flushes)]
        finally:
            for number, domain in enumerate(domains):
                gate.uninstall(paths, domain, [wiring.name(number)], [wiring.name(number)])


def _seconds_open(wires: wiring.Wires, queue: int, frame: bytes) -> float:
    """Flush once; how long the frame passed."""
    time.sleep(_BETWEEN_SECONDS)
    before = _until_quiet(wires, queue, frame, None)
    if before:
        raise RuntimeError("a forged frame passed before the flush")
    with subprocess.Popen([NFT, "flush", "ruleset"]) as flush:
        return _until_quiet(wires, queue, frame, flush)


def _until_quiet(
    wires: wiring.Wires, queue: int, frame: bytes, flush: subprocess.Popen[bytes] | None
) -> float:
    began = quiet_since = time.perf_counter()
    first = last = 0.0
    seen = wires.arrived()
    while (now := time.perf_counter()) < began + _TOO_LONG_SECONDS:
        os.write(queue, frame)
        if (arrived := wires.arrived()) != seen:
            seen, last, quiet_since = arrived, now, now
            first = first or now
        if flush is not None and flush.poll() is None:
            quiet_since = now
        if now > quiet_since + _QUIET_SECONDS:
            return last - first
    raise RuntimeError(f"forged frames pass for more than {_TOO_LONG_SECONDS} s")


def _print_table(seconds: dict[int, list[float]], flushes: int) -> None:
    print(f"Milliseconds in which a forged frame passed, of {flushes} flushes each.\n")
    print(f"{'VMs on the host':<20}{'median':>10}{'9 of 10':>10}{'worst':>10}")
    for taps, found in seconds.items():
        nine_of_ten = sorted(found)[len(found) * 9 // 10 - 1]
        columns = (median(found), nine_of_ten, max(found))
        print(f"{taps:<20}" + "".join(f"{value * _MS:>10.1f}" for value in columns))


if __name__ == "__main__":
    sys.exit(main())
