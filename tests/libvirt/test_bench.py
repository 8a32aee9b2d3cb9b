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
    ours = ["virt-warden, its hook alone", "virt-warden, its service"]
    assert [title for title, _, _ in rows] == [*ways, *ours]
    (_, plain, _), *_ = rows
    for _, milliseconds, ratio in rows:
        assert abs(int(milliseconds) / int(plain) - float(ratio)) < 0.02
