# SPDX-License-Identifier: GPL-2.0-or-later
"""Hears when somebody changes the kernel's rules, and restores ours at once.

A thread of its own does that: what listens to libvirt can wait long for an answer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from virtwarden import log
from virtwarden.changes import restoring
from virtwarden.changes.restoring import Kind
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.system import nftlink
from virtwarden.system.nftlink import (
    BRIDGE,
    INET,
    IPV4,
    IPV6,
    NETDEV,
    Events,
    Generation,
    Touched,
)
from virtwarden.watch import alive, former
from virtwarden.watch.pace import Pace

_OURS = {
    (NETDEV, "virt-warden"): Kind.TAPS,
    (BRIDGE, "virt-warden"): Kind.TAPS,
    # Those of ebtables and of iptables.
    (BRIDGE, "nat"): Kind.TAPS,
    (BRIDGE, "filter"): Kind.TAPS,
    (IPV4, "filter"): Kind.CONSOLES,
    (IPV6, "filter"): Kind.CONSOLES,
    (INET, "vmw-reach"): Kind.REACH,
}
_CONSOLE = "vmw-console-"
# The legacy versions of ebtables and iptables tell nobody, so there is a look without a notice too.
_LOOK_SECONDS = 60
_ALONE_SECONDS = 1
_AFTER_FAILURE_SECONDS = 10
# A tap can go at the very moment, and the kernel then takes none of the rules.
_TRIES = 3


def keep(paths: Paths, restored: Callable[[], None], beat: Callable[[], None]) -> None:
    """Keep the rules in a thread, as long as this process lives.

    Calls `restored` there after taps' rules were restored: the taps that only libvirt knows of have
    to be admitted again. Calls `beat` every few seconds.
    """
    threading.Thread(target=_keep, args=(paths, restored, beat), name="rules", daemon=True).start()


def _keep(paths: Paths, restored: Callable[[], None], beat: Callable[[], None]) -> None:
    former.note(paths)
    told = ""
    while True:
        try:
            with nftlink.listening() as events, alive.watching(paths):
                keeper = Keeper(paths, events, restored, os.getppid())
                while True:
                    beat()
                    keeper.step(_ALONE_SECONDS)
        except Exception as error:  # noqa: BLE001 - nobody else would restore anything
            if repr(error) != told:
                told = repr(error)
                log.event(log.Level.CRITICAL, "failed", op="restore", reason=told)
        for _ in range(_AFTER_FAILURE_SECONDS):
            beat()
            time.sleep(1)


class Keeper:
    """Restores what generations of nftables took away; those of `service` and ours are honest."""

    def __init__(
        self, paths: Paths, events: Events, restored: Callable[[], None], service: int
    ) -> None:
        self._paths = paths
        self._events = events
        self._restored = restored
        self._service = service
        self._pace = Pace()
        self._shut_pace = Pace()
        self._due: set[Kind] = set()
        self._closely: set[str] = set()
        self._is_gate_gone = False
        self._by: dict[str, None] = {}
        self._looked_at = float("-inf")
        self._failures = 0

    def step(self, seconds: float) -> None:
        """Wait for a generation, no longer than this, and restore what is missing."""
        now = time.monotonic()
        if self._events.wait(min(self._pace.rest(now), seconds) if self._due else seconds):
            self._shut()
            self._note(self._events.read())
        now = time.monotonic()
        if now >= self._looked_at + _LOOK_SECONDS:
            self._looked_at = now
            self._due |= set(Kind)
        if self._is_gate_gone:
            self._due.add(Kind.TAPS)
        if self._due and not self._pace.rest(now):
            self._look()

    def _shut(self) -> None:
        """Close the gate before anything else: to read of thousands of removed rules takes time."""
        if self._shut_pace.rest(time.monotonic()):
            return
        began = _cpu_seconds()
        with suppress(WardenError, OSError):  # the look that follows tries again, and tells of it
            self._is_gate_gone |= restoring.shut_if_gone(self._paths)
        self._shut_pace.note_look(time.monotonic(), _cpu_seconds() - began)

    def _note(self, generations: Iterable[Generation]) -> None:
        own: frozenset[int] | None = None
        for each in generations:
            kinds = set(Kind) if each.is_lost else {*map(_kind, each.touched)} - {None}
            if not kinds:
                continue
            own = nftlink.own_ports() if own is None else own
            if each.port in own or _is_child(each.pid, self._service):
                continue
            self._due |= {kind for kind in kinds if kind}
            self._closely |= {_console(touched) for touched in each.touched} - {""}
            self._by[str(each)] = None

    def _look(self) -> None:
        began, used = time.monotonic(), _cpu_seconds()
        kinds, closely, by = self._due, self._closely, ",".join(self._by) or "unknown"
        self._due, self._closely, self._by = set(), set(), {}
        try:
            lost = restoring.restore_missing(
                self._paths, kinds, closely, is_gate_gone=self._is_gate_gone
            )
        except (WardenError, OSError) as error:
            self._due |= kinds
            self._closely |= closely
            self._by |= dict.fromkeys(by.split(","))
            self._note_failure(str(error))
            return
        self._failures = 0
        self._is_gate_gone = False
        ended = time.monotonic()
        self._pace.note_look(ended, _cpu_seconds() - used)
        if lost:
            self._tell(lost, by, ended, ended - began)
            if Kind.TAPS in lost:
                self._restored()

    def _tell(self, lost: dict[Kind, str], by: str, now: float, seconds: float) -> None:
        self._pace.note_restored(now)
        if not self._pace.is_often:
            log.event(
                log.Level.WARNING,
                "restored",
                by=by,
                rules=",".join(kind.value for kind in lost),
                reason="; ".join(lost.values()),
                ms=round(seconds * 1000),
            )
        elif self._pace.is_to_tell(now):
            log.event(log.Level.CRITICAL, "contested", by=by, times=self._pace.in_a_minute)

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures == _TRIES:
            log.event(log.Level.CRITICAL, "failed", op="restore", reason=reason)
        if self._failures >= _TRIES:
            self._pace.note_look(time.monotonic(), _ALONE_SECONDS)


def _cpu_seconds() -> float:
    """What this thread has used of CPUs, and every command that has ended."""
    times = os.times()
    return time.thread_time() + times.children_user + times.children_system


def _kind(touched: Touched) -> Kind | None:
    if touched.family == INET and touched.table.startswith(_CONSOLE):
        return Kind.CONSOLES
    return _OURS.get((touched.family, touched.table))


def _console(touched: Touched) -> str:
    """The domain whose console's rules these are; empty where they are of something else."""
    is_ours = touched.family == INET and touched.table.startswith(_CONSOLE)
    return touched.table.removeprefix(_CONSOLE) if is_ours else ""


def _is_child(pid: int, parent: int) -> bool:
    """Whether a process is a child of the service, and so one of its workers (proc(5), stat)."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return pid == os.getpid() or int(fields[1]) == parent
    return False
