# SPDX-License-Identifier: GPL-2.0-or-later
"""The mac guard: a label of its own, where AppArmor or SELinux is there to hold a VM to it."""

from __future__ import annotations

from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules

from virtwarden.guards import mac
from virtwarden.guards.base import Case, Op

LABEL = "libvirt-6f1c1a4e-0000-4000-8000-000000000001"
SELINUX = "system_u:system_r:svirt_t:s0:c1,c2"
TCG = "system_u:system_r:svirt_tcg_t:s0:c1,c2"
IMAGE = "system_u:object_r:svirt_image_t:s0:c1,c2"


def labelled(model: str, label: str, image: str = "") -> str:
    return (
        f"<seclabel type='dynamic' model='{model}' relabel='yes'><label>{label}</label>"
        f"<imagelabel>{image}</imagelabel></seclabel>"
    )


APPARMOR = labelled("apparmor", LABEL)


def case(labels: str = "", op: Op = Op.START, host: FakeHost | None = None, **more: Any) -> Case:
    xml = xmls.domain(xmls.disk(), labels=xmls.label() + labels)
    return case_of(xml, rules(**more), host or FakeHost(), op)


# Attacks


@pytest.mark.parametrize(
    "labels", ["", "<seclabel type='none' model='apparmor'/>", labelled("apparmor", "")]
)
def test_without_a_label_of_its_own_it_is_refused_where_one_is_required(labels: str) -> None:
    line = refusal(mac, case(labels, host=FakeHost(mac="apparmor"), svirt="required"))
    assert "no AppArmor or SELinux label of its own" in line
    assert "remove <seclabel type='none'> (virsh edit web01)" in line


def test_where_the_kernel_has_neither_the_admin_is_told_how_to_get_one() -> None:
    assert "apt install apparmor" in refusal(mac, case(svirt="required"))


@pytest.mark.parametrize(
    "label",
    [
        "system_u:system_r:unconfined_t:s0:c1,c2",
        "system_u:system_r:virtd_t:s0:c1,c2",
        "system_u:system_r:svirt_t:s0",
        "svirt_t",
    ],
)
def test_a_label_of_no_vm_or_of_all_of_them_is_not_its_own(label: str) -> None:
    own = case(labelled("selinux", label), host=FakeHost(mac="selinux"), svirt="required")
    assert "remove <label> and <baselabel> from its <seclabel model='selinux'>" in refusal(mac, own)
    breaches = verified(labelled("selinux", label), label, FakeHost(mac="selinux"))
    assert breaches == [
        'it has no selinux label of its own, but the policy says svirt = "preferred"'
    ]


# Honest passage


@pytest.mark.parametrize(
    "labels", [APPARMOR, *(labelled("selinux", label, IMAGE) for label in (SELINUX, TCG))]
)
def test_a_label_of_its_own_passes(labels: str) -> None:
    assert refusals(mac, case(labels, svirt="required")) == []


@pytest.mark.parametrize(
    ("op", "svirt"), [(Op.PREPARE, "required"), (Op.START, "preferred"), (Op.START, "off")]
)
def test_before_libvirt_chose_it_or_where_it_is_not_required_none_is_missed(
    op: Op, svirt: str
) -> None:
    assert refusals(mac, case(op=op, svirt=svirt)) == []


def test_there_is_nothing_to_do() -> None:
    assert all(mac.plan(case(op=op, svirt="required")) == [] for op in Op)


# Promise


def verified(labels: str, label: str, host: FakeHost | None = None, **more: Any) -> list[str]:
    own = case(labels, Op.STARTED, host, **more)
    return mac.verify(own, process_of(account_of("vmw-web01", xmls.UUID), label=label))


def test_a_process_under_its_apparmor_label_keeps_the_promise() -> None:
    assert verified(APPARMOR, f"{LABEL} (enforce)") == []


@pytest.mark.parametrize("label", ["", "unconfined", f"{LABEL} (complain)", f"{LABEL}x (enforce)"])
def test_a_process_under_any_other_breaks_it(label: str) -> None:
    (breach,) = verified(APPARMOR, label)
    assert f"not {LABEL} (enforce)" in breach


def test_under_selinux_process_and_image_are_looked_at() -> None:
    labels = labelled("selinux", SELINUX, IMAGE)
    right = FakeHost(labels={xmls.DISK: IMAGE})
    assert verified(labels, SELINUX, right) == []
    assert "SELinux label is unconfined" in verified(labels, "unconfined", right)[0]
    assert f"{xmls.DISK} is labelled " in verified(labels, SELINUX, FakeHost())[0]


def test_what_libvirt_labels_for_all_vms_or_not_at_all_breaks_nothing() -> None:
    former = "<backingStore type='file'><format type='qcow2'/><source file='/images/former.qcow2'/>"
    disks = (
        xmls.disk(inside=f"{former}<backingStore/></backingStore>"),
        xmls.disk("/images/cd.iso", target="vdb", inside="<readonly/>"),
        xmls.disk("/images/common.img", target="vdc", inside="<shareable/>"),
        xmls.disk("/images/top.qcow2", target="vdd", inside=xmls.base("/images/base.qcow2")),
    )
    log = "<serial type='pty'><log file='/var/log/web01.log'/></serial>"
    labels = xmls.label() + labelled("selinux", SELINUX, IMAGE)
    xml = xmls.domain("".join(disks) + log, labels=labels)
    host = FakeHost(mac="selinux", labels={xmls.DISK: IMAGE, "/images/top.qcow2": IMAGE})
    process = process_of(account_of("vmw-web01", xmls.UUID), label=SELINUX)
    assert mac.verify(case_of(xml, rules(), host, Op.STARTED), process) == []


@pytest.mark.parametrize(
    ("model", "svirt", "breaks"),
    [
        ("apparmor", "preferred", True),
        ("", "preferred", False),
        ("", "required", True),
        ("apparmor", "off", False),
    ],
)
def test_a_vm_without_a_label_breaks_it_where_one_can_be_had(
    model: str, svirt: str, breaks: bool
) -> None:
    assert bool(verified("", "", FakeHost(mac=model), svirt=svirt)) is breaks
