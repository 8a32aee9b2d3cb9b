# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain that nobody enrolled, as it would be if it were enrolled: so guards see all alike.

libvirt has no label for it, but has taken virt-warden's wrapper as its emulator, because that is
first on the PATH of libvirt's daemon. The wrapper asks for the user that is named here.
"""

from __future__ import annotations

from virtwarden.changes import starts
from virtwarden.domain.model import Display, Domain, read
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.guards import ticket
from virtwarden.guards.displays import listens_nowhere
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Rules, Via


def uses_wrapper(domain: Domain, paths: Paths) -> bool:
    """Whether libvirt executes the wrapper of this domain's architecture."""
    name = ticket.wrapper_path(paths, domain.arch).rpartition("/")[2]
    return domain.emulator in (f"{paths.wrapper_dir}/{name}", f"{paths.emulators}/{name}")


def is_due(domain: Domain, paths: Paths) -> bool:
    """Whether a start of this domain gets its user only when libvirt has executed the wrapper."""
    labels = [label for label in domain.labels if (label.model, label.kind) == ("dac", "static")]
    return uses_wrapper(domain, paths) and not domain.enrolment and not labels


def as_started(
    untrusted_xml: bytes, domain: Domain, rules: Rules, paths: Paths, *, runs: bool = False
) -> tuple[Domain, bool]:
    """The domain as its guards see it, and whether it is adopted: its start gives it its user.

    `domain` is what its XML says. Where it `runs`, its console is as its start made it, whatever
    the policy says since.

    An adopted one has its user and its base images here; its boot files stay those that libvirt
    gives to QEMU. Raises as `enrol_xml` does.
    """
    is_left = rules.mode is Mode.DISABLED or starts.is_as_it_is(paths, domain.uuid)
    if is_left or not is_due(domain, paths):
        return domain, False
    via = _via_of_its_run(paths, domain) if runs else rules.via
    return read(enrol_xml(untrusted_xml, rules.user_prefix, paths, copies=False, via=via)), True


def _via_of_its_run(paths: Paths, domain: Domain) -> Via:
    return "libvirt" if ticket.closed_ports(paths, domain.uuid) else "port"


def closed_displays(written: Domain, domain: Domain) -> tuple[Display, ...]:
    """The displays that libvirt gives a port, and that have none in the domain as guards see it.

    libvirt cannot be told any more: the wrapper takes the port away.
    """
    pairs = zip(written.displays, domain.displays, strict=False)
    return tuple(
        libvirts
        for libvirts, seen in pairs
        if listens_nowhere(seen) and not listens_nowhere(libvirts)
    )
