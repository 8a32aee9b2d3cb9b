"""`virt-warden luks adopt`: an existing disk of a domain is encrypted, without losing a byte."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from virtwarden.changes import Change, Claim, NodeRule, journal
from virtwarden.cli.luks import container
from virtwarden.cli.luks.former import must_be_same, remove_old
from virtwarden.cli.luks.subject import Subject
from virtwarden.cli.terminal.agent import answering_here
from virtwarden.cli.terminal.progress import bar
from virtwarden.domain.model import Disk, Domain, read
from virtwarden.domain.uses import Use
from virtwarden.enrolment.enrol import enrol_xml, is_enrolled
from virtwarden.errors import HostError
from virtwarden.guards.base import Case, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.guards.files import review
from virtwarden.libvirtd.connection import connected, define, find, inactive_xml, rests
from virtwarden.luks import adoption
from virtwarden.luks.adoption import Adoption, Phase
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Rules, load
from virtwarden.system import blocks, files, images
from virtwarden.system.blocks import Layer
from virtwarden.system.keys import HEADER
from virtwarden.system.mapper import identity
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    parser.add_argument("domain", metavar="DOMAIN", help="by name or UUID; it must be off")
    parser.add_argument("disk", metavar="DISK", help="the disk's target, such as vda")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--abort", action="store_true", help="give up what was begun")
    after.add_argument(
        "--remove-old",
        action="store_true",
        help="overwrite and remove the former disk, once its container was taken into use",
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    policy = load(paths)
    with connected() as connection:
        domain = read(inactive_xml(find(connection, options.domain)))
        rules = policy.rules_for(domain.name)
        said = container.rules_of(rules, domain, options.disk)
        place = container.place_of(said, domain, options.disk)
        node = container.node(said, domain, options.disk)
        subject = Subject(paths, connection, domain, rules, options.disk, place, node)
        with adoption.at_work(paths, subject.key):
            if options.abort:
                return _abort(subject)
            if options.remove_old:
                return remove_old(subject)
            _must_be_kept_from_starting(policy, rules, domain)
            return _adopt(subject)


def _must_be_kept_from_starting(policy: Policy, rules: Rules, domain: Domain) -> None:
    """Only of these does the hook refuse a start in the middle, whose writes would be lost."""
    if not policy.manages(domain.name) or rules.mode is not Mode.ENFORCING or not domain.enrolment:
        raise HostError(
            f"{domain.name} could start in the middle of it",
            where=rules.where("mode"),
            fix=f'have it managed, mode = "enforcing", and enrolled: virt-warden enrol'
            f" {shown(domain.name)}",
        )


def _must_be_off(subject: Subject) -> None:
    if not rests(subject.connection, subject.domain.uuid):
        name = shown(subject.domain.name)
        raise HostError(f"{subject.domain.name} runs", fix=f"virsh shutdown {name}")


def _adopt(subject: Subject) -> int:
    _must_be_off(subject)
    state = adoption.load(subject.paths, subject.domain.uuid, subject.target) or _begin(subject)
    if state.container != subject.place.container:
        raise HostError(
            f"it was begun with the container {state.container}, and the policy has another by now",
            fix=f"{subject.again} --abort, or put it back in the policy",
        )
    if state.phase is Phase.FORMATTING:
        # What is in the container is ours: it was blank before, or was cut off by a kill.
        container.make(subject.paths, subject.place, state.size, blank=False)
        state = adoption.store(subject.paths, replace(state, phase=Phase.COPYING))
        if subject.place.value == HEADER:
            print(f"Then, to have the disk copied into it: {subject.again}")
            return 0
    if state.phase is Phase.COPYING:
        state = _copy(subject, state)
    if state.phase is Phase.SWITCHING:
        _must_be_off(subject)
        _switch(subject)
        state = adoption.store(subject.paths, replace(state, phase=Phase.DONE))
    print(f"Disk {subject.target} of {subject.domain.name} is in {state.container}.")
    print(f"Verified: both have the SHA-256 digest {state.digest}.")
    print(
        f"The former disk, {state.source}, still holds all of it in the clear. Start the domain,"
        f" see that it is well, then: {subject.again} --remove-old"
    )
    return 0


def _begin(subject: Subject) -> Adoption:
    """Look at all that could go wrong before anything is made; from then on no start is let pass.

    libvirt is not asked while the domain's journal is held (virtwarden/recovery.py).
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
    container.check(subject.paths, subject.place, size, blank=True)
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
    """Nothing but the disk's content must be needed of it afterwards."""
    name = shown(subject.domain.name)
    wrong = {
        "it is in its container already": disk.path == subject.node,
        "QEMU encrypts it already": bool(disk.encryption),
        f"it is of type {disk.kind}, neither a file nor a block device": disk.kind
        not in ("file", "block")
        or not disk.path,
        "it is read-only": disk.readonly,
        "several domains share it": disk.shareable,
        f"it is of format {disk.format}, and not raw or qcow2": disk.format
        not in ("", "raw", "qcow2"),
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
    """A name is followed more than once on the way, by root: nobody else may turn it elsewhere."""
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
    with answering_here():
        _open_container(subject, state)
    with blocks.opened(state.chain) as source:
        if source.size != state.size:
            raise HostError(
                f"it has another size than when it was begun with: {source.size} bytes",
                where=state.source,
                fix=f"{subject.again} --abort, then begin anew",
            )
        return adoption.copy(subject.paths, state, source, subject.node, bar(title))


def _open_container(subject: Subject, state: Adoption) -> None:
    """Open it to root alone until we are done; both it and the disk are kept from any domain."""
    name = Path(subject.node).name
    opening = container.opening(subject.place, name)
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
    changed = adoption.moved(xml, subject.target, subject.node)
    if is_enrolled(xml, subject.paths):
        changed = enrol_xml(changed, subject.rules.user_prefix, subject.paths)
    define(subject.connection, changed)


def _abort(subject: Subject) -> int:
    state = adoption.load(subject.paths, subject.domain.uuid, subject.target)
    if state is None or state.phase is Phase.DONE:
        raise HostError(f"nothing was begun with disk {subject.target} of {subject.domain.name}")
    if subject.disk.path == subject.node:
        raise HostError(
            f"{subject.domain.name} has the container already: what it wrote since is in there",
            where=f"disk {subject.target}",
            fix=f"end it: {subject.again}",
        )
    adoption.forget(subject.paths, state)
    print(
        f"Given up: {subject.domain.name} has its former disk, {state.source}. What is in"
        f" {state.container} is of no use: remove it, or wipefs -a it."
    )
    return 0
