# SPDX-License-Identifier: GPL-2.0-or-later
"""What a frame costs under each filter: frames a second out of one tap, with few taps and many.

A frame goes from a tap, as though a guest had sent it, over the bridge to another port. The tap is
the one in the middle, for filters that try one VM's rules after the other. Runs are interleaved.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from bench import wiring
from tests.host.frames import ETHERTYPE_EXPERIMENT, ethernet

_DEFAULT_TAPS = (1, 100, 1000)
_DEFAULT_RUNS = 5
_RUN_SECONDS = 0.5
# Between two looks at the clock.
_BURST = 100
_TOO_LONG_SECONDS = 30


@dataclass
class Way:
    """One filter, and the frames a second of each run by the number of taps."""

    title: str
    lay: Callable[[int], None]
    rates: dict[int, list[float]] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table of medians and of ratios to no filter."""
    options = _parser().parse_args(arguments)
    ways = [
        Way("no filter", wiring.nothing),
        Way("ebtables, as nwfilter's", wiring.nwfilter),
        Way("virt-warden, ebtables", partial(wiring.guard, "ebtables")),
        Way("virt-warden, nftables", partial(wiring.guard, "nftables")),
    ]
    for taps in options.taps:
        with wiring.wired(taps) as wires:
            _measure_all(ways, taps, wires, options.runs)
    _print_table(ways, options.taps)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.frames", description=__doc__)
    parser.add_argument("--taps", type=int, nargs="+", default=_DEFAULT_TAPS)
    parser.add_argument("--runs", type=int, default=_DEFAULT_RUNS, help="of each way")
    return parser


def _measure_all(ways: list[Way], taps: int, wires: wiring.Wires, runs: int) -> None:
    frame = ethernet(wiring.mac(taps // 2), wiring.SINK_MAC, ETHERTYPE_EXPERIMENT, b"")
    for number in range(runs):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            way.lay(taps)
            way.rates.setdefault(taps, []).append(_rate(wires, taps // 2, frame))
            wiring.clean()


def _rate(wires: wiring.Wires, number: int, frame: bytes) -> float:
    """Frames a second, each burst of which arrived before the next is sent."""
    queue, before, sent = wires.queues[number], wires.arrived(), 0
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < _RUN_SECONDS:
        for _ in range(_BURST):
            os.write(queue, frame)
        sent += _BURST
        # The kernel's queue before a port holds 1000 (net.core.netdev_max_backlog).
        while wires.arrived() - before < sent:
            if time.perf_counter() - began > _TOO_LONG_SECONDS:
                raise RuntimeError("frames were lost: no result")
    return sent / seconds


def _print_table(ways: list[Way], taps: list[int]) -> None:
    print("Frames a second: medians, and their ratio to no filter.\n")
    print(f"{'taps':<26}" + "".join(f"{number:>16}" for number in taps))
    plain, *_ = ways
    for way in ways:
        columns = (_column(way.rates[number], plain.rates[number]) for number in taps)
        print(f"{way.title:<26}" + "".join(columns))


def _column(rates: list[float], plain: list[float]) -> str:
    return f"{median(rates):10.0f} {median(rates) / median(plain):5.2f}"


if __name__ == "__main__":
    sys.exit(main())
