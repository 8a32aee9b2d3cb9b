# SPDX-License-Identifier: GPL-2.0-or-later
"""Enrols a domain's XML, and makes it again what it was.

libvirt takes the user, the emulator and the labels of images only from the domain's own XML, not
from a hook. Enrolment notes in the domain's `<metadata>` what it changes there.
"""

from __future__ import annotations

import uuid

from lxml import etree

from virtwarden.domain import writing
from virtwarden.domain.model import TAG_LIMIT, WARDEN_NAMESPACE, Domain, from_tree, parse
from virtwarden.enrolment import backing, boot, consoles, tree
from virtwarden.enrolment.headers import Asker
from virtwarden.errors import DomainError
from virtwarden.guards import ticket
from virtwarden.guards.identity import candidates
from virtwarden.paths import Paths
from virtwarden.policy import Via
from virtwarden.system import users

_WARDEN = f"{{{WARDEN_NAMESPACE}}}"
_ENROLMENT = f"{_WARDEN}enrolment"
_EMULATOR = f"{_WARDEN}emulator"
_LABEL = "seclabel[@model='dac']"
# How the domain ran, and how it would have started again; https://libvirt.org/formatsnapshot.html
_KEPT = ("domain", "inactiveDomain")
# What was enrolled must always come out again, also where libvirt and editors added to it since.
_UNENROLLED_TAG_LIMIT = 4 * TAG_LIMIT


def enrol_xml(
    untrusted_xml: bytes,
    prefix: str,
    paths: Paths,
    *,
    copies: bool = True,
    via: Via = "port",
    chosen_via: Via | None = None,
) -> bytes:
    """The XML of a domain with its user, its wrapper, its base images and its boot files' copies.

    Without `copies`, its boot files stay. `via` is how the policy wants viewers to reach its
    console, and `chosen_via` how the admin wants it for this domain, from now on.

    XML that is already enrolled stays the same, except that edits of what enrolment wrote are
    undone. Its base images then come from the XML, not from the images' headers. Raises DomainError
    if it is not the XML of a domain, and HostError if an image cannot be read, or if only its
    header, which a guest may have written, says on what it is based.
    """
    root = parse(untrusted_xml)
    former = from_tree(root)
    said = backing.known(root, former) if former.enrolment else {}
    chosen_via = chosen_via or consoles.chosen_in(_notes(root))
    _take_out(root, paths)
    _have_uuid(root)
    domain = from_tree(root)
    notes = etree.Element(_ENROLMENT, nsmap={"warden": WARDEN_NAMESPACE})
    _set_emulator(root, domain, paths, notes)
    _set_label(root, _choose_user(domain, prefix), notes)
    backing.spell_out(root, notes, said, Asker(paths, domain.uuid, domain.name))
    if copies:
        boot.spell_out(root, notes, paths, domain.uuid)
    consoles.spell_out(root, notes, via, chosen_via)
    _metadata(root, notes).append(notes)
    return _written(root)


def unenrol_xml(untrusted_xml: bytes, paths: Paths) -> bytes:
    """The XML as it was before it was enrolled; unchanged where it never was."""
    root = parse(untrusted_xml, tag_limit=_UNENROLLED_TAG_LIMIT)
    _take_out(root, paths)
    return _written(root)


def unenrolled(untrusted_xml: bytes, paths: Paths) -> bytes | None:
    """The same for a snapshot's or checkpoint's XML too; None where nothing in it is enrolled."""
    root = parse(
        untrusted_xml, "domainsnapshot", "domaincheckpoint", tag_limit=_UNENROLLED_TAG_LIMIT
    )
    kept = [root, *(element for tag in _KEPT for element in root.iterfind(tag))]
    enrolled = [element for element in kept if _has_ours(element, paths)]
    for element in enrolled:
        _take_out(element, paths)
    return _written(root) if enrolled else None


def remember(paths: Paths, untrusted_xml: bytes) -> None:
    """Remember on what the images are based that an enrolled domain's user could write by now.

    A domain that never started has no user yet. Raises OSError.
    """
    domain = from_tree(parse(untrusted_xml))
    if domain.enrolment and users.account_of(domain.uuid) is not None:
        writing.remember(paths, domain, first=True)


def is_enrolled(untrusted_xml: bytes, paths: Paths) -> bool:
    """Whether the XML has anything of an enrolment: its notes, or only the wrapper."""
    return _has_ours(parse(untrusted_xml), paths)


def _has_ours(root: etree._Element, paths: Paths) -> bool:
    domain = from_tree(root)
    return domain.enrolment or _is_wrapper(domain.emulator, paths)


def _written(root: etree._Element) -> bytes:
    # The whole tree keeps the comments around the root: libvirt's own files begin with one.
    return bytes(etree.tostring(root.getroottree(), encoding="utf-8"))


