# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `mac`: under AppArmor or SELinux a VM's process and images have their own sVirt label."""

from __future__ import annotations

from virtwarden.changes import Change
from virtwarden.domain.model import Label
from virtwarden.domain.uses import uses
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.guards.confinement import has_label_of_its_own
from virtwarden.system.process import Process

NAME = "mac"


def review(case: Case) -> list[Refusal]:
    """libvirt has chosen the label by `start`."""
    if case.op is not Op.START or case.rules.svirt != "required":
        return []
    if has_label_of_its_own(case):
        return []
    return [
        case.refusal(
            "it has no AppArmor or SELinux label of its own",
            where=case.rules.where("mac.svirt"),
            fix=_fix(case),
        )
    ]


def _fix(case: Case) -> str:
    model = case.facts.mac_model()
    if any(label.model == "selinux" and label.label for label in case.domain.labels):
        return (
            "remove <label> and <baselabel> from its <seclabel model='selinux'>, and set"
            f" type='dynamic' ({case.edit})"
        )
    if not model:
        return (
            "apt install apparmor, boot with apparmor in lsm= and restart libvirtd (neither"
            ' AppArmor nor SELinux is on in this kernel), or svirt = "preferred"'
        )
    return (
        f"remove <seclabel type='none'> ({case.edit}); or, in"
        f' /etc/libvirt/qemu.conf, security_driver = "{model}", then: systemctl restart libvirtd'
    )


def plan(case: Case) -> list[Change]:
    """libvirt itself sets the labels."""
    return []


def verify(case: Case, process: Process) -> list[str]:
    if case.rules.svirt == "off":
        return []
    labels = [label for label in case.domain.labels if label.label and label.model != "dac"]
    breaches = [breach for label in labels for breach in _verify_label(case, process, label)]
    model = case.facts.mac_model()
    if not has_label_of_its_own(case) and (case.rules.svirt == "required" or model):
        wanted = model or "sVirt"
        breaches.append(
            f'it has no {wanted} label of its own, but the policy says svirt = "{case.rules.svirt}"'
        )
    return breaches


def _verify_label(case: Case, process: Process, label: Label) -> list[str]:
    if label.model == "apparmor":
        if process.label == f"{label.label} (enforce)":
            return []
        return [f"QEMU's AppArmor label is {process.label or 'none'}, not {label.label} (enforce)"]
    if label.model != "selinux":
        return []
    breaches = []
    if process.label != label.label:
        breaches.append(f"QEMU's SELinux label is {process.label or 'none'}, not {label.label}")
    return breaches + _verify_images(case, label)


def _verify_images(case: Case, label: Label) -> list[str]:
    """Check the labels of images that QEMU writes. libvirt labels base images and shared files for
    all VMs, and does not label a log that virtlogd writes; libvirt's security_selinux.c.
    """
    own = [
        use.path for use in uses(case.domain) if use.write and not use.shared and not use.overlaid
    ]
    logs = case.domain.character_files
    found = {path: case.facts.selinux_label(path) for path in own if path not in logs}
    return [
        f"{path} is labelled {seen or 'nothing'}, not {label.image_label}"
        for path, seen in found.items()
        if label.image_label and seen != label.image_label
    ]
