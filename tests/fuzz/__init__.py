# SPDX-License-Identifier: GPL-2.0-or-later
"""The two parsers that face attackers and mistakes, fed by a fuzzer that sees which way they go.

`make fuzz`: FUZZ_SECONDS for each. What it finds is kept as a unit test of the parser.
"""
