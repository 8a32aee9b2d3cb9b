# SPDX-License-Identifier: GPL-2.0-or-later
"""The wrapper's judgement of QEMU's command line, on command lines that libvirt 9.0 really wrote.

fixtures/argv-*.json: what libvirt executed, and the part of the ticket that its XML leads to.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import wrapped
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
REAL = sorted(path.stem.removeprefix("argv-") for path in HERE.glob("fixtures/argv-*.json"))
DISK = "/var/lib/libvirt/images/a.qcow2"
TLS = "/run/virt-warden/tls"


def real(name: str) -> tuple[dict[str, Any], list[str]]:
    """A ticket and the command line, without argv[0], that belong together."""
    found = json.loads((HERE / f"fixtures/argv-{name}.json").read_text())
    return ticket_of(**found["ticket"]), found["argv"][1:]


def ticket_of(**fields: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "mode": "enforcing",
        "uuid": "00000000-0000-4000-8000-000000000001",
        "name": "web01",
        "user": "vmw-web01",
        "uid": 70001,
        "gid": 70001,
        "groups": [70001, 106],
        "emulator": "/usr/bin/qemu-system-x86_64",
        "files": [],
        "memory": [],
        "outside": None,
        "macs": [],
        "vnc": [],
        "tls_dir": None,
        "password": False,
        "passthrough": False,
        "spice": False,
        "landlock": None,
        "system_calls": None,
        "closed": [],
        "display": True,
        "sasl": None,
        "client_certificates": False,
        "static_passwords": True,
    } | fields


# What libvirt writes for every guest.
ALWAYS = ["-no-user-config", "-nodefaults", "-display", "none"]


def refusals(ticket: dict[str, Any], argv: list[str]) -> list[str]:
    options = wrapped.argv.parse_argv([*ALWAYS, *argv])
    return [str(refusal) for refusal in wrapped.review.check_argv(ticket, options)]


def tightened(ticket: dict[str, Any], argv: list[str]) -> list[str]:
    words: list[str] = wrapped.consoles.tighten_argv(ticket, wrapped.argv.parse_argv(argv))
    return words


def sasl(names: list[str] | None = None) -> dict[str, Any]:
    return {"tls_dir": TLS, "password": True, "sasl": {"dir": "/run/sasl", "names": names}}


@pytest.mark.parametrize("name", ["vnc", "vnc-ipv6-websocket", "vnc-tls-of-qemu-conf"])
def test_sasl_takes_the_passwords_place(name: str) -> None:
    ticket, argv = real(name)
    (value,) = vnc_values(tightened({**ticket, **sasl()}, argv))
    assert value.endswith(",tls-creds=vmw-vnc-tls,sasl=on")
    assert "password" not in value


def test_of_those_whom_kerberos_knows_the_named_ones_come_in() -> None:
    ticket, argv = real("vnc")
    words = tightened({**ticket, **sasl(["alice"])}, argv)
    assert vnc_values(words)[0].endswith(",sasl=on,sasl-authz=vmw-vnc-sasl")
    assert json.loads(words[-1]) == {
        "qom-type": "authz-list",
        "id": "vmw-vnc-sasl",
        "policy": "deny",
        "rules": [{"match": "alice", "policy": "allow", "format": "exact"}],
    }
    nobody = json.loads(tightened({**ticket, **sasl([])}, argv)[-1])
    assert (nobody["policy"], nobody["rules"]) == ("deny", [])


def test_without_tls_there_is_no_sasl() -> None:
    ticket, argv = real("vnc")
    (value,) = vnc_values(tightened({**ticket, **sasl(), "tls_dir": None}, argv))
    assert "sasl" not in value
    assert value.endswith("password=on")


def test_qemu_is_told_where_sasl_looks_and_no_domain_tells_it_otherwise() -> None:
    given = {"SASL_CONF_PATH": "/tmp/evil", "KRB5RCACHENAME": "file:/tmp/evil"}
    ours = wrapped.process.tighten_environment(ticket_of(**sasl(["alice"])), given)
    assert ours == {"SASL_CONF_PATH": "/run/sasl", "KRB5RCACHENAME": "none:"}


def vnc_values(argv: list[str]) -> list[str]:
    return [value for word, value in pairwise(argv) if word == "-vnc"]


# Honest passage


@pytest.mark.parametrize("name", REAL)
def test_what_libvirt_really_writes_passes_unchanged(name: str) -> None:
    ticket, argv = real(name)
    wrapped.ticket.parse_ticket(json.dumps(ticket), ticket["uuid"])
    assert refusals(ticket, argv) == []
    assert tightened(ticket, argv) == argv


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vnc", "vnc=127.0.0.1:0,audiodev=audio1"),
        ("vnc-ipv6-websocket", "vnc=[::1]:7,websocket=5708,share=allow-exclusive,audiodev=audio1"),
        (
            "vnc-socket",
            "vnc=unix:/var/lib/libvirt/qemu/domain-3-vncsock/vnc.sock,audiodev=audio1",
        ),
        ("vnc-tls-of-qemu-conf", "vnc=127.0.0.1:0,audiodev=audio1"),
    ],
)
def test_every_console_gets_tls_and_a_password(name: str, value: str) -> None:
    ticket, argv = real(name)
    words = tightened({**ticket, "tls_dir": TLS, "password": True}, argv)
    assert vnc_values(words) == [f"{value},tls-creds=vmw-vnc-tls,password=on"]
    assert words[-2] == "-object"
    assert json.loads(words[-1]) == {
        "qom-type": "tls-creds-x509",
        "id": "vmw-vnc-tls",
        "dir": TLS,
        "endpoint": "server",
        "verify-peer": False,
    }


def test_a_console_that_libvirt_alone_opens_asks_nobody_again() -> None:
    ticket, argv = real("vnc-listening-nowhere")
    assert tightened({**ticket, "tls_dir": TLS, "password": True}, argv) == argv
    theirs = [*argv[:-1], "vnc=none,tls-creds=theirs"] if argv[-2] == "-vnc" else argv
    at = theirs.index("-vnc") + 1
    theirs[at] += ",tls-creds=theirs"
    theirs += ["-object", '{"qom-type":"tls-creds-x509","id":"theirs","dir":"/etc/pki/qemu"}']
    words = tightened({**ticket, "tls_dir": TLS, "password": True}, theirs)
    assert "theirs" not in " ".join(words)


@pytest.mark.parametrize("value", ["none,websocket=5700", "127.0.0.1:0,vnc=none"])
def test_a_console_that_only_pretends_to_listen_nowhere_is_tightened(value: str) -> None:
    words = tightened(ticket_of(tls_dir=TLS, password=True), ["-vnc", value])
    assert "tls-creds=vmw-vnc-tls" in vnc_values(words)[0]


def test_a_port_that_only_libvirt_knows_of_is_not_opened() -> None:
    """libvirt wrote it, because it could not be told in time that nobody should reach it."""
    ticket, argv = real("vnc")
    (before,) = vnc_values(argv)
    closed = [{"listen": "127.0.0.1", "port": 5900}]
    assert before.startswith("127.0.0.1:0")
    ticket |= {"tls_dir": TLS, "password": True, "vnc": [], "closed": closed}
    assert refusals(ticket, argv) == []
    words = tightened(ticket, argv)
    rest = before.removeprefix("127.0.0.1:0")
    assert vnc_values(words) == [f"{rest},vnc=none".removeprefix(",")]
    assert "tls-creds" not in " ".join(words)
    with_websocket = ["-vnc", "127.0.0.1:0,websocket=5700"]
    assert vnc_values(tightened(ticket, with_websocket)) == ["vnc=none"]


def test_another_port_is_neither_closed_nor_allowed_by_that() -> None:
    ticket, argv = real("vnc")
    ticket |= {"tls_dir": TLS, "password": True, "vnc": []}
    ticket |= {"closed": [{"listen": "127.0.0.1", "port": 5901}]}
    assert refusals(ticket, argv) != []
    assert "tls-creds=vmw-vnc-tls" in vnc_values(tightened(ticket, argv))[0]


def test_all_but_the_console_is_left_as_it_was() -> None:
    ticket, argv = real("vnc")
    words = tightened({**ticket, "tls_dir": TLS, "password": True}, argv)
    at = argv.index("-vnc") + 1
    assert words[:at] + words[at + 1 : -2] == argv[:at] + argv[at + 1 :]


def test_no_console_no_credentials() -> None:
    ticket, argv = real("plain")
    assert tightened({**ticket, "tls_dir": TLS, "password": True}, argv) == argv


def test_credentials_of_libvirts_own_are_dropped_with_their_last_use() -> None:
    ticket, argv = real("vnc-tls-of-qemu-conf")
    assert any("/etc/pki/libvirt-vnc" in word for word in argv)
    words = tightened({**ticket, "tls_dir": TLS}, argv)
    assert not any("/etc/pki/libvirt-vnc" in word for word in words)
    assert any('"id":"masterKey0"' in word for word in words)


def test_a_directory_with_a_comma_or_a_quote_stays_one_value() -> None:
    ticket, argv = real("vnc")
    odd = '/run/a",id=x,,b'
    assert json.loads(tightened({**ticket, "tls_dir": odd}, argv)[-1])["dir"] == odd


@pytest.mark.parametrize(
    "smuggled",
    ["password=off", "password", "nopassword", "password=off,password=no", "tls-creds=theirs"],
)
def test_a_password_or_credentials_given_otherwise_are_replaced(smuggled: str) -> None:
    value = f"127.0.0.1:0,{smuggled},sasl=on"
    words = tightened(ticket_of(tls_dir=TLS, password=True), ["-vnc", value])
    assert vnc_values(words) == ["vnc=127.0.0.1:0,sasl=on,tls-creds=vmw-vnc-tls,password=on"]


@pytest.mark.parametrize("name", ["vnc", "vnc-ipv6-websocket", "vnc-tls-of-qemu-conf"])
def test_a_display_that_is_off_reaches_qemu_in_no_spelling(name: str) -> None:
    ticket, argv = real(name)
    words = tightened(ticket | {"display": False, "tls_dir": TLS}, argv)
    assert "vnc" not in [option.name for option in wrapped.argv.parse_argv(words)]
    assert "tls-creds-x509" not in " ".join(words)
    assert words[-2:] == ["-display", "none"]
    others = [option.words for option in wrapped.argv.parse_argv(argv) if option.name != "vnc"]
    kept = [words for words in others if "tls-creds-x509" not in " ".join(words)]
    assert [option.words for option in wrapped.argv.parse_argv(words)][:-1] == kept


def test_the_long_way_to_say_vnc_is_off_as_well() -> None:
    off = ticket_of(display=False)
    assert tightened(off, ["--display", "vnc=:1", "-S"]) == ["-S", "-display", "none"]
    rendering = ["-display", "egl-headless", "-vnc", ":1"]
    assert tightened(off, rendering) == ["-display", "egl-headless"]


def test_viewers_certificates_are_asked_for_and_no_consoles_own_will_do() -> None:
    ticket, argv = real("vnc")
    words = tightened(ticket | {"tls_dir": TLS, "client_certificates": True}, argv)
    assert vnc_values(words)[0].endswith(",tls-creds=vmw-vnc-tls,tls-authz=vmw-vnc-authz")
    objects = [json.loads(v) for w, v in pairwise(words) if w == "-object" and "vmw-vnc" in v]
    assert [one["qom-type"] for one in objects] == ["tls-creds-x509", "authz-list"]
    assert objects[0]["verify-peer"] is True
    assert objects[1]["rules"][0]["policy"] == "deny"


def test_without_tls_there_is_no_certificate_to_ask_for() -> None:
    ticket, argv = real("vnc")
    assert tightened(ticket | {"client_certificates": True, "tls_dir": None}, argv) == argv


def test_a_standing_password_is_refused_where_the_policy_forbids_it() -> None:
    ticket = ticket_of(name="x", static_passwords=False, vnc=[{"listen": "::1", "port": 5900}])
    for words in (["-vnc", "[::1]:0,password=on"], ["-display", "vnc=[::1]:0,password=on"]):
        (refusal,) = refusals(ticket, ["-name", "x", *words])
        assert "its VNC display has a static password" in refusal
    assert refusals(ticket, ["-name", "x", "-vnc", "[::1]:0"]) == []
    assert refusals(ticket, ["-name", "x", "-vnc", "[::1]:0,password=off"]) == []


def test_the_long_way_to_say_vnc_is_tightened_as_well() -> None:
    ticket = ticket_of(tls_dir=TLS, password=True)
    assert vnc_values(tightened(ticket, ["--display", "vnc=:1,password=off"])) == [
        "vnc=:1,tls-creds=vmw-vnc-tls,password=on"
    ]


# Attacks


def attacked(*more: str, name: str = "vnc", **fields: Any) -> list[str]:
    """The refusals of a real command line with these words added."""
    ticket, argv = real(name)
    return refusals({**ticket, **fields}, [*argv, *more])


SHADOW = '{"driver":"file","filename":"/etc/shadow","node-name":"x"}'


@pytest.mark.parametrize(
    "words",
    [
        ["-drive", "file=/etc/shadow,format=raw"],
        ["--drive", "format=raw,file=/etc/shadow"],
        ["-drive", "file.filename=/etc/shadow,file.driver=file"],
        ["-drive", "file=etc/shadow"],
        ["-drive", "file=shadow"],
        ["-drive", "readonly,,file=shadow"],
        ["-drive", f"file={DISK},,x"],
        ["-blockdev", SHADOW],
        ["-blockdev", '{"driver":"qcow2","file":{"driver":"host_device","filename":"/dev/sda"}}'],
        ["-blockdev", f'{{"driver":"raw","file":"a","backing":{SHADOW}}}'],
        ["-blockdev", '{"driver":"file","filename":"vmlinuz"}'],
        ["-blockdev", f'{{"driver":"file","filename":"{DISK}\\u0000/etc/shadow"}}'],
        ["-blockdev", "driver=file,filename=/etc/shadow"],
        ["-blockdev", "driver=raw,file.driver=file,file.filename=/etc/shadow"],
        ["-blockdev", '{"driver":"vvfat","dir":"/etc"}'],
        ["-kernel", "/etc/shadow"],
        ["--initrd", "/etc/shadow"],
        ["-dtb", "/etc/shadow"],
        ["-shim", "/etc/shadow"],
        ["-bios", "shadow"],
        ["-acpitable", "sig=SLIC,file=/etc/shadow"],
        ["-acpitable", "data=/etc/shadow"],
        ["-smbios", "file=/etc/shadow"],
        ["-smbios", "type=11,path=shadow"],
        ["-fw_cfg", "name=opt/x,file=/etc/shadow"],
        ["-fw_cfg", "opt/x,file=shadow"],
        ["-device", "virtio-rng-pci,romfile=/etc/shadow"],
        ["-device", '{"driver":"virtio-rng-pci","romfile":"etc/shadow"}'],
        ["-global", "virtio-rng-pci.romfile=/etc/shadow"],
        ["-machine", "q35,firmware=/etc/shadow"],
        ["-object", "memory-backend-file,id=m,size=1M,mem-path=/etc/shadow,share=on"],
        ["-object", '{"qom-type":"secret","id":"s","file":"/etc/shadow"}'],
        ["-object", "filter-dump,id=f,netdev=hostnet0,file=/etc/cron.d/x"],
        ["-chardev", "file,id=c,path=/etc/cron.d/x"],
        ["-chardev", "socket,id=c,path=/run/docker.sock"],
        ["-chardev", "pty,id=c,logfile=/etc/cron.d/x"],
        ["-fsdev", "local,id=f,path=/,security_model=none"],
        ["-netdev", "tap,id=n,script=/tmp/x"],
        ["-netdev", '{"type":"user","id":"n","smb":"/"}'],
        ["-boot", "splash=/etc/shadow"],
        ["-mem-path", "/etc"],
    ],
)
def test_a_file_that_was_not_reviewed_is_refused(words: list[str]) -> None:
    assert any("was not reviewed" in refusal for refusal in attacked(*words))
    assert attacked(*words, passthrough=True) == []


NBD = '{"driver":"nbd","server":{"type":"unix","path":"%s"},"export":"x"}'
RBD = '{"driver":"rbd","pool":"p","image":"i","conf":"%s"}'


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-object", "input-linux,id=i,evdev=event0"),
        ("-object", '{"qom-type":"input-linux","id":"i","evdev":"/dev/input/event0"}'),
        ("-object", "secret_keyring,id=s,serial=1"),
        ("-object", "filter-dump,id=f,netdev=hostnet0"),
        ("-device", "u2f-passthru"),
        ("-device", "u2f-passthru,hidraw=/dev/hidraw0"),
        ("-device", '{"driver":"virtio-net-pci","x-new":true}'),
        ("-blockdev", '{"driver":"vvfat","dir":"etc"}'),
        ("-blockdev", NBD % "/run/docker.sock"),
        ("-blockdev", NBD % "docker.sock"),
        ("-blockdev", RBD % "/etc/shadow"),
        ("-blockdev", RBD % "shadow"),
        ("-blockdev", '{"driver":"blkdebug","image":"x"}'),
        ("-blockdev", '{"driver":{"a":"file"},"filename":"x"}'),
        ("-machine", "q35,firmware=shadow"),
        ("-machine", "q35,dumpdtb=x"),
        ("-netdev", "bridge,id=n,br=br0"),
        ("-netdev", "bridge,id=n,helper=x"),
        ("-netdev", "tap,id=n,ifname=vnet7"),
        ("-netdev", "tap,id=n,script=no"),
        ("-netdev", "l2tpv3,id=n,src=a,txsession=1"),
        ("-netdev", "user,id=n,guestfwd=tcp:10.0.2.1:46-cmd:id"),
        ("-netdev", '{"type":"user","id":"n","guestfwd":[{"str":"tcp:10.0.2.1:46-cmd:id"}]}'),
        ("-netdev", '{"type":"user","id":"n","guestfwd":[{"str":"tcp:10.0.2.1:46-tcp:h:1"}]}'),
        ("-chardev", "braille,id=c"),
        ("-chardev", "serial,id=c,path=ttyS0"),
        ("-accel", "kvm,device=x"),
        ("-k", "../../x"),
        ("-global", "virtio-net-pci.romfile=x"),
        ("-global", "driver=virtio-net-pci,property=romfile,value=x"),
        ("-run-with", "chroot=x"),
        ("-smbios", "file=x"),
        ("-spice", "port=5900,tls-creds=x,x509-key-file=y"),
        ("-sandbox", "off,spawn=deny"),
    ],
)
def test_a_word_that_libvirt_does_not_write_is_refused(option: str, value: str) -> None:
    assert attacked(option, value, spice=[{"listen": "", "port": 5900}]) != []
    assert attacked(option, value, passthrough=True) == [] or option in ("-spice", "-netdev")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-run-with", "async-teardown=on"),
        ("-global", "driver=cfi.pflash01,property=secure,value=on"),
        ("-global", "ICH9-LPC.disable_s3=1"),
        ("-machine", "pc-q35-10.0,sgx-epc.0.memdev=m,sgx-epc.0.node=0,smm=on"),
        ("-audiodev", '{"id":"audio1","driver":"none","in":{"voices":1}}'),
        ("-device", '{"driver":"virtio-blk-pci","iothread-vq-mapping":[{"iothread":"i"}]}'),
        ("-blockdev", '{"driver":"qcow2","file":"a","backing":"b","cache":{"direct":true}}'),
        ("-object", '{"qom-type":"throttle-group","id":"t","limits":{"bps-read":1}}'),
        (
            "-netdev",
            '{"type":"user","id":"n","guestfwd":[{"str":"tcp:10.0.2.1:46-chardev:charchannel0"}]}',
        ),
        ("-k", "en-us"),
        ("-chardev", "pty,id=charserial0"),
    ],
)
def test_a_word_of_libvirts_passes_wherever_it_stands(option: str, value: str) -> None:
    assert attacked(option, value) == []


@pytest.mark.parametrize("missing", ["-no-user-config", "-nodefaults", "-display"])
def test_what_libvirt_always_writes_must_be_there(missing: str) -> None:
    """Without it QEMU makes devices, or a console on a port, by itself."""
    ticket, argv = real("plain")
    at = argv.index(missing)
    less = argv[:at] + argv[at + (2 if missing == "-display" else 1) :]
    options = wrapped.argv.parse_argv(less)
    (refusal,) = map(str, wrapped.review.check_argv(ticket, options))
    assert f"{missing} is missing" in refusal


def test_a_tap_without_libvirts_descriptor_is_refused() -> None:
    assert "descriptor" in attacked("-netdev", "tap,id=n")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/libvirt/qemu/domain-7-other/master-key.aes",
        "/var/lib/libvirt/qemu/domain-2-vnc/../domain-7-other/master-key.aes",
        "/var/lib/libvirt/qemu/domain-2-vncx/master-key.aes",
        "/var/lib/libvirt/qemu/domain-2-vnc",
        "/var/lib/libvirt/qemu/nvram/other_VARS.fd",
        "/dev/fdset/0/../../sda",
        "/dev/bus/usb/001/../../sda",
    ],
)
def test_only_what_libvirt_makes_for_this_domain_needs_no_review(path: str) -> None:
    refused = attacked("-chardev", f"file,id=c,path={path}")
    assert len(refused) == (0 if path.endswith("-vnc") else 1)


def test_a_long_name_is_cut_as_libvirt_cuts_it_in_either_locale() -> None:
    ticket = ticket_of(name="ä" * 30)
    for short in ("ä" * 20, "ä" * 10):
        key = f"/var/lib/libvirt/qemu/domain-1-{short}/master-key.aes"
        argv = ["-name", f"guest={ticket['name']}", "-object", f"secret,id=k,file={key}"]
        assert refusals(ticket, argv) == []


def test_what_a_network_disk_has_elsewhere_is_no_file_of_the_host() -> None:
    assert attacked("-blockdev", '{"driver":"nbd","server":{"host":"a"},"export":"/x"}') == []
    assert attacked("-blockdev", '{"driver":["nbd"],"filename":"/etc/shadow"}') != []


@pytest.mark.parametrize(
    "words",
    [
        ["-gdb", "tcp::1234"],
        ["-s"],
        ["--s"],
        ["-qmp", "tcp:0:4444"],
        ["-qmp-pretty", "stdio"],
        ["-monitor", "stdio"],
        ["-runas", "root"],
        ["-chroot", "/"],
        ["-daemonize"],
        ["-readconfig", "/tmp/x"],
        ["-plugin", "/tmp/x.so"],
        ["-hda", "/etc/shadow"],
        ["-fda", "fat:/etc"],
        ["-cdrom", "/etc/shadow"],
        ["-pflash", "/etc/shadow"],
        ["-net", "nic,macaddr=52:54:00:00:00:66"],
        ["-nic", "user"],
        ["-virtfs", "local,path=/,mount_tag=x,security_model=none"],
        ["-set", "device.net0.mac=52:54:00:00:00:66"],
        ["-D", "/etc/cron.d/x"],
        ["-L", "/tmp"],
        ["-preconfig"],
        ["-nographic"],
        ["-snapshot"],
        ["/etc/shadow"],
        ["-"],
        ["---s"],
        ["-incoming", "exec:id"],
        ["-incoming", "tcp:0:4444"],
        ["-mon", "chardev=mine,mode=control"],
        ["-serial", "stdio"],
        ["-sandbox", "off,spawn=deny"],
        ["-sandbox", "on,spawn=allow"],
        ["-display", "gtk"],
    ],
)
def test_an_option_that_libvirt_never_writes_is_refused(words: list[str]) -> None:
    (refusal,) = [each for each in attacked(*words) if "opens" not in each]
    assert "libvirt does not write" in refusal
    assert attacked(*words, passthrough=True) == []


def test_a_value_that_looks_like_an_option_is_not_taken_for_one() -> None:
    ticket, argv = real("kernel-initrd")
    at = argv.index("-append") + 1
    assert refusals(ticket, [*argv[:at], "-gdb", *argv[at + 1 :]]) == []


@pytest.mark.parametrize(
    "nic",
    [
        '{"driver":"virtio-net-pci","netdev":"hostnet0","mac":"52:54:00:00:00:66"}',
        "e1000,netdev=hostnet0,mac=52:54:00:00:00:66",
        "virtio-net-pci,mac=52:54:00:00:00:66",
        "e1000,netdev=hostnet0",
        '{"driver":"virtio-net-pci","netdev":"hostnet0","mac":"52:54:00:00:00:01"}',
    ],
)
@pytest.mark.parametrize("passthrough", [True, False])
def test_a_nic_that_was_not_reviewed_is_refused(nic: str, passthrough: bool) -> None:
    (refusal,) = attacked("-device", nic, passthrough=passthrough)
    assert "NIC" in refusal


def test_two_macs_on_one_nic_are_refused() -> None:
    ticket, argv = real("vnc")
    argv = [word for word in argv if '"mac"' not in word]
    nic = "e1000,netdev=n,mac=52:54:00:00:00:01,mac=52:54:00:00:00:02"
    ticket["macs"] = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    assert any("one MAC" in each for each in refusals(ticket, [*argv, "-device", nic]))


def test_a_planned_nic_that_is_missing_is_refused() -> None:
    assert attacked(macs=["52:54:00:00:00:01", "52:54:00:00:00:02"]) == [
        "the NIC with MAC 52:54:00:00:00:02 is missing"
    ]


def test_macs_are_the_same_in_capitals() -> None:
    ticket = ticket_of(name="x", macs=["AA:bb:cc:dd:ee:ff"])
    wrapped.ticket.parse_ticket(json.dumps(ticket), ticket["uuid"])
    assert refusals(ticket, ["-name", "x", "-device", "e1000,mac=aa:BB:cc:dd:ee:ff"]) == []


@pytest.mark.parametrize(
    "words",
    [
        ["-vnc", ":0"],
        ["--vnc", "0.0.0.0:0"],
        ["-vnc", "127.0.0.1:1"],
        ["-vnc", "[::]:0"],
        ["-vnc", "unix:/tmp/x"],
        ["-vnc", "127.0.0.1:0,vnc=0.0.0.0:1"],
        ["-vnc", "password=on,vnc=0.0.0.0:0"],
        ["-vnc", "127.0.0.1:0,,tls-creds=mine"],
        ["-vnc", ""],
        ["-vnc", "password=on"],
        ["-vnc"],
        ["-display", "vnc=0.0.0.0:0"],
        ["--display", "vnc=127.0.0.1:7"],
    ],
)
@pytest.mark.parametrize("passthrough", [True, False])
def test_a_console_that_was_not_planned_is_refused(words: list[str], passthrough: bool) -> None:
    (refusal,) = attacked(*words, passthrough=passthrough)
    assert "is not a planned console" in refusal


@pytest.mark.parametrize(
    "more", ["reverse=on", "to=99", "websocket=0.0.0.0:80", "websocket", "ipv4=on", "lossy"]
)
def test_what_libvirt_never_says_of_a_console_is_refused(more: str) -> None:
    assert "in -vnc by itself" in attacked("-vnc", f"127.0.0.1:0,password=on,{more}")[0]


def test_spice_needs_a_plan() -> None:
    assert attacked(name="spice", spice=False) == ["SPICE is not among its planned consoles"]
    assert attacked(name="spice", spice=False, passthrough=True) == []


@pytest.mark.parametrize(
    "words",
    [
        ["-name", "guest=other"],
        ["-name", "guest=vnc,guest=other"],
        ["--name", "other"],
        ["-name", "guest=vnc"],
    ],
)
def test_another_name_is_refused(words: list[str]) -> None:
    assert "-name says" in attacked(*words)[0]
    assert "-name says" in attacked(*words, passthrough=True)[0]


@given(st.lists(st.tuples(st.text("ab.-", min_size=1), st.text("x,=-n")), min_size=1))
def test_what_is_joined_with_doubled_commas_is_split_again(pairs: list[tuple[str, str]]) -> None:
    raw = [f"{key}={value.replace(',', ',,')}" for key, value in pairs]
    split = list(wrapped.argv.split_opts(",".join(raw)))
    assert [(key, value) for key, value, _ in split] == pairs
    assert [part for *_, part in split] == raw


@given(st.text("vn=,pas"))
def test_no_part_of_a_console_is_lost_or_made_up(text: str) -> None:
    parts = [raw for *_, raw in wrapped.argv.split_opts(text)]
    assert ",".join(parts) == text.removesuffix(",") or text.endswith(",")


def test_a_name_with_commas_is_read_as_libvirt_writes_it() -> None:
    ticket = ticket_of(name="a,guest=b")
    assert refusals(ticket, ["-name", "guest=a,,guest=b,debug-threads=on"]) == []


@pytest.mark.parametrize(
    "value",
    [
        '{"driver":"file","filename":"/x","filename":"/y"}',
        '{"driver":"virtio-net-pci"',
        "{'driver':'file'}",
        "{" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_json_that_two_readers_could_read_in_two_ways_is_refused(value: str) -> None:
    assert "is not JSON" in attacked("-device", value)[0]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-uuid", "../../etc"],
        ["-uuid", "00000000-0000-4000-8000-000000000001/../.."],
        ["-uuid", "00000000-0000-4000-8000-000000000001\n"],
        ["-uuid", "00000000000040008000000000000001"],
        ["-uuid", "00000000-0000-4000-8000-00000000000A"],
        ["-uuid", "00000000-0000-4000-8000-000000000001"] * 2,
        ["-uuid", "00000000-0000-4000-8000-000000000001", "--uuid", "x"],
        ["-append", "-uuid", "00000000-0000-4000-8000-000000000001"],
        ["-uuid"],
    ],
)
def test_only_one_wellformed_uuid_names_a_ticket(argv: list[str]) -> None:
    with pytest.raises(wrapped.refusal.Refusal, match="-uuid"):
        wrapped.argv.guest_uuid(wrapped.argv.parse_argv(argv))


@pytest.mark.parametrize(
    ("argv", "probe"),
    [
        (
            ["-S", "-nodefaults", "-machine", "none,accel=kvm:tcg", "-qmp", "unix:/x,server=on"],
            True,
        ),
        (["--version"], True),
        (["-help"], True),
        (["-h"], True),
        (["-machine", "help"], True),
        (["-cpu", "?"], True),
        (["-machine", "none", "-uuid", "x"], False),
        (["--uuid", "x", "-version"], False),
        (["-machine", "q35"], False),
        (["-append", "-version"], False),
        (["-name", "help", "-drive", "file=/etc/shadow"], False),
        (["-machine", "none", "-drive", "file=/etc/shadow"], False),
        (["-help", "x"], False),
        ([], False),
    ],
)
def test_only_what_has_no_guest_is_a_probe(argv: list[str], probe: bool) -> None:
    assert wrapped.argv.is_probe(wrapped.argv.parse_argv(argv)) is probe


def test_the_environment_keeps_what_libvirt_sets_and_no_loader_variable() -> None:
    given = {"PATH": "/bin", "HOME": "/h", "LD_PRELOAD": "/x", "FOO": "bar"}
    assert wrapped.process.tighten_environment(ticket_of(), given) == {"PATH": "/bin", "HOME": "/h"}
    assert wrapped.process.tighten_environment(ticket_of(passthrough=True), given) == given


# The emulator


def test_what_an_upgrade_takes_out_of_the_wrappers_directory_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapped.qemu_system, "OWN_DIRECTORY", str(tmp_path))
    gone = [".dpkg-new", "qemu-system-x86_64.dpkg-tmp"]
    monkeypatch.setattr(wrapped.qemu_system.os, "listdir", lambda _: [gone[0], "own", gone[1]])
    (tmp_path / "own").touch()
    assert wrapped.qemu_system.is_ours((tmp_path / "own").stat())
    assert not wrapped.qemu_system.is_ours(Path("/").stat())
