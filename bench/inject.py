# SPDX-License-Identifier: GPL-2.0-or-later
"""How long it takes to put one VM's rules in, on a host that has those of few or of many."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from bench import wiring
from tests.host.command import run
from virtwarden.system.netfilter import BACKENDS

_DEFAULT_TAPS = (1, 100, 1000)
_DEFAULT_RUNS = 10
_MS = 1000


@dataclass
class Way:
    """One way to lay rules: on all taps at once, on one, and off again; seconds of each run."""

    title: str
    lay: Callable[[int], None]
    add: Callable[[int], None]
    remove: Callable[[int], None]
    seconds: dict[int, list[float]] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table of medians."""
    options = _parser().parse_args(arguments)
    ways = [
        Way("a call of ebtables a rule", wiring.nwfilter, _add_by_calls, _remove_by_calls),
        _ours("ebtables"),
        _ours("nftables"),
    ]
    for taps in options.taps:
        with wiring.wired(taps):
            for way in ways:
                way.lay(taps)
                way.seconds[taps] = [_seconds(way, taps // 2) for _ in range(options.runs)]
                wiring.clean()
    _print_table(ways, options.taps)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.inject", description=__doc__)
    parser.add_argument("--taps", type=int, nargs="+", default=_DEFAULT_TAPS)
    parser.add_argument("--runs", type=int, default=_DEFAULT_RUNS, help="of each way")
    return parser


def _ours(backend: str) -> Way:
    return Way(
        f"virt-warden, {backend}",
        partial(wiring.guard, backend),
        lambda number: BACKENDS[backend].install([wiring.promise(number)]),
        lambda number: BACKENDS[backend].remove([wiring.name(number)]),
    )


def _add_by_calls(number: int) -> None:
    for rule in wiring.nwfilter_rules(number):
        run("ebtables", "-t", "nat", *rule.split())


def _remove_by_calls(number: int) -> None:
    for rule in reversed(wiring.nwfilter_rules(number)):
        if rule.startswith("-A"):
            run("ebtables", "-t", "nat", *rule.replace("-A", "-D", 1).split())
        else:
            run("ebtables", "-t", "nat", *rule.replace("-N", "-X", 1).split())


def _seconds(way: Way, number: int) -> float:
    way.remove(number)
    began = time.perf_counter()
    way.add(number)
    return time.perf_counter() - began


def _print_table(ways: list[Way], taps: list[int]) -> None:
    print("Milliseconds to put one VM's rules in, medians.\n")
    print(f"{'VMs on the host':<28}" + "".join(f"{number:>8}" for number in taps))
    for way in ways:
        columns = (f"{median(way.seconds[number]) * _MS:8.1f}" for number in taps)
        print(f"{way.title:<28}" + "".join(columns))


if __name__ == "__main__":
    sys.exit(main())
