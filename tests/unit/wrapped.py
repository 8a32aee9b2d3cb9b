# SPDX-License-Identifier: GPL-2.0-or-later
"""The wrapper's files, which import each other by their bare names as they do where they lie."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

WRAPPER = Path(__file__).parents[2] / "wrapper"

sys.path.insert(0, str(WRAPPER))
try:
    argv: Any = importlib.import_module("argv")
    calls: Any = importlib.import_module("calls")
    consoles: Any = importlib.import_module("consoles")
    hostfiles: Any = importlib.import_module("hostfiles")
    kernel: Any = importlib.import_module("kernel")
    landlock: Any = importlib.import_module("landlock")
    outside: Any = importlib.import_module("outside")
    process: Any = importlib.import_module("process")
    qemu_system: Any = importlib.import_module("qemu_system")
    refusal: Any = importlib.import_module("refusal")
    review: Any = importlib.import_module("review")
    ticket: Any = importlib.import_module("ticket")
    tpm: Any = importlib.import_module("tpm")
    vocabulary: Any = importlib.import_module("vocabulary")
finally:
    sys.path.remove(str(WRAPPER))
