"""Play every scene in a private host; 1 where a promise was not kept."""

from __future__ import annotations

import sys
import time

from demo.scenes import SCENES
from demo.screen import Screen
from demo.stage import build, play, private_host


def main() -> int:
    """Play all scenes, in order. Gives the exit code."""
    screen = Screen(sys.stdout)
    began = time.monotonic()
    screen.say("Two virtual machines in their own namespaces: your host is not changed.")
    with private_host() as host:
        stage = build(screen, *host)
        for title, scene in SCENES:
            play(stage, title, scene)
    screen.verdict(time.monotonic() - began)
    return 1 if screen.broken else 0


if __name__ == "__main__":
    sys.exit(main())
