"""Run every scene in a private host; 1 where a promise was not kept."""

from __future__ import annotations

import sys
import time

from demo.scenes import SCENES
from demo.screen import Screen
from demo.stage import stage
from tests.host.command import CommandFailedError


def main() -> int:
    """Play all scenes, in order. Gives the exit code."""
    screen = Screen(sys.stdout)
    began = time.monotonic()
    screen.say("Installing this checkout in namespaces of its own: your host is not touched.")
    with stage(screen) as host:
        for title, scene in SCENES:
            screen.title(title)
            try:
                scene(host)
            except (CommandFailedError, OSError) as error:
                screen.promise(f"the scene was played to its end, but: {error}", kept=False)
    screen.verdict(time.monotonic() - began)
    return 1 if screen.broken else 0


if __name__ == "__main__":
    sys.exit(main())
