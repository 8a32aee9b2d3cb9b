# SPDX-License-Identifier: GPL-2.0-or-later
"""Reviews, once, the domains that were on the host when virt-warden was installed.

What started before the installation must start after it. So a domain that enforcing mode would
refuse becomes permissive, with the reasons beside it, until somebody has set it right.

It reads libvirt's files and does not ask libvirt, which may not run, or may hang. On a system that
is not up, such as an image that is being built, guards would judge another host than the one that
will run these domains. There the first start of the service does it, before libvirtd starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from virtwarden import log
from virtwarden.domain.model import read
from virtwarden.errors import DomainError, HostError, WardenError
from virtwarden.nextstart import foresee, try_owners
from virtwarden.package import daemon
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Rules, load
from virtwarden.policy.found import Found, added
from virtwarden.policy.source import FILE_LIMIT_BYTES
from virtwarden.system import files
from virtwarden.words import shown

Say = Callable[[str], None]

_MODE = 0o644


@dataclass(frozen=True)
class Review:
    """How many domains were looked at, and those that enforcing mode would refuse."""

    count: int
    found: tuple[Found, ...]


def make_due(paths: Paths) -> None:
    """Have the domains reviewed: virt-warden was not here before.

    The package's preinst does the same where it was removed.
    """
    files.private_directory(paths.state)
    files.write_atomically(paths.review_due, b"", 0o600, durable=True)


def review_on_this_host(paths: Paths, say: Say, warn: Say) -> None:
    """`review_if_due`, where this system is up; otherwise say when it will be done."""
    if not paths.review_due.exists() or daemon.host_is_up(paths):
        review_if_due(paths, say, warn)
    elif any(paths.libvirt_config.glob("*.xml")):
        say(
            "the domains of this host are reviewed when virt-warden.service starts for the first"
            " time; without systemd: virt-warden package configure, once libvirt runs"
        )


def review_if_due(paths: Paths, say: Say, warn: Say) -> None:
    """Review all domains, once, and write down those that enforcing mode would refuse.

    `say` and `warn` get the lines for the admin. Where the policy cannot be used, or the file not
    be written, it stays due.
    """
    if not paths.review_due.exists():
        return
    try:
        done = _review(paths, load(paths))
        _write_down(paths, done.found)
        policy = load(paths, store=True)
    except Exception as error:  # noqa: BLE001 - the installation goes on
        what = error if isinstance(error, WardenError | OSError) else repr(error)
        warn(f"the domains are not reviewed yet: {what}; then: virt-warden package configure")
        return
    paths.review_due.unlink(missing_ok=True)
    for line in _told(paths, done):
        say(line)
    for line in _overruled(policy, done.found):
        warn(line)


def _review(paths: Paths, policy: Policy) -> Review:
    """Look at each domain that libvirt keeps and the policy has in enforcing mode."""
    count, found = 0, []
    for file in sorted(paths.libvirt_config.glob("*.xml")):
        try:
            xml = file.read_bytes()
        except OSError:
            continue  # undefined meanwhile
        name = _name(xml, file.stem)
        rules = policy.rules_for(name)
        if not policy.manages(name) or rules.mode is not Mode.ENFORCING:
            continue
        count += 1
        reasons = _reasons(paths, rules, xml)
        if reasons:
            found.append(Found(name, reasons))
            log.event(log.Level.WARNING, "found", domain=name, reason="; also ".join(reasons))
    return Review(count, tuple(found))


def _name(untrusted_xml: bytes, otherwise: str) -> str:
    try:
        return read(untrusted_xml).name
    except DomainError:
        return otherwise


def _reasons(paths: Paths, rules: Rules, untrusted_xml: bytes) -> tuple[str, ...]:
    try:
        against = (*foresee(paths, rules, untrusted_xml).reasons, *try_owners(rules, untrusted_xml))
    except WardenError as error:
        against = (error,)
    except Exception as error:  # noqa: BLE001 - what cannot be reviewed must start all the same
        against = (HostError(f"it cannot be reviewed: {error!r}", fix="report this"),)
    return tuple(dict.fromkeys(map(str, against)))


def _write_down(paths: Paths, found: tuple[Found, ...]) -> None:
    if not found:
        return
    text = paths.found.read_text() if paths.found.exists() else ""
    new = added(text, found, paths.found, FILE_LIMIT_BYTES)
    if new != text:
        paths.policy_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.write_atomically(paths.found, new.encode(), _MODE, durable=True)


def _told(paths: Paths, done: Review) -> Iterator[str]:
    if not done.count:
        return
    if not done.found:
        yield f"all {done.count} domains of this host can start in enforcing mode"
        return
    names = " ".join(shown(each.name) for each in done.found)
    yield f"{len(done.found)} of {done.count} domains would be refused in enforcing mode: {names}"
    yield f"they are permissive, and start as before: {paths.found}"
    yield "next: virt-warden check says what to do for each, and then: virt-warden graduate NAME"


def _overruled(policy: Policy, found: tuple[Found, ...]) -> Iterator[str]:
    for each in found:
        rules = policy.rules_for(each.name)
        if rules.mode is Mode.ENFORCING:
            yield (
                f"{shown(each.name)} stays enforcing, as {rules.where('mode')} says: its next start"
                f" is refused (virt-warden explain {shown(each.name)})"
            )
