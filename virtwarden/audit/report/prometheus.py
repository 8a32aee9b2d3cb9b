# SPDX-License-Identifier: GPL-2.0-or-later
"""For the node exporter's textfile collector (Prometheus text format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from virtwarden.audit.item import Item, Severity, State
from virtwarden.audit.report import Report
from virtwarden.drops import Drops


def render(
    report: Report, dropped: Iterable[Drops] = (), names: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Gauges: items by severity and state, each bad or unknown item, and the exit code.

    And a counter: the frames that were dropped. `names` has the domains' names by UUID.
    """
    counts = Counter((item.severity, item.state) for item in report.items)
    lines = [
        "# HELP virt_warden_audit_items Items of the last audit, by severity and state.",
        "# TYPE virt_warden_audit_items gauge",
        *(
            f'virt_warden_audit_items{{severity="{severity.word}",state="{state.value}"}}'
            f" {counts[severity, state]}"
            for severity in Severity
            for state in State
        ),
        "# HELP virt_warden_audit_amiss An item that is bad or unknown; 1 (low) to 4 (critical).",
        "# TYPE virt_warden_audit_amiss gauge",
        *(
            f'virt_warden_audit_amiss{{id="{_label(item.id)}",subject="{_label(item.subject)}",'
            f'state="{item.state.value}",title="{_label(item.title)}"}} {item.severity.value}'
            for item in _once(report)
        ),
        "# HELP virt_warden_audit_exit_code What `virt-warden audit` exits with.",
        "# TYPE virt_warden_audit_exit_code gauge",
        f"virt_warden_audit_exit_code {report.exit_code}",
        "# HELP virt_warden_dropped_frames_total Frames of a NIC that a promise dropped.",
        "# TYPE virt_warden_dropped_frames_total counter",
        *(
            f'virt_warden_dropped_frames_total{{domain="{_label(names.get(each.domain, ""))}",'
            f'uuid="{each.domain}",nic="{each.nic}",promise="{each.promise}"}} {each.frames}'
            for each in dropped
        ),
    ]
    return "\n".join(lines) + "\n"


def _once(report: Report) -> Iterable[Item]:
    """The worst item of each id, subject and state.

    A collector that finds the same labels twice rejects the whole file.
    """
    worst: dict[tuple[str, str, State], Item] = {}
    for item in report.amiss:
        worst.setdefault((item.id, item.subject, item.state), item)
    return worst.values()


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
