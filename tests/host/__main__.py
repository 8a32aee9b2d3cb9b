# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -m tests.host [--] COMMAND ARGUMENT…` runs COMMAND in a private host."""

from __future__ import annotations

import sys

from tests.host.namespace import main

sys.exit(main(sys.argv[1:]))
