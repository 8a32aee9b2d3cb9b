# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `luks`: a VM's LUKS containers are open only while it runs, and only to its user."""

from __future__ import annotations

import itertools
import stat

from virtwarden.changes import Change, NodeRule, OpenLuks, RequireUnopened
from virtwarden.domain.uses import Use
from virtwarden.errors import HostError, Refusal
from virtwarden.guards import files
from virtwarden.guards.base import Case, Op
from virtwarden.luks.containers import PREFIX, Container, containers, plain_uses
from virtwarden.policy import Mode
from virtwarden.system import blockstack, keys, mapper
from virtwarden.system.process import Process
from virtwarden.words import shown

NAME = "luks"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def review(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE:
        return []
    refusals = _review_adoptions(case)
    for container in containers(case.domain, case.rules):
        refusals += (
            _review_xml(case, container)
            or _review_key(case, container)
            or files.review(case, _use(container))
            or _review_open(case, container)
        )
    return [*(refusals or _review_twins(case)), *_review_foreign_nodes(case)]


def _review_adoptions(case: Case) -> list[Refusal]:
    """Refuse a disk that `luks adopt` copies: what is written to it meanwhile would be lost."""
    return [
        case.refusal(
            "luks adopt of this disk is not finished",
            where=f"disk {target}",
            fix=f"virt-warden luks adopt {shown(case.domain.name)} {target}, which continues, or"
            " --abort",
        )
        for target in case.facts.unfinished_adoptions(case.domain.uuid)
    ]


def _review_foreign_nodes(case: Case) -> list[Refusal]:
    """Refuse another domain's open container, under whatever name."""
    opened = {(found.number, 0) for found in case.facts.maps() if found.name.startswith(PREFIX)}
    reviewed = {container.disk.path for container in containers(case.domain, case.rules)}
    return [
        case.refusal(
            "the policy names no LUKS container for it",
            where=f"{use.what} ({use.path})",
            fix="say which it is, below [[domain]] in /etc/virt-warden/policy.toml:"
            " [domain.disks.TARGET] luks = …, or name another file:"
            f" {case.edit}",
        )
        for use in plain_uses(case.domain, case.rules)
        if use.path not in reviewed
        and (use.path.startswith(str(mapper.NODES / PREFIX)) or _identity(case, use.path) in opened)
    ]


def _identity(case: Case, path: str) -> blockstack.Identity | None:
    try:
        leaf = case.facts.look(path).leaf
    except HostError:
        return None
    return blockstack.identity(leaf) if leaf else None


def _review_twins(case: Case) -> list[Refusal]:
    """Refuse two disks with the same container or mapper name."""
    found = containers(case.domain, case.rules)
    refusals = []
    for first, second in itertools.combinations(found, 2):
        if first.mapper == second.mapper or _identity(case, first.path) == _identity(
            case, second.path
        ):
            refusals.append(
                case.refusal(
                    f"disk {first.disk.target} uses the same container or mapper name",
                    where=case.rules.where(f"disks.{second.disk.target}.luks"),
                    fix="give each disk its own container and mapper name in the policy",
                )
            )
    return refusals


def _review_xml(case: Case, container: Container) -> list[Refusal]:
    disk = container.disk
    where = f"disk {disk.target}"
    edit = case.edit
    if (disk.kind, disk.path) != ("block", container.node):
        said = f"{disk.path or 'nothing'} (type {disk.kind})"
        rule = case.rules.where(f"disks.{disk.target}.luks")
        return [
            case.refusal(
                f"its XML names {said}, but its container, {container.path} ({rule}), is opened as"
                f" {container.node}",
                where=where,
                fix=f"virt-warden luks adopt {shown(case.domain.name)} {disk.target}, to move it"
                f" there; or {edit}: <disk type='block'>, <source dev='{container.node}'/>;"
                f" or remove [domain.disks.{disk.target}] from the policy",
            )
        ]
    if disk.shareable:
        return [
            case.refusal(
                "a LUKS container cannot be <shareable/>",
                where=where,
                fix=f"{edit}: remove <shareable/>",
            )
        ]
    return []


def _review_key(case: Case, container: Container) -> list[Refusal]:
    place = container.place
    target = container.disk.target
    if place is None:
        return [
            case.refusal(
                f"the policy names no key for {container.path}",
                where=case.rules.where(f"disks.{target}.luks"),
                fix="add key.file, key.credential, key.clevis or key.ask (docs/luks.md)",
            )
        ]
    if not place.file:
        return []
    try:
        wrong = keys.complaint(place, case.facts.look(place.file))
    except HostError as error:
        wrong = error
    if wrong is None:
        return []
    return [case.refusal(wrong.what, where=wrong.where or place.file, fix=wrong.fix)]


def _review_open(case: Case, container: Container) -> list[Refusal]:
    leaf = case.facts.look(container.path).leaf
    if leaf is None:
        return []
    for found in case.facts.maps():
        if blockstack.identity(leaf) in found.below:
            return [
                case.refusal(
                    f"it is already open as {found.node}",
                    where=f"{container.what} ({container.path})",
                    fix=f"see who uses it (fuser -v {found.node}), then: cryptsetup close"
                    f" {found.name}",
                )
            ]
        if found.name == container.mapper and not found.below:
            return [
                case.refusal(
                    f"somebody still has {found.node} of its last run open, though nothing is"
                    " behind it any more",
                    where=f"{container.what} ({container.path})",
                    fix=f"see who, and end that: fuser -v {found.node}",
                )
            ]
        if found.name == container.mapper:
            return [
                case.refusal(
                    f"another container is open as {found.node}",
                    where=f"{container.what} ({container.path})",
                    fix=f"cryptsetup close {found.name}, or give this one another name: mapper = …"
                    f" ({case.rules.where(f'disks.{container.disk.target}.luks')})",
                )
            ]
    return []


def _use(container: Container) -> Use:
    return Use(
        what=container.what, path=container.path, write=not container.disk.readonly, given=False
    )


def plan(case: Case) -> list[Change]:
    if case.op is not Op.PREPARE:
        return []
    changes: list[Change] = []
    for container in containers(case.domain, case.rules):
        changes += _open(case, container)
    return changes


def _open(case: Case, container: Container) -> list[Change]:
    leaf, place = case.facts.look(container.path).leaf, container.place
    if leaf is None or place is None:
        return []
    # A header is not authentic: who can write it can have another cipher, or none, used.
    alone = RequireUnopened(container.path, leaf.device, leaf.number, reading=False)
    return [
        files.claim(case, _use(container), leaf),
        *([alone] if case.rules.mode is Mode.ENFORCING else []),
        NodeRule(container.mapper, case.user),
        OpenLuks(
            container=container.path,
            device=leaf.device,
            number=leaf.number,
            mapper=container.mapper,
            key_kind=place.kind,
            key_value=place.value,
            purpose=place.purpose,
            user=case.user,
            readonly=container.disk.readonly,
            discard=container.disk.discard == "unmap",
        ),
        # Where it is only logged, it must not keep the container closed.
        *([alone] if case.rules.mode is Mode.PERMISSIVE else []),
    ]


def verify(case: Case, process: Process) -> list[str]:
    breaches = []
    opened = {found.name: found for found in case.facts.maps()}
    for container in containers(case.domain, case.rules):
        found = opened.get(container.mapper)
        if found is None:
            breaches.append(f"{container.path} is not open as {container.node}")
        else:
            breaches += _verify_open(case, container, found)
    return breaches


def _verify_open(case: Case, container: Container, found: mapper.Map) -> list[str]:
    breaches = []
    leaf, node = case.facts.look(container.path).leaf, case.facts.look(container.node).leaf
    if leaf is None or blockstack.identity(leaf) not in found.below:
        breaches.append(f"{container.node} is not {container.path}")
    if container.disk.readonly and not found.readonly:
        breaches.append(f"{container.node} can be written, though its disk is read-only")
    if node is None:
        return [*breaches, f"{container.node} is not there"]
    own = case.account.uid if case.account else -1
    if node.uid != own:
        breaches.append(f"{container.node} belongs to uid {node.uid}, not to {case.user}")
    if node.mode & _OTHERS:
        breaches.append(f"{container.node} is open to others (mode {node.permissions:04o})")
    return breaches
