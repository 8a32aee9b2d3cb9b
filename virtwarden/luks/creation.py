# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a new LUKS container for a disk of a domain, as the policy says."""

from __future__ import annotations

from virtwarden.changes import OpenLuks
from virtwarden.changes.claims import claims_on
from virtwarden.domain.model import Domain
from virtwarden.errors import HostError
from virtwarden.luks import volumes
from virtwarden.luks.containers import key_place, mapper_name, purpose
from virtwarden.luks.dialogue import Dialogue
from virtwarden.paths import Paths
from virtwarden.policy import DiskRules, Rules
from virtwarden.system import files, mapper
from virtwarden.system.blockstack import below, identity
from virtwarden.system.keys import HEADER, Place, Secret
from virtwarden.system.mapper import NODES
from virtwarden.words import shown


def rules_of(rules: Rules, domain: Domain, target: str) -> DiskRules:
    """What the policy says of a disk's container and key. Raises HostError where it is silent."""
    said = rules.disks.get(target, DiskRules())
    if said.luks and said.key:
        return said
    raise HostError(
        f"the policy does not say where the container of disk {target} of {domain.name} is, or its"
        " key",
        fix=f"in /etc/virt-warden/policy.toml: [[domain]] match = {shown(domain.name)!r},"
        f" [domain.disks.{target}] luks = …, key.file = … (docs/luks.md)",
    )


def node(said: DiskRules, domain: Domain, target: str) -> str:
    """The path of the open container, which the domain's XML will name."""
    return str(NODES / (said.mapper or mapper_name(domain, target)))


def place_of(said: DiskRules, domain: Domain, target: str) -> Place:
    """Where the disk's key is."""
    place = key_place(said.key, said.luks, purpose(domain, target))
    if place is None:
        raise HostError(f"the policy names no key for disk {target}")
    return place


def check(paths: Paths, place: Place, usable: int, *, blank: bool) -> None:
    """Check whether a container can be made at this place. Raises HostError."""
    leaf = files.look(place.container).leaf
    if leaf is not None:
        claims = claims_on(paths, *identity(leaf), below(leaf))
        volumes.must_be_unused(place.container, mapper.maps(paths.block_devices), claims)
        volumes.must_fit(place.container, usable, blank=blank)


def make(paths: Paths, place: Place, usable: int, dialogue: Dialogue, *, blank: bool) -> None:
    """Make a container of so many usable bytes; show its recovery passphrase. Raises HostError."""
    check(paths, place, usable, blank=blank)
    # A typed key comes before the room, because it may be refused. A key that is made comes after
    # it, because it would stay behind where there is no room.
    asks = dialogue.new_passphrase
    typed = volumes.new_key(place, asks) if place.kind == "ask" else None
    volumes.make_room(place.container, usable)
    recovery = volumes.recovery_passphrase()
    volumes.encrypt(place.container, typed or volumes.new_key(place, asks), recovery)
    _show(dialogue, place.container, recovery)
    if place.value == HEADER:
        dialogue.say(
            f"Now bind it to clevis, with that passphrase: clevis luks bind -d {place.container}"
            " tang '{\"url\": …}' (or tpm2 '{}')"
        )


def opening(place: Place, name: str, user: str = "") -> OpenLuks:
    """The change that opens a container for virt-warden itself."""
    leaf = files.look(place.container).leaf
    if leaf is None:
        raise HostError("it is not there", where=place.container)
    return OpenLuks(
        container=place.container,
        device=leaf.device,
        number=leaf.number,
        mapper=name,
        key_kind=place.kind,
        key_value=place.value,
        purpose=place.purpose,
        user=user,
        readonly=False,
        discard=False,
    )


def _show(dialogue: Dialogue, container: str, recovery: Secret) -> None:
    dialogue.say(f"The recovery passphrase of {container}, which opens it when its key is lost:\n")
    dialogue.say(f"    {recovery.reveal().decode()}\n")
    dialogue.say("It is shown only now. Write it down, and keep it away from this host.")
