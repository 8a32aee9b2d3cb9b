# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints of the network and devices of the host: QEMU gets those alone that its XML names.

The XML and the command lines are those of libvirt's own tests.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import wrapped
import xmls
from fake_host import FakeHost, account_of, case_of, rules

from virtwarden.domain.model import read
from virtwarden.domain.outside import outside
from virtwarden.guards import ticket
from virtwarden.guards.base import Op

MAC = "<mac address='52:54:00:00:00:01'/>"
MDEV = "53764d0e-85a0-42b4-af5c-2046b460b1dc"
PCI = "<address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/>"


def volume(protocol: str, *hosts: str) -> str:
    inside = "".join(f"<host {host}/>" for host in hosts)
    return f"<disk type='network'><source protocol='{protocol}' name='a/b'>{inside}</source></disk>"


def assigned(kind: str, inside: str) -> str:
    return f"<hostdev mode='subsystem' type='{kind}'><source>{inside}</source></hostdev>"


def blockdev(driver: str, **more: Any) -> list[str]:
    below = {"driver": driver, "node-name": "a", **more}
    return ["-blockdev", json.dumps({"driver": "qcow2", "node-name": "b", "file": below})]


def inet(host: str, port: str) -> dict[str, str]:
    return {"type": "inet", "host": host, "port": port}


def device(driver: str, **more: Any) -> list[str]:
    return ["-device", json.dumps({"driver": driver, "id": "a", **more})]


def line(kind: str, *sources: str) -> str:
    return f"<serial type='{kind}'>{''.join(f'<source {each}/>' for each in sources)}</serial>"


# The XML, the command line that it leads to, and what the latter names.
HONEST = {
    "nbd": (
        volume("nbd", "name='example.org' port='6000'"),
        blockdev("nbd", server=inet("example.org", "6000")),
        {"nbd example.org port 6000"},
    ),
    "nbd over IPv6 at its usual port": (
        volume("nbd", "name='::1'"),
        blockdev("nbd", server=inet("::1", "10809")),
        {"nbd ::1 port 10809"},
    ),
    "nbd over a Unix socket": (
        volume("nbd", "transport='unix' socket='/run/nbd'"),
        blockdev("nbd", server={"type": "unix", "path": "/run/nbd"}),
        set(),
    ),
    "gluster": (
        volume("gluster", "name='a.example' port='6000'", "name='b.example'"),
        blockdev("gluster", server=[inet("a.example", "6000"), inet("b.example", "24007")]),
        {"gluster a.example port 6000", "gluster b.example port 24007"},
    ),
    "rbd": (
        volume("rbd", "name='2001:db8::1' port='6322'", "name='mon'"),
        blockdev("rbd", server=[inet("2001:db8::1", "6322"), inet("mon", "0")]),
        {"rbd 2001:db8::1 port 6322", "rbd mon"},
    ),
    "iscsi": (
        volume("iscsi", "name='2001:db8::1'"),
        blockdev("iscsi", portal="[2001:db8::1]:3260", target="iqn", lun=1),
        {"iscsi 2001:db8::1 port 3260"},
    ),
    "https": (
        volume("https", "name='example.org'"),
        blockdev("https", url="https://example.org:443/a?b=c:d"),
        {"https example.org port 443"},
    ),
    "nfs": (
        volume("nfs", "name='example.org'"),
        blockdev("nfs", server={"host": "example.org", "type": "inet"}, path="/a"),
        {"nfs example.org"},
    ),
    "ssh": (
        volume("ssh", "name='example.org'"),
        blockdev("ssh", server={"host": "example.org", "port": "22"}, path="/a"),
        {"ssh example.org port 22"},
    ),
    "a serial port that connects": (
        line("tcp", "mode='connect' host='192.0.2.1' service='2000'"),
        ["-chardev", "socket,id=a,host=192.0.2.1,port=2000,reconnect=10"],
        {"tcp 192.0.2.1 port 2000"},
    ),
    "a serial port that listens": (
        line("tcp", "mode='bind' host='127.0.0.1' service='2000'"),
        ["-chardev", "socket,id=a,host=127.0.0.1,port=2000,telnet=on,server=on,wait=off"],
        {"listen 127.0.0.1 port 2000"},
    ),
    "a serial port over UDP": (
        line(
            "udp",
            "mode='bind' host='127.0.0.1' service='1111'",
            "mode='connect' host='192.0.2.1' service='2222'",
        ),
        ["-chardev", "udp,id=a,host=192.0.2.1,port=2222,localaddr=127.0.0.1,localport=1111"],
        {"udp 192.0.2.1 port 2222", "from 127.0.0.1 port 1111"},
    ),
    "a serial port over UDP from anywhere": (
        line("udp", "mode='connect' service='9999'"),
        ["-chardev", "udp,id=a,host=,port=9999,localaddr=,localport=0"],
        {"udp  port 9999"},
    ),
    "a NIC that listens": (
        f"<interface type='server'>{MAC}<source port='2015'/></interface>",
        ["-netdev", '{"type":"socket","listen":":2015","id":"a"}'],
        {"listen  port 2015"},
    ),
    "a NIC over UDP": (
        (
            f"<interface type='udp'>{MAC}<source address='192.0.2.1' port='5558'>"
            "<local address='192.0.2.2' port='5559'/></source></interface>"
        ),
        ["-netdev", "socket,udp=192.0.2.1:5558,localaddr=192.0.2.2:5559,id=a"],
        {"udp 192.0.2.1 port 5558", "from 192.0.2.2 port 5559"},
    ),
    "sound over the network": (
        "<audio id='1' type='pulseaudio' serverName='acme.example.org'/>",
        ["-audiodev", '{"id":"audio1","driver":"pa","server":"acme.example.org"}'],
        {"sound acme.example.org"},
    ),
    "a PCI device": (
        assigned("pci", PCI),
        device("vfio-pci", host="0000:06:12.5"),
        {"pci 0000:06:12.5"},
    ),
    "a PCI device that is a NIC": (
        (
            "<interface type='hostdev'><source>"
            "<address type='pci' domain='0x0000' bus='0x06' slot='0x12' function='0x5'/>"
            "</source></interface>"
        ),
        device("vfio-pci", host="0000:06:12.5"),
        {"pci 0000:06:12.5"},
    ),
    "an NVMe disk": (
        f"<disk type='nvme'><source type='pci' namespace='1'>{PCI}</source></disk>",
        blockdev("nvme", device="0000:06:12.5", namespace=1),
        {"pci 0000:06:12.5"},
    ),
    "a USB device": (
        assigned("usb", "<address bus='14' device='6'/>"),
        device("usb-host", hostdevice="/dev/bus/usb/014/006"),
        {"usb 14 6"},
    ),
    "a USB device by its numbers": (
        assigned("usb", "<address bus='14' device='6'/>"),
        device("usb-host", hostbus=14, hostaddr=6),
        {"usb 14 6"},
    ),
    "a mediated device": (
        assigned("mdev", f"<address uuid='{MDEV}'/>"),
        device("vfio-pci", sysfsdev=f"/sys/bus/mdev/devices/{MDEV}"),
        {f"mdev {MDEV}"},
    ),
    "a SCSI controller": (
        (
            "<hostdev mode='subsystem' type='scsi_host'>"
            "<source protocol='vhost' wwpn='naa.5123456789abcde0'/></hostdev>"
        ),
        device("vhost-scsi-pci", wwpn="naa.5123456789abcde0", vhostfd="3"),
        {"scsi naa.5123456789abcde0"},
    ),
    "a vsock": (
        "<vsock model='virtio'><cid auto='yes' address='42'/></vsock>",
        device("vhost-vsock-pci", **{"guest-cid": 42, "vhostfd": "7"}),
        {"vsock 42"},
    ),
}


