# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of an adoption; each begins only when the one before it is written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lxml import etree

from virtwarden.adoption import copying
from virtwarden.adoption.former import must_be_same
from virtwarden.adoption.subject import Subject
from virtwarden.changes import Change, Claim, NodeRule, journal
from virtwarden.domain.model import Disk, parse
from virtwarden.domain.uses import Use
from virtwarden.enrolment.enrol import enrol_xml, is_enrolled
from virtwarden.errors import HostError
from virtwarden.guards.base import Case, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.guards.files import review
from virtwarden.libvirtd.connection import define, inactive_xml, rests
from virtwarden.luks import adoption, creation
from virtwarden.luks.adoption import Adoption, Phase
from virtwarden.system import blocks, files, images
from virtwarden.system.blocks import Layer
from virtwarden.system.blockstack import identity
from virtwarden.system.keys import HEADER
from virtwarden.words import shown


def adopt(subject: Subject) -> None:
    """Go on to the end from the last step done. Raises HostError where something is in the way."""
    _must_be_off(subject)
    state = adoption.load(subject.paths, subject.domain.uuid, subject.target) or _begin(subject)
    if state.container != subject.place.container:
        raise HostError(
            f"it started with the container {state.container}; the policy now names another",
            fix=f"{subject.again} --abort, or put it back in the policy",
        )
    if state.phase is Phase.FORMATTING:
        # What is in the container is ours: it was blank before, or a kill cut off our work.
        creation.make(subject.paths, subject.place, state.size, subject.dialogue, blank=False)
        state = adoption.store(subject.paths, replace(state, phase=Phase.COPYING))
        if subject.place.value == HEADER:
            subject.dialogue.say(f"Then, to copy the disk into it: {subject.again}")
            return
    if state.phase is Phase.COPYING:
        state = _copy(subject, state)
    if state.phase is Phase.SWITCHING:
        _must_be_off(subject)
        _switch(subject)
        state = adoption.store(subject.paths, replace(state, phase=Phase.DONE))
    subject.dialogue.say(f"Disk {subject.target} of {subject.domain.name} is in {state.container}.")
    subject.dialogue.say(f"Verified: both have the SHA-256 digest {state.digest}.")
    subject.dialogue.say(
        f"The former disk, {state.source}, still holds all data, unencrypted. Start the domain,"
        f" see that it is well, then: {subject.again} --remove-old"
    )


def _must_be_off(subject: Subject) -> None:
    if not rests(subject.connection, subject.domain.uuid):
        name = shown(subject.domain.name)
        raise HostError(f"{subject.domain.name} runs", fix=f"virsh shutdown {name}")


def _begin(subject: Subject) -> Adoption:
    """Check everything that could go wrong, then block the domain's starts, and make nothing yet.

    It asks libvirt nothing while it holds the domain's journal (virtwarden/recovery.py).
    """
    before = journal.state(subject.paths, subject.domain.uuid)
    _must_be_off(subject)
    first = _first_state(subject)
    with journal.locked(subject.paths, subject.domain.uuid):
        if journal.records(subject.paths, subject.domain.uuid):
            raise HostError(
                f"something is left of the last run of {subject.domain.name}",
                fix=f"virt-warden recover {shown(subject.domain.name)}",
            )
        if journal.state(subject.paths, subject.domain.uuid) != before:
            raise HostError(f"{subject.domain.name} is just starting", fix="virsh shutdown it")
        return adoption.store(subject.paths, first)


def _first_state(subject: Subject) -> Adoption:
    disk = subject.disk
    _must_be_plain(subject, disk)
    chain = (
        Layer(disk.path, disk.format or "raw", disk.kind == "block"),
        *(Layer(layer.path, layer.format, layer.kind == "block") for layer in disk.layers),
    )
    leaf = files.look(disk.path).leaf
    if leaf is None:
        raise HostError("it is not there", where=disk.path)
    _must_be_nobodys_to_swap(subject, disk)
    with blocks.opened(chain) as source:
        size = source.size
    creation.check(subject.paths, subject.place, size, blank=True)
    return Adoption(
        domain=subject.domain.uuid,
        name=subject.domain.name,
        target=subject.target,
        chain=chain,
        number=leaf.number,
        size=size,
        container=subject.place.container,
    )


