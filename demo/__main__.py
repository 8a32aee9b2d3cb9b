# SPDX-License-Identifier: GPL-2.0-or-later
"""Play every scene in a private host; 1 where a promise was not kept.

With `--installed`, virt-warden is not the checkout's but the one that the host has installed.
"""

from __future__ import annotations

import argparse
import sys
import time

from demo.scenes import SCENES
from demo.screen import Screen
from demo.stage import build, play, private_host


def main(arguments: list[str] | None = None) -> int:
    """Play all scenes, in order. Gives the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--installed", action="store_true", help="show the installed package")
    told = parser.parse_args(arguments or [])
    screen = Screen(sys.stdout)
    began = time.monotonic()
    screen.say("Two virtual machines in their own namespaces: your host is not changed.")
    with private_host(installed=told.installed) as host:
        stage = build(screen, *host)
        for title, scene in SCENES:
            play(stage, title, scene)
    screen.verdict(time.monotonic() - began)
    return 1 if screen.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
