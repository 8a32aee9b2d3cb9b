# SPDX-License-Identifier: GPL-2.0-or-later
"""Play the demo in a private host and draw what a terminal shows of two scenes, as an SVG.

    sudo make picture

Nothing is written where a promise was not kept.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from demo.scenes import SCENES, disks, frames
from demo.screen import Screen
from demo.stage import build, play, private_host

_SHOWN = (disks, frames)
_COLUMNS = 80
_CELL, _LINE, _MARGIN = 8.4, 19, 18
_BACKGROUND = "#1b1f24"
_STYLE = (
    "text{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#d6dbe1;"
    "white-space:pre}.b{font-weight:bold;fill:#fff}.g{fill:#6fcf7f}"
)
_CLASSES = {"1": "b", "32": "g"}
_COLOURED = re.compile(r"\033\[([\d;]+)m(.*?)\033\[0m", re.DOTALL)


class _Terminal(io.StringIO):
    """What is printed in colours, kept."""

    def isatty(self) -> bool:
        return True


def main(arguments: list[str]) -> int:
    """Write the picture to the path that is given. Gives the exit code: 1 on a broken promise."""
    (path,) = arguments
    shown = ""
    screen = Screen(terminal := _Terminal())
    with private_host() as host:
        stage = build(screen, *host)
        for title, scene in SCENES:
            before = len(terminal.getvalue())
            play(stage, title, scene)
            if scene in _SHOWN:
                shown += terminal.getvalue()[before:]
    if screen.broken:
        print(*screen.broken, sep="\n", file=sys.stderr)
        return 1
    Path(path).write_text(svg(shown.strip("\n").splitlines()))
    return 0


def svg(lines: list[str]) -> str:
    """A picture of a terminal with these lines, in which each colour begins and ends in its line.

    Its rows are as wide as they are in a terminal, whatever font the viewer has.
    """
    width = round(_COLUMNS * _CELL) + 2 * _MARGIN
    height = len(lines) * _LINE + 2 * _MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{_STYLE}</style>",
            f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
            *(_row(number, line) for number, line in enumerate(lines) if line),
            "</svg>\n",
        ]
    )


def _row(number: int, line: str) -> str:
    plain = _COLOURED.sub(r"\2", line)
    marked = _COLOURED.sub(
        lambda run: f'<tspan class="{_CLASSES[run[1]]}">{run[2]}</tspan>', escape(line)
    )
    baseline = _MARGIN + (number + 0.75) * _LINE
    return (
        f'<text x="{_MARGIN}" y="{baseline:g}" textLength="{len(plain) * _CELL:g}"'
        f' xml:space="preserve">{marked}</text>'
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