def _must_be_plain(subject: Subject, disk: Disk) -> None:
    """Check that nothing but the disk's content is needed of it afterwards."""
    name = shown(subject.domain.name)
    wrong = {
        "it is already in its container": disk.path == subject.node,
        "QEMU already encrypts it": bool(disk.encryption),
        f"it is of type {disk.kind}: not a file or block device": disk.kind not in ("file", "block")
        or not disk.path,
        "it is read-only": disk.readonly,
        "several domains share it": disk.shareable,
        f"it is of format {disk.format}, not raw or qcow2": disk.format not in ("", "raw", "qcow2"),
    }
    for what, is_so in wrong.items():
        if is_so:
            raise HostError(what, where=f"disk {subject.target} ({disk.path})")
    if not disk.is_spelled_out:
        raise HostError(
            "its XML does not say on which images it is based",
            where=f"disk {subject.target}",
            fix=f"virt-warden enrol {name}",
        )
    if disk.format == "qcow2" and not images.is_plain(disk.path):
        raise HostError(
            "it holds snapshots, or lies in several files, which a container cannot",
            where=disk.path,
            fix=f"virsh snapshot-list {name}; virsh snapshot-delete {name} …",
        )
    if subject.handle.snapshotNum() or subject.handle.hasManagedSaveImage():
        raise HostError(
            "it has snapshots, or was saved with its memory, and these name the former disk",
            where=subject.domain.name,
            fix=f"virsh snapshot-list {name}; virsh managedsave-remove {name}",
        )


def _must_be_nobodys_to_swap(subject: Subject, disk: Disk) -> None:
    """Root follows a name more than once on the way: nobody else may turn it to another file."""
    case = Case(Op.PREPARE, subject.domain, subject.rules, HostFacts(subject.paths), subject.paths)
    own = [Use(f"disk {disk.target}", disk.path, write=True)]
    own += [Use("its base", layer.path, write=False, shared=True) for layer in disk.layers]
    if files.look(subject.place.container).leaf is not None:
        own.append(Use("the container", subject.place.container, write=True, given=False))
    for use in own:
        for refusal in review(case, use):
            raise HostError(refusal.what, where=refusal.where or use.path, fix=refusal.fix)


def _copy(subject: Subject, state: Adoption) -> Adoption:
    must_be_same(state)
    _must_be_nobodys_to_swap(subject, subject.disk)
    title = f"{state.name} {state.target}"
    with subject.dialogue.answering():
        _open_container(subject, state)
    with blocks.opened(state.chain) as source:
        if source.size != state.size:
            raise HostError(
                f"its size has changed since adopt started: it was {source.size} bytes",
                where=state.source,
                fix=f"{subject.again} --abort, then start again",
            )
        return copying.copy(
            subject.paths, state, source, subject.node, subject.dialogue.progress(title)
        )


def _open_container(subject: Subject, state: Adoption) -> None:
    """Open it only for root until the adoption ends.

    Until then no domain may use it or the disk.
    """
    name = Path(subject.node).name
    opening = creation.opening(subject.place, name)
    claims = [_claim(subject, path) for path in (state.source, state.container)]
    plan: list[Change] = [*claims, NodeRule(name, ""), opening]
    journal.perform(adoption.workplace(subject.paths), subject.key, plan)


def _claim(subject: Subject, path: str) -> Claim:
    leaf = files.look(path).leaf
    if leaf is None:
        raise HostError("it is not there", where=path)
    device, number = identity(leaf)
    name = f"{subject.domain.name} (luks adopt)"
    return Claim(path, device, number, subject.key, name, write=True, shareable=False)


def _switch(subject: Subject) -> None:
    xml = inactive_xml(subject.handle)
    if subject.disk.path == subject.node:
        return  # a kill came between this and writing it down
    changed = _moved(xml, subject.target, subject.node)
    if is_enrolled(xml, subject.paths):
        rules = subject.rules
        changed = enrol_xml(changed, rules.user_prefix, subject.paths, via=rules.via)
    define(subject.connection, changed)


def _moved(xml: bytes, target: str, node: str) -> bytes:
    """The domain's XML with one disk in its open container, and everything else as it was."""
    root = parse(xml)
    (disk,) = (
        disk
        for disk in root.iterfind("devices/disk")
        if disk.find(f"target[@dev='{target}']") is not None
    )
    for name in ("source", "backingStore", "encryption"):
        for element in disk.findall(name):
            disk.remove(element)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    driver.set("type", "raw")
    for element in driver.findall("metadata_cache"):  # only qcow2 has it
        driver.remove(element)
    disk.set("type", "block")
    driver.addnext(etree.Element("source", dev=node))
    return bytes(etree.tostring(root, encoding="utf-8"))


def abort(subject: Subject) -> None:
    """Give up what was begun, as long as the domain has its former disk."""
    state = adoption.load(subject.paths, subject.domain.uuid, subject.target)
    if state is None or state.phase is Phase.DONE:
        raise HostError(f"no adopt was started for disk {subject.target} of {subject.domain.name}")
    if subject.disk.path == subject.node:
        raise HostError(
            f"{subject.domain.name} already has the container, with all that it wrote since",
            where=f"disk {subject.target}",
            fix=f"end it: {subject.again}",
        )
    adoption.forget(subject.paths, state)
    subject.dialogue.say(
        f"Given up: {subject.domain.name} has its former disk, {state.source}. What is in"
        f" {state.container} is of no use: remove it, or wipefs -a it."
    )
