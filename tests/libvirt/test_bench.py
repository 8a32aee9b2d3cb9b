# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench` measures what it says."""

from __future__ import annotations

import re
import sys

from tests.host.command import run

PRIVATE_HOST = (sys.executable, "-B", "-m", "tests.host", "--")


def test_the_bench_measures_every_way_against_libvirts_own() -> None:
    done = run(*PRIVATE_HOST, sys.executable, "-B", "-m", "bench.start", "--runs", "1")
    rows = re.findall(r"^(\w.*?)  +(\d+) +([\d.]+)x.*x$", done.stdout, re.MULTILINE)
    ways = ["libvirt, no hook", "an empty Python hook", "filterref clean-traffic"]
    ours = ["virt-warden, its hook alone", "virt-warden, its service", "adopted, with a new user"]
    assert [title for title, _, _ in rows] == [*ways, *ours]
    (_, plain, _), *_ = rows
    for _, milliseconds, ratio in rows:
        assert abs(int(milliseconds) / int(plain) - float(ratio)) < 0.02


def bench(name: str) -> dict[str, list[float]]:
    """The figures of each way, by its title; those of the taps come first."""
    words = ("--taps", "1", "3", "--runs", "1")
    done = run(*PRIVATE_HOST, sys.executable, "-B", "-m", f"bench.{name}", *words)
    rows = re.findall(r"^(\S.*?)  +([\d. ]+)$", done.stdout, re.MULTILINE)
    return {title: [float(word) for word in figures.split()] for title, figures in rows}


def test_the_bench_of_frames_measures_every_filter_against_none() -> None:
    (_, taps), (_, plain), *filters = bench("frames").items()
    assert taps == [1, 3]
    assert [plain[1], plain[3]] == [1, 1]
    assert len(filters) == 3
    for _, (rate, ratio, *_others) in filters:
        assert abs(rate / plain[0] - ratio) < 0.01


def test_the_bench_of_rules_measures_every_way_to_put_them_in() -> None:
    (_, taps), *ways = bench("inject").items()
    assert taps == [1, 3]
    assert [title.split(", ")[-1] for title, _ in ways][1:] == ["ebtables", "nftables"]
    assert all(milliseconds > 0 for _, figures in ways for milliseconds in figures)


def test_the_bench_of_flushes_measures_how_long_a_forged_frame_passes() -> None:
    words = ("--taps", "1", "3", "--flushes", "2")
    done = run(*PRIVATE_HOST, sys.executable, "-B", "-m", "bench.heal", *words)
    rows = re.findall(r"^(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
    assert [taps for taps, *_ in rows] == ["1", "3"]
    assert all(0 <= float(median) <= float(worst) for _, median, _, worst in rows)
