# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit of a real host with real domains."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.host.command import run
from tests.host.domain import Disk, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.namespace import CHECKOUT
from tests.libvirt.warden import ENFORCING, PATHS, Warden, set_policy
from virtwarden.system import certificates

SCHEMA = json.loads((CHECKOUT / "policy" / "audit.schema.json").read_text())


def audit(warden: Warden) -> dict[tuple[str, str], dict[str, Any]]:
    """Every item, by id and subject."""
    done = warden.command("audit", "--json", check=False)
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert done.returncode == document["exit_code"]
    return {(item["id"], item["subject"]): item for item in document["items"]}


def test_a_vm_in_its_cell_is_good_in_every_item(warden: Warden, images: Path) -> None:
    warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
    found = {id_: item for (id_, subject), item in audit(warden).items() if subject == "web01"}
    unencrypted = found.pop("vm.encryption")
    assert (unencrypted["state"], unencrypted["seen"]) == ("bad", "unencrypted: vda")
    assert {item["state"] for item in found.values()} == {"good"}


def test_a_promise_that_is_broken_is_critical(warden: Warden, images: Path) -> None:
    disk = qcow2(images / "web01.qcow2")
    warden.started("web01", disks=[Disk(disk)])
    disk.chmod(0o666)
    item = audit(warden)["vm.promises", "web01"]
    assert (item["state"], item["severity"]) == ("bad", "critical")
    assert str(disk) in item["seen"]
    assert warden.command("audit", check=False).returncode == 4


def test_a_domain_that_is_off_is_looked_at_as_it_would_start(warden: Warden, images: Path) -> None:
    disk = raw(images / "old.img", mode=0o644)
    warden.libvirt.define(domain_xml("old", disks=[Disk(disk, format="raw")]))
    items = audit(warden)
    assert items["vm.enrolled", "old"]["fix"] == "virt-warden enrol old"
    assert items["vm.startable", "old"]["state"] == "bad"
    assert "0644" in items["vm.files", "old"]["seen"]
    warden.command("enrol", "old")
    disk.chmod(0o600)
    items = audit(warden)
    for name in ("vm.enrolled", "vm.startable", "vm.files"):
        assert items[name, "old"]["state"] == "good"


def test_what_the_policy_leaves_open_is_found_and_can_be_waived(warden: Warden) -> None:
    warden.enrolled("lab-1")
    open_policy = '[[domain]]\nmatch = "lab-*"\nmode = "permissive"\nexceptions = ["emulator"]\n'
    set_policy(ENFORCING + open_policy)
    items = audit(warden)
    assert items["vm.mode", "lab-1"]["state"] == "bad"
    assert items["vm.exceptions", "lab-1"]["state"] == "bad"
    waiver = '[waivers.lab]\nitem = "vm.exceptions"\nreason = "old"\nuntil = "9999-12-31"\n'
    set_policy(ENFORCING + waiver + open_policy)
    items = audit(warden)
    assert items["vm.mode", "lab-1"]["state"] == "bad"
    assert items["vm.exceptions", "lab-1"]["waiver"] == "old (until 9999-12-31)"


def test_a_zone_in_which_the_host_shows_itself_is_found_and_mended_as_told(
    warden: Warden, bridge: str
) -> None:
    items = audit(warden)
    for hook in ("host.hook.qemu", "host.hook.network"):
        assert items[hook, "host"]["state"] == "good"
    assert items["host.network.zones", "host"]["state"] == "bad"
    assert items["host.network.zones", "host"]["severity"] == "low"
    host = '[host]\nbond = "bond0"\nslaves = ["eno1", "eno2"]\nmanagement = "lo"\n'
    set_policy(f'{ENFORCING}{host}[zones.dmz]\nbridges = ["{bridge}"]\nvlan = 10\n')
    run("ip", "address", "add", "192.0.2.9/24", "dev", bridge)
    items = audit(warden)
    assert items["host.network.zones", "host"]["seen"] == "dmz"
    found = items["host.network.host-address", bridge]
    assert (found["state"], found["severity"]) == ("bad", "high")
    assert found["seen"] == "the host has address 192.0.2.9/24 on it"
    assert items["host.network.bond", "bond0"]["seen"] == "there is no such interface"
    said = warden.command("network", "check", check=False).stdout
    assert f"host-address: {bridge}: {found['seen']}" in said
    run(*shlex.split(found["fix"]))
    # Not good either: of the bond's VLANs, which are not there, nobody knows.
    assert "host.network.host-address" not in {id_ for id_, _ in audit(warden)}


@pytest.fixture
def certified(warden: Warden) -> Iterator[Warden]:
    """A host with a certificate for libvirt's remote connections."""
    warden.command("pki", "init", "--sealed", "remote")
    warden.command("pki", "server", "localhost")
    yield warden
    run("rm", "-rf", str(PATHS.state / "remote-ca"), "/etc/pki/CA", "/etc/pki/libvirt")


def put_one_that_ran_out(file: Path) -> None:
    key = certificates.new_key()
    issuer = certificates.Issuer(certificates.self_signed("long ago", key, certificates.DAY), key)
    life = datetime.timedelta(hours=-1)
    purpose = certificates.Purpose.SERVER
    made = certificates.issue(issuer, purpose, "localhost", key.public_key(), life)
    file.write_bytes(certificates.pem(made))


def test_certificates_that_ran_out_are_found_and_renewed_as_told(certified: Warden) -> None:
    certified.started("web01", vnc=Vnc())
    tls = PATHS.cell(certified.status("web01")["uuid"]) / "tls"
    files = {
        ("remote.tls.certificate", "host"): Path("/etc/pki/libvirt/servercert.pem"),
        ("vm.certificate", "web01"): tls / "server-cert.pem",
    }
    looked_at = [*files, ("remote.tls.authority", "host"), ("host.console.authority", "host")]
    items = audit(certified)
    assert {items[each]["state"] for each in looked_at} == {"good"}
    for file in files.values():
        put_one_that_ran_out(file)
    items = audit(certified)
    for each, file in files.items():
        assert (items[each]["state"], items[each]["severity"]) == ("bad", "high")
        assert f"{file} expired on" in items[each]["seen"]
    assert items["remote.tls.certificate", "host"]["fix"].startswith("virt-warden pki server")
    assert items["vm.certificate", "web01"]["fix"].startswith("virt-warden pki renew")
    certified.command("pki", "server", "localhost")
    certified.command("pki", "renew")
    assert {audit(certified)[each]["state"] for each in files} == {"good"}


def test_a_domain_that_is_not_managed_is_said_to_be(warden: Warden) -> None:
    set_policy("managed = []\n")
    warden.libvirt.define(domain_xml("theirs"))
    assert audit(warden)["vm.managed", "theirs"]["state"] == "bad"


def test_the_page_and_the_metrics_are_written_whole(warden: Warden, images: Path) -> None:
    warden.started("web01")
    page, metrics = images / "report.html", images / "virt-warden.prom"
    warden.command("audit", "--html", str(page), check=False)
    warden.command("audit", "--prometheus", str(metrics), check=False)
    assert page.read_text().rstrip().endswith("</html>")
    assert page.stat().st_mode & 0o777 == 0o600
    assert "virt_warden_audit_exit_code" in metrics.read_text()
    assert sorted(images.iterdir()) == [page, metrics]
    refused = warden.command("audit", "--html", "/nowhere/report.html", check=False)
    assert "/nowhere/report.html cannot be written" in refused.stderr
