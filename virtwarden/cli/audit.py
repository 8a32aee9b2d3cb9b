# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden audit`: how the host and every VM stand against the threat model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from virtwarden import gate
from virtwarden.audit import collect
from virtwarden.audit.report import EXIT_CODES, report_on
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system import files


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"Exit code: {EXIT_CODES}."
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--html", type=Path, metavar="FILE", help="one page, for an auditor")
    how.add_argument(
        "--prometheus",
        type=Path,
        metavar="FILE",
        help="for the node exporter, such as /var/lib/prometheus/node-exporter/virt-warden.prom",
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    policy = load(paths)
    cases = collect.cases(paths, policy)
    report = report_on(collect.items(paths, policy, cases), policy)
    if options.html:
        from virtwarden.audit.report import html

        _write(options.html, html.render(report), mode=0o600)
    elif options.prometheus:
        from virtwarden.audit.report import prometheus

        names = {case.domain.uuid: case.domain.name for case, _ in cases}
        text_format = prometheus.render(report, gate.look_at_drops(paths), names)
        _write(options.prometheus, text_format, mode=0o644)
    elif options.json:
        from virtwarden.audit.report import json

        print(json.render(report))
    else:
        from virtwarden.audit.report import text

        sys.stdout.write(text.render(report))
    return report.exit_code


def _write(file: Path, content: str, mode: int) -> None:
    """Replace a former file, whole or not at all: a collector may read it at any time."""
    try:
        files.write_atomically(file.absolute(), content.encode(), mode)
    except OSError as error:
        fix = f"see whether there is a directory {file.parent}; the node exporter's comes with it"
        raise HostError(f"{file} cannot be written: {error.strerror}", fix=fix) from None
