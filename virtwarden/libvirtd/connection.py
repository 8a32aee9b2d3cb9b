# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to the host's libvirt, and its domains. The hook must not call libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt

from virtwarden.domain.model import read
from virtwarden.errors import HostError, WardenError
from virtwarden.words import shown

_URI = "qemu:///system"


@contextmanager
def connected() -> Iterator[libvirt.virConnect]:
    """A connection to the host's libvirt. Raises HostError where it does not answer."""
    libvirt.registerErrorHandler(lambda *_: None, None)  # otherwise libvirt prints on stderr
    try:
        connection = libvirt.open(_URI)
    except libvirt.libvirtError as error:
        raise HostError(
            f"libvirt does not answer at {_URI}: {error}", fix="systemctl start libvirtd"
        ) from None
    try:
        yield connection
    finally:
        connection.close()


def find(connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """The domain of this name or UUID. Raises HostError where there is none."""
    for look in (connection.lookupByName, connection.lookupByUUIDString):
        try:
            return look(name)
        except libvirt.libvirtError:
            continue
    raise HostError(f"there is no domain {name}", fix="see which there are: virsh list --all")


def known(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    """The domain of this UUID, or None where libvirt has none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise HostError(f"libvirt does not tell of domain {uuid}: {error}") from None


def rests(connection: libvirt.virConnect, uuid: str) -> bool:
    """Whether no domain of this UUID runs or starts; waits until its hook is done."""
    domain = known(connection, uuid)
    return domain is None or not domain.isActive()


def persistent(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    """All domains that libvirt keeps when they stop, by name."""
    found = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    return sorted(found, key=lambda domain: domain.name())


def all_domains(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    """The persistent domains, and those that libvirt forgets when they stop."""
    active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    known = {domain.UUIDString(): domain for domain in [*persistent(connection), *active]}
    return list(known.values())


def inactive_xml(domain: libvirt.virDomain) -> bytes:
    """The domain as it will be at its next start, with its secrets.

    A definition without the secrets would drop them.
    """
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    return str(domain.XMLDesc(flags)).encode()


def define(connection: libvirt.virConnect, xml: bytes) -> None:
    """Make libvirt store this XML. Raises HostError where libvirt refuses it."""
    try:
        connection.defineXML(xml.decode())
    except libvirt.libvirtError as error:
        raise HostError(
            f"libvirt does not take the domain's XML: {error}", fix=_way_out(str(error), xml)
        ) from None


def _way_out(said: str, xml: bytes) -> str:
    edit = f"virsh edit {shown(read(xml).name)}"
    if "spice TLS" in said:
        return f"remove tlsPort= and defaultMode='secure', virt-warden sees to TLS: {edit}"
    # From Debian 13 on, QEMU has SPICE in a package of its own.
    module = "apt install qemu-system-modules-spice; or " if "spice" in said else ""
    return f"{module}change what libvirt names: {edit}"


def each(
    chosen: Callable[[libvirt.virConnect], list[libvirt.virDomain]],
    act: Callable[[libvirt.virConnect, libvirt.virDomain], str],
) -> Iterator[tuple[str, str | WardenError]]:
    """Run `act` on each chosen domain, also after it failed for another one.

    Gives each one's name, and what was done or why it was not.
    """
    with connected() as connection:
        for domain in chosen(connection):
            outcome: str | WardenError
            try:
                outcome = act(connection, domain)
            except WardenError as error:
                outcome = error
            yield domain.name(), outcome