def _have_uuid(root: etree._Element) -> None:
    """libvirt would choose a UUID only when it defines the domain: too late for the user's name."""
    domain, name = from_tree(root), root.find("name")
    if name is None or not domain.name:
        raise DomainError("the domain's XML has no <name>", fix="give it one")
    if domain.uuid.strip():
        return
    element = root.find("uuid")
    if element is None:
        element = etree.Element("uuid")
        name.addnext(element)
    element.text = str(uuid.uuid4())


def _choose_user(domain: Domain, prefix: str) -> str:
    """The user that the domain has, or else the best name that nobody else has."""
    own = users.account_of(domain.uuid)
    if own is not None:
        return own.name
    names = candidates(prefix, domain.name, domain.uuid)
    free = [name for name in names if users.account(name) is None and users.group_id(name) is None]
    if not free:
        raise DomainError(
            f"user or group {names[-1]} exists and is not this domain's",
            fix=f"see whose it is: getent passwd {names[-1]}; getent group {names[-1]}",
        )
    return free[0]


def _metadata(root: etree._Element, notes: etree._Element) -> etree._Element:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
        notes.set("metadata", "made")
    return metadata


def _notes(root: etree._Element) -> etree._Element | None:
    return root.find(f"metadata/{_ENROLMENT}")


def _set_emulator(
    root: etree._Element, domain: Domain, paths: Paths, notes: etree._Element
) -> None:
    devices = root.find("devices")
    if devices is None:
        devices = etree.SubElement(root, "devices")
        notes.set("devices", "made")
    emulator = devices.find("emulator")
    if emulator is None:
        emulator = etree.Element("emulator")
        devices.insert(0, emulator)
    else:
        note = etree.SubElement(notes, _EMULATOR)
        if _is_wrapper(domain.emulator, paths):
            # libvirt took it by itself: without virt-warden there is only QEMU.
            note.text = ticket.emulator_path(domain.arch)
        else:
            tree.copy_content(emulator, note)
    tree.set_text(emulator, ticket.wrapper_path(paths, domain.arch))


def _set_label(root: etree._Element, user: str, notes: etree._Element) -> None:
    label = etree.Element("seclabel", type="static", model="dac", relabel="yes")
    etree.SubElement(label, "label").text = f"{user}:{user}"
    formers = root.findall(_LABEL)
    notes.extend(tree.bare(former) for former in formers)
    _put_labels(root, formers, [label])


def _put_labels(
    root: etree._Element, formers: list[etree._Element], labels: list[etree._Element]
) -> None:
    """Put labels in the place of others, or at the end."""
    if not formers:
        root.extend(labels)
        return
    first, *others = formers
    tree.replace(first, *labels)
    for other in others:
        tree.remove(other)


def _take_out(root: etree._Element, paths: Paths) -> None:
    """Undo each change in the notes that is still in place."""
    notes = _notes(root)
    if notes is None:
        _take_out_unnoted(root, paths)
        return
    metadata = notes.getparent()
    tree.remove(notes)
    if metadata is not None and not len(metadata) and notes.get("metadata") == "made":
        tree.remove(metadata)
    _restore_emulator(root, notes, paths)
    _put_labels(
        root, root.findall(_LABEL), [tree.bare(former) for former in notes.findall("seclabel")]
    )
    backing.restore(root, notes)
    boot.restore(root, notes)
    consoles.restore(root, notes)


def _take_out_unnoted(root: etree._Element, paths: Paths) -> None:
    """Undo without notes: what is left of ours would stop a start once virt-warden is gone."""
    domain = from_tree(root)
    emulator = root.find("devices/emulator")
    if emulator is None or not _is_wrapper(domain.emulator, paths):
        return
    tree.set_text(emulator, ticket.emulator_path(domain.arch))
    own = users.account_of(domain.uuid)
    for label in root.findall(_LABEL):
        if own is not None and label.findtext("label") == f"{own.name}:{own.name}":
            tree.remove(label)


def _is_wrapper(emulator: str, paths: Paths) -> bool:
    return emulator.startswith(f"{paths.wrapper_dir}/")


def _restore_emulator(root: etree._Element, notes: etree._Element, paths: Paths) -> None:
    emulator = root.find("devices/emulator")
    former = notes.find(_EMULATOR)
    if emulator is None:
        return
    if former is None:
        devices = root.find("devices")
        tree.remove(emulator)
        if notes.get("devices") == "made" and devices is not None and not len(devices):
            tree.remove(devices)
    elif _is_wrapper(former.text or "", paths):  # without virt-warden it would not be there
        emulator.text = ticket.emulator_path(from_tree(root).arch)
    else:
        tree.copy_content(former, emulator)