def named(words: list[str]) -> set[str]:
    (option,) = wrapped.argv.parse_argv(words)
    return {*wrapped.outside.outside(option)}


def refusals(devices: str, words: list[str]) -> list[str]:
    """What the wrapper says of a command line that came of other XML than was reviewed."""
    case = case_of(xmls.domain(devices), rules(), FakeHost(), Op.START)
    found = json.loads(ticket.render(case, account_of("vmw-web01", xmls.UUID)))
    wrapped.ticket.parse_ticket(json.dumps(found), xmls.UUID)
    options = wrapped.argv.parse_argv(words)
    return [str(refusal) for refusal in wrapped.outside.check_outside(found, options)]


@pytest.mark.parametrize("name", HONEST)
def test_what_the_xml_names_is_what_the_command_line_may_name(name: str) -> None:
    devices, words, expected = HONEST[name]
    assert named(words) == expected
    assert expected <= outside(read(xmls.domain(devices).encode()))
    assert refusals(devices, words) == []


@pytest.mark.parametrize("name", [name for name, (_, _, ends) in HONEST.items() if ends])
def test_what_the_xml_does_not_name_is_refused(name: str) -> None:
    _, words, expected = HONEST[name]
    found = refusals("", words)
    assert len(found) == len(expected)
    assert all("which was not reviewed" in line for line in found)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (
            volume("nbd", "name='example.org' port='6000'"),
            blockdev("nbd", server=inet("example.org", "22")),
        ),
        (
            volume("nbd", "name='example.org' port='6000'"),
            blockdev("ssh", server=inet("example.org", "6000")),
        ),
        (
            volume("http", "name='example.org'"),
            blockdev("http", url="http://example.org:80@evil.example/"),
        ),
        (
            volume("http", "name='example.org'"),
            ["-blockdev", "driver=http,node-name=a,url=http://evil.example:80/"],
        ),
        (
            line("tcp", "mode='bind' host='127.0.0.1' service='2000'"),
            ["-chardev", "socket,id=a,host=127.0.0.1,port=2000"],
        ),
        (
            line("tcp", "mode='connect' host='192.0.2.1' service='2000'"),
            ["-chardev", "socket,id=a,host=192.0.2.9,port=2000,host=192.0.2.1"],
        ),
        (
            line("tcp", "mode='connect' host='192.0.2.1' service='2000'"),
            ["-chardev", "socket,id=a,host=192.0.2.1,port=2000,server=y"],
        ),
        (assigned("pci", PCI), device("vfio-pci", host="06:12.5")),
        (
            assigned("usb", "<address bus='14' device='6'/>"),
            device("usb-host", hostdevice="/dev/bus/usb/014/007"),
        ),
        (assigned("usb", "<address bus='14' device='6'/>"), device("usb-host", hostbus=14)),
        (
            assigned("mdev", f"<address uuid='{MDEV}'/>"),
            device("vfio-pci", sysfsdev="/sys/bus/pci/devices/0000:06:12.5"),
        ),
    ],
)
def test_another_end_or_another_way_to_write_it_is_refused(devices: str, words: list[str]) -> None:
    assert refusals(devices, words) != []


def test_a_ticket_of_a_former_version_says_nothing_of_them() -> None:
    options = wrapped.argv.parse_argv(HONEST["nbd"][1])
    assert [*wrapped.outside.check_outside({"outside": None}, options)] == []
