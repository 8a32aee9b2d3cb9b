# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole Debian host that boots: systemd, AppArmor enforcing, a kernel and a disk of its own.

A scenario reads like an admin's steps on it:

    def test_a_vm_runs_as_its_own_user(guarded: Host) -> None:
        guarded.define(domain_xml("web01"))
        guarded.run("virsh start web01")
        assert guarded.run("virt-warden status web01").exit == 0
        assert guarded.denials() == []

Fixtures (conftest.py): `guarded` is a host on which our .deb was installed, `plain` the same host
without it, `either` first one, then the other: the same test must hold on both. Each is booted
once for a test module and ended with it. `boot` boots more of them, with what hardware one likes:

    def test_it_survives_a_power_cut(boot: Boot) -> None:
        host = boot("guarded", disks=["1G"])
        host.run("virsh start web01 && sync")
        host.cut_power()
        host.power_on()
        host.run("virsh start web01")

    def test_a_domain_moves(boot: Boot, cable: Callable[[], Cable]) -> None:
        lan = cable()
        here, there = boot("guarded", cables=[lan]), boot("guarded", cables=[lan])

Run from the checkout's root, as root: `make test-appliance`, which is what CI runs, with ALL=1
every scenario, or one test with

    /usr/bin/python3 -B -m pytest tests/appliance -k power_cut

All of it on Debian 13 instead: `make test-appliance DEBIAN=trixie`, or pytest's `--debian trixie`.

The disk images are built once for what they are made of and kept in build/appliance.
"""
