# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness keeps its promises: what the scenarios stand on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.appliance.hardware import Cable
from tests.appliance.machine import Host
from tests.appliance.watched import Boot
from tests.host.command import CommandFailedError
from tests.host.frames import arp


def test_a_commands_exit_code_and_output_come_back(plain: Host) -> None:
    done = plain.run("cat; echo err >&2; exit 3", stdin="in", check=False)
    assert done[:3] == (3, "in", "err\n")
    with pytest.raises(CommandFailedError, match="exited 1"):
        plain.run("false")
    assert plain.run("sleep 60", check=False, seconds=0.1).exit == 124


def test_commands_run_side_by_side(plain: Host) -> None:
    plain.run("rm -f /tmp/go; mkfifo /tmp/go")
    waiting = plain.begin("cat /tmp/go")
    plain.run("echo gone >/tmp/go")
    assert waiting.wait().stdout == "gone\n"


def test_a_file_comes_back_as_it_was_put(plain: Host) -> None:
    content = bytes(range(256)) * 1000
    plain.put("/root/a directory/file", content, 0o640)
    assert plain.get("/root/a directory/file") == content
    assert plain.run("stat -c %a '/root/a directory/file'").stdout == "640\n"


def test_apparmor_is_enforcing_and_its_denials_are_seen(plain: Host) -> None:
    assert "libvirtd (enforce)" in plain.run("cat /proc/$(pidof libvirtd)/attr/current").stdout
    assert plain.denials() == []
    plain.run("aa-exec -p virt-aa-helper -- cat /etc/shadow", check=False)
    assert plain.denials()


def test_what_was_synced_outlives_a_power_cut_and_what_is_in_memory_does_not(boot: Boot) -> None:
    host = boot("plain")
    host.run("echo kept >/root/kept && sync /root/kept && echo lost >/run/lost")
    host.cut_power()
    host.power_on()
    assert host.get("/root/kept") == b"kept\n"
    assert host.run("test -e /run/lost", check=False).exit == 1


def test_a_reboot_keeps_the_disks_and_the_line(boot: Boot) -> None:
    host = boot("plain", disks=["64M"])
    first = host.get("/proc/sys/kernel/random/boot_id")
    host.run("echo on the disk >/dev/vda && sync")
    host.reboot()
    assert host.get("/proc/sys/kernel/random/boot_id") != first
    assert host.run("head -n1 /dev/vda").stdout == "on the disk\n"


def test_a_cable_carries_frames_between_two_hosts_until_it_is_pulled(
    boot: Boot, cable: Callable[[], Cable]
) -> None:
    lan = cable()
    here, there = (boot("plain", cables=[lan], memory_mib=1024) for _ in range(2))
    for number, host in enumerate((here, there), start=1):
        host.run(f"ip addr add 192.0.2.{number}/24 dev eth0 && ip link set eth0 up")
    here.run("ping -c1 -w60 192.0.2.2")
    there.pull(0)
    there.until("ip link show eth0 | grep NO-CARRIER")
    assert here.run("ping -c1 -w2 192.0.2.2", check=False).exit != 0


def test_the_test_itself_may_hold_a_cables_end(boot: Boot, cable: Callable[[], Cable]) -> None:
    outward = cable()
    end = outward.hold()
    host = boot("plain", cables=[outward])
    host.run("ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up")
    asking = arp("52:54:00:00:00:99", "52:54:00:00:00:99", "192.0.2.9", "192.0.2.1")
    end.send(asking)
    while (answer := end.receive(60))[12:14] != b"\x08\x06" or answer[28:32] != asking[38:42]:
        pass
