"""What libvirt calls at each step of a domain's life; https://libvirt.org/hooks.html."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import BinaryIO, TextIO

from virtwarden import log
from virtwarden.errors import DomainError, PolicyError, WardenError
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Rules, last_good, load
from virtwarden.words import printable

# A refusal at these steps keeps the domain from starting; later ones come too late for that.
_REFUSABLE = ("migrate", "restore", "prepare", "start")
_AFTERWARDS = ("started", "reconnect")


def main(
    arguments: list[str],
    stdin: BinaryIO,
    stdout: BinaryIO,
    stderr: TextIO,
    paths: Paths | None = None,
) -> int:
    """Answer libvirt's call `NAME OP SUBOP EXTRA`, with the domain's XML on stdin.

    Gives the exit code: not 0 only to refuse a start, with one line on stderr, which libvirt
    shows to whoever asked for the start. Steps that are not known are passed.
    """
    name, op = (*arguments, "", "")[:2]
    paths = paths or Paths()
    try:
        if op == "release":
            _release(paths, stdin)
        elif op in _REFUSABLE + _AFTERWARDS:
            _guard(paths, name, op, stdin, stdout)
    except WardenError as error:
        return _fail(name, op, str(error), stderr)
    except Exception as error:  # noqa: BLE001 - a bug of ours must end in a line, not in a trace
        fix = "report this; meanwhile: virt-warden unenrol, and managed = [] in the policy"
        return _fail(name, op, f"internal error: {error!r}; to mend: {fix}", stderr)
    return 0


def _release(paths: Paths, stdin: BinaryIO) -> None:
    """Needs no policy: what was done is undone, whatever the policy says by now."""
    from virtwarden.domain import read

    domain = read(_input(stdin))
    if paths.domain_state(domain.uuid).exists():
        from virtwarden import lifecycle

        lifecycle.release(paths, domain.uuid, domain.name)


def _guard(paths: Paths, name: str, op: str, stdin: BinaryIO, stdout: BinaryIO) -> None:
    policy = _policy(paths, name)
    if not policy.manages(name):
        return
    rules = policy.rules_for(name)
    if op in ("migrate", "restore"):
        _enrol_in_passing(paths, rules, stdin, stdout)
    else:
        _take_step(paths, rules, op, _input(stdin))


def _policy(paths: Paths, name: str) -> Policy:
    """The policy; where it is broken, the last good one, for a domain that that one lets pass."""
    try:
        return load(paths)
    except PolicyError as error:
        former = last_good(paths)
        if former is None:
            raise
        if former.manages(name) and former.rules_for(name).mode is Mode.ENFORCING:
            raise
        log.event(log.Level.WARNING, "broken-policy", domain=name, reason=error)
        return former


def _take_step(paths: Paths, rules: Rules, op: str, xml: bytes) -> None:
    # Imported here: a domain that is not managed does not pay for it.
    from virtwarden import lifecycle
    from virtwarden.domain import read
    from virtwarden.facts import HostFacts
    from virtwarden.guards.base import Case, Op

    steps: Mapping[str, tuple[Op, Callable[[Case], None]]] = {
        "prepare": (Op.PREPARE, lifecycle.prepare),
        "start": (Op.START, lifecycle.start),
        "started": (Op.STARTED, lifecycle.started),
        "reconnect": (Op.STARTED, lifecycle.reconnect),
    }
    step, act = steps[op]
    act(Case(step, read(xml), rules, HostFacts(paths), paths))


def _enrol_in_passing(paths: Paths, rules: Rules, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """A saved or migrated domain comes with the XML it had: answer with the enrolled one.

    At these two steps alone libvirt takes the domain's XML from the hook's stdout.
    """
    from virtwarden.enrolment import enrol_xml

    stdout.write(enrol_xml(_input(stdin), rules.user_prefix, paths))


def _input(stdin: BinaryIO) -> bytes:
    from virtwarden.domain import XML_LIMIT_BYTES

    xml = stdin.read(XML_LIMIT_BYTES + 1)
    if not xml:
        raise DomainError("libvirt gave no XML on stdin", fix="do not call the hook by hand")
    return xml


def _fail(name: str, op: str, reason: str, stderr: TextIO) -> int:
    if op not in _REFUSABLE:
        log.event(log.Level.CRITICAL, "failed", domain=name, op=op, reason=reason)
        return 0
    log.event(log.Level.ERROR, "refused", domain=name, op=op, reason=reason)
    line = " ".join(f"virt-warden refuses {name}: {reason}".split())
    stderr.write(f"{printable(line)}\n")
    return 1


def run() -> int:
    """`main` as the installed hook calls it."""
    return main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr)
