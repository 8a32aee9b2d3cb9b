# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's console lets those in who have its password, over TLS, and nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import vnc
from tests.host.certificates import Authority
from tests.host.command import run
from tests.host.domain import Vnc, domain_xml
from tests.host.libvirt import Libvirt
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, as_user, set_policy
from virtwarden.changes import InstallFilters, IssueCertificate, journal

HOST = "127.0.0.1"
PASSWORD, OTHER_PASSWORD = "p4ssw0rd", "0therpwd"
STRONG_PASSWORD = "rT7%kq2Z"
SOCKET = "<graphics type='vnc'><listen type='socket'/></graphics>"
WEBSOCKET = "<graphics type='vnc' autoport='yes' websocket='-1' listen='127.0.0.1'/>"


def console(*lines: str) -> str:
    return "\n".join([ENFORCING, "[console]", *lines, ""])


def authority(warden: Warden, name: str) -> Path:
    """Where `virt-warden status` says that the consoles' authority is."""
    return Path(warden.status(name)["console_ca"])


def refused(warden: Warden, name: str, password: str) -> str:
    with pytest.raises(vnc.LoginRefusedError) as caught:
        vnc.login(HOST, warden.vnc_port(name), authority(warden, name), password)
    return caught.value.reason


class TestOneConsole:
    """Attacks on one running VM's console, none of which alters it."""

    @pytest.fixture(scope="class")
    def guarded(self, libvirt: Libvirt) -> Iterator[Warden]:
        set_policy(ENFORCING)
        warden = Warden(libvirt)
        warden.started("web01", vnc=Vnc())
        warden.started("evil")
        yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    @pytest.fixture(scope="class")
    def port(self, guarded: Warden) -> int:
        return guarded.vnc_port("web01")

    def test_nothing_but_vencrypt_with_x509_and_a_password_is_offered(self, port: int) -> None:
        assert vnc.security_types(HOST, port) == [vnc.SECURITY_VENCRYPT]
        assert vnc.vencrypt_subtypes(HOST, port) == [vnc.VENCRYPT_X509_VNC]

    def test_a_viewer_without_tls_is_refused(self, port: int) -> None:
        for answer in vnc.try_plain(HOST, port).values():
            assert answer not in (vnc.ACCEPTED, vnc.ASKS_FOR_PASSWORD)

    @pytest.mark.parametrize("password", ["", PASSWORD])
    def test_nobody_gets_in_before_a_password_is_set(self, guarded: Warden, password: str) -> None:
        assert "Authentication failed" in refused(guarded, "web01", password)

    def test_its_key_is_read_by_its_own_user_alone(self, guarded: Warden) -> None:
        tls = PATHS.cell(guarded.status("web01")["uuid"]) / "tls"
        for file in (tls / "server-key.pem", tls / "server-cert.pem"):
            assert as_user("vmw-web01", lambda f=file: os.open(f, os.O_RDONLY)) == ""  # type: ignore[misc]
            for who in ("vmw-evil", "nobody"):
                assert as_user(who, lambda f=file: os.open(f, os.O_RDONLY)) == "PermissionError"  # type: ignore[misc]
            assert as_user("vmw-web01", lambda f=file: os.open(f, os.O_RDWR)) == "PermissionError"  # type: ignore[misc]
        swap = tls / "ca-cert.pem"
        assert as_user("vmw-web01", swap.unlink) == "PermissionError"

    def test_the_authoritys_key_is_read_by_no_vms_user(self, guarded: Warden) -> None:
        key = PATHS.console_ca / "ca-key.cred"
        assert as_user("vmw-web01", lambda: os.open(key, os.O_RDONLY)) == "PermissionError"

    def test_its_certificate_is_the_hosts_and_for_servers_alone(
        self, guarded: Warden, port: int
    ) -> None:
        shown = PATHS.cell(guarded.status("web01")["uuid"]) / "tls" / "server-cert.pem"
        ca = authority(guarded, "web01")
        below = ("-untrusted", str(shown))  # the signer, which the server sends along
        run("openssl", "verify", "-CAfile", str(ca), *below, "-purpose", "sslserver", str(shown))
        done = run(
            "openssl",
            "verify",
            "-CAfile",
            str(ca),
            *below,
            "-purpose",
            "sslclient",
            str(shown),
            check=False,
        )
        assert done.returncode != 0

    def test_its_certificate_is_made_once_though_that_is_begun_before_its_port_is_known(
        self, guarded: Warden
    ) -> None:
        done = [r.change for r in journal.records(PATHS, guarded.status("web01")["uuid"])]
        made = [at for at, change in enumerate(done) if isinstance(change, IssueCertificate)]
        first_at_start = next(at for at, c in enumerate(done) if isinstance(c, InstallFilters))
        assert len(made) == 1
        assert made[0] < first_at_start

    def test_status_tells_where_viewers_get_the_authority(self, guarded: Warden) -> None:
        said = guarded.command("status").stdout
        assert f"trust the console CA: copy {authority(guarded, 'web01')} to them" in said
        assert guarded.status("evil")["console_ca"] is None


class TestPassword:
    """Each on a console whose password has been set."""

    @pytest.fixture(scope="class")
    def guarded(self, libvirt: Libvirt) -> Iterator[Warden]:
        set_policy(ENFORCING)
        warden = Warden(libvirt)
        for name, password in (("web01", PASSWORD), ("web02", OTHER_PASSWORD)):
            warden.started(name, vnc=Vnc())
            warden.set_password(name, password)
        yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    def test_the_right_one_gets_in_and_knows_the_host(self, guarded: Warden) -> None:
        ca = authority(guarded, "web01")
        for name in ("localhost", HOST, os.uname().nodename):
            assert "web01" in vnc.login(HOST, guarded.vnc_port("web01"), ca, PASSWORD, name)

    def test_a_wrong_one_is_refused(self, guarded: Warden) -> None:
        assert "Authentication failed" in refused(guarded, "web01", "p4ssw0rD")

    def test_another_vms_is_refused(self, guarded: Warden) -> None:
        assert "Authentication failed" in refused(guarded, "web01", OTHER_PASSWORD)
        assert "Authentication failed" in refused(guarded, "web02", PASSWORD)

    def test_no_vm_shows_anothers_certificate(self, guarded: Warden) -> None:
        shown = {
            (PATHS.cell(guarded.status(name)["uuid"]) / "tls" / "server-cert.pem").read_text()
            for name in ("web01", "web02")
        }
        assert len(shown) == 2

    def test_one_that_has_expired_is_refused_until_it_is_set_anew(self, guarded: Warden) -> None:
        ca, port = authority(guarded, "web02"), guarded.vnc_port("web02")
        vnc.login(HOST, port, ca, OTHER_PASSWORD)
        expire = {"execute": "expire_password", "arguments": {"protocol": "vnc", "time": "now"}}
        guarded.libvirt.virsh("qemu-monitor-command", "web02", json.dumps(expire))
        assert "Authentication failed" in refused(guarded, "web02", OTHER_PASSWORD)


def test_the_password_of_the_xml_gets_in_and_libvirt_can_change_it(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc(password=STRONG_PASSWORD))
    ca, port = authority(warden, "web01"), warden.vnc_port("web01")
    assert "web01" in vnc.login(HOST, port, ca, STRONG_PASSWORD)
    changed = (
        f"<graphics type='vnc' port='{port}' autoport='yes' passwd='{OTHER_PASSWORD}'>"
        f"<listen type='address' address='{HOST}'/></graphics>"
    )
    warden.libvirt.virsh("update-device", "web01", "/dev/stdin", stdin=changed)
    assert "Authentication failed" in refused(warden, "web01", STRONG_PASSWORD)
    assert "web01" in vnc.login(HOST, port, ca, OTHER_PASSWORD)


@pytest.mark.parametrize("weak", ["p4ssw0rd", "P@ssw0rd", "aB3%"])
def test_a_weak_password_of_the_xml_is_refused_at_enrolment_and_not_told(
    warden: Warden, weak: str
) -> None:
    warden.libvirt.define(domain_xml("web01", vnc=Vnc(password=weak)))
    for how in (("enrol", "web01"), ("enrol", "--all")):
        done = warden.command(*how, check=False)
        assert "the password of its display" in done.stderr
        assert weak not in done.stderr + done.stdout
        assert done.returncode == 1
    set_policy(f'mode = "permissive"\n{ENFORCING}')
    done = warden.command("enrol", "web01")
    assert "the password of its display" in done.stderr
    assert weak not in done.stderr + done.stdout


def test_an_empty_password_of_the_xml_lets_nobody_in(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc(password=""))
    for password in ("", PASSWORD):
        assert "Authentication failed" in refused(warden, "web01", password)


def test_a_new_start_has_a_new_key(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc())
    key = PATHS.cell(warden.status("web01")["uuid"]) / "tls" / "server-key.pem"
    former = key.read_text()
    warden.libvirt.destroy("web01")
    assert not key.exists()
    warden.libvirt.start("web01")
    assert key.read_text() != former


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.2"])  # noqa: S104
def test_an_address_that_the_policy_does_not_list_is_refused(warden: Warden, address: str) -> None:
    warden.enrolled("web01", vnc=Vnc(listen=address))
    line = warden.refusal("web01")
    assert f"VNC would listen on {address}" in line
    set_policy(console(f'listen = ["{address}"]'))
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_a_libvirt_networks_address_is_held_to_the_policy_once_it_is_known(
    warden: Warden, bridge: str
) -> None:
    run("ip", "address", "add", "192.0.2.10/24", "dev", bridge)
    network = (
        f"<network><name>adm</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"
    )
    warden.libvirt.virsh("net-create", "/dev/stdin", stdin=network)
    try:
        listen = "<graphics type='vnc'><listen type='network' network='adm'/></graphics>"
        warden.enrolled("web01", extra_devices=listen)
        assert "VNC would listen on 192.0.2.10" in warden.refusal("web01")
        set_policy(console('listen = ["192.0.2.10"]'))
        warden.libvirt.start("web01")
        port = warden.vnc_port("web01")
        warden.set_password("web01", PASSWORD)
        ca = authority(warden, "web01")
        assert "web01" in vnc.login("192.0.2.10", port, ca, PASSWORD, "192.0.2.10")
    finally:
        warden.libvirt.virsh("net-destroy", "adm")


def test_a_unix_socket_asks_for_the_password_over_tls_too(warden: Warden) -> None:
    warden.enrolled("web01", extra_devices=SOCKET)
    assert "VNC would listen on unix" in warden.refusal("web01")
    set_policy(console('listen = ["unix"]'))
    warden.libvirt.start("web01")
    warden.set_password("web01", PASSWORD)
    place = warden.libvirt.virsh("domdisplay", "web01").stdout.strip().removeprefix("vnc+unix://")
    assert vnc.security_types(place) == [vnc.SECURITY_VENCRYPT]
    ca = authority(warden, "web01")
    assert "web01" in vnc.login(place, 0, ca, PASSWORD)
    with pytest.raises(vnc.LoginRefusedError):
        vnc.login(place, 0, ca, OTHER_PASSWORD)
    assert warden.status("web01")["breaches"] == []


def test_a_websocket_asks_for_the_password_over_tls_too(warden: Warden) -> None:
    warden.started("web01", extra_devices=WEBSOCKET)
    warden.set_password("web01", PASSWORD)
    port = warden.vnc_port("web01") - 5900 + 5700
    ca = authority(warden, "web01")
    assert "web01" in vnc.login_by_websocket(HOST, port, ca, PASSWORD)
    for certificate, password in ((ca, OTHER_PASSWORD), (None, PASSWORD)):
        with pytest.raises(vnc.LoginRefusedError):
            vnc.login_by_websocket(HOST, port, certificate, password)
    assert warden.status("web01")["breaches"] == []


class TestBreaches:
    """Consoles that are not what the policy promises by now."""

    @pytest.mark.parametrize(
        ("devices", "listen", "breach"),
        [
            ("<graphics type='vnc' listen='127.0.0.1'/>", HOST, "not VeNCrypt alone"),
            (SOCKET, "unix", "not VeNCrypt alone"),
            (WEBSOCKET, HOST, "speaks WebSocket without TLS"),
        ],
        ids=["tcp", "unix", "websocket"],
    )
    def test_one_without_tls_is_one(
        self, warden: Warden, devices: str, listen: str, breach: str
    ) -> None:
        set_policy(console(f'listen = ["{listen}"]', 'tls = "off"'))
        warden.started("web01", extra_devices=devices)
        assert warden.status("web01")["breaches"] == []
        set_policy(console(f'listen = ["{listen}"]'))
        assert breach in " ".join(warden.status("web01")["breaches"])
        assert warden.command("status", check=False).returncode == 1

    def test_one_without_a_password_is_one(self, warden: Warden) -> None:
        set_policy(console('password = "off"'))
        warden.started("web01", vnc=Vnc())
        set_policy(ENFORCING)
        assert "without a password" in " ".join(warden.status("web01")["breaches"])

    def test_one_that_was_moved_is_one(self, warden: Warden) -> None:
        warden.started("web01", vnc=Vnc())
        elsewhere = [{"type": "inet", "host": "0.0.0.0", "port": "5999"}]  # noqa: S104
        arguments = {"type": "vnc", "addresses": elsewhere}
        update = json.dumps({"execute": "display-update", "arguments": arguments})
        warden.libvirt.virsh("qemu-monitor-command", "web01", update)
        assert "does not answer" in " ".join(warden.status("web01")["breaches"])


class TestDisplayOff:
    """A display that the policy takes away, whatever the XML says."""

    @pytest.mark.parametrize("devices", [SOCKET, WEBSOCKET], ids=["unix", "websocket"])
    def test_qemu_has_none_and_nobody_listens(self, warden: Warden, devices: str) -> None:
        set_policy(console('display = "off"'))
        qemu = warden.started("web01", extra_devices=devices)
        assert not [word for word in qemu.arguments if "vnc" in word and word != "-vnc"]
        assert "-vnc" not in qemu.arguments
        ask = json.dumps({"execute": "query-vnc"})
        said = json.loads(warden.libvirt.virsh("qemu-monitor-command", "web01", ask).stdout)
        assert said["return"]["enabled"] is False
        assert warden.status("web01")["breaches"] == []
        assert warden.status("web01")["console_ca"] is None

    def test_one_that_is_still_there_is_a_breach(self, warden: Warden) -> None:
        warden.started("web01", vnc=Vnc())
        set_policy(console('display = "off"'))
        assert 'answers, but display = "off"' in " ".join(warden.status("web01")["breaches"])


class TestClientCertificates:
    """Viewers who must show a certificate, beside the password."""

    @pytest.fixture(scope="class")
    def passphrase(self, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
        file = tmp_path_factory.mktemp("ca") / "passphrase"
        file.write_text("four words by chance\n")
        file.chmod(0o600)
        return ["--passphrase-file", str(file)]

    @pytest.fixture(scope="class")
    def guarded(self, libvirt: Libvirt, passphrase: list[str]) -> Iterator[Warden]:
        run("rm", "-rf", str(PATHS.console_ca), str(PATHS.run / "keys"))
        set_policy(console('client_certificates = "required"'))
        warden = Warden(libvirt)
        warden.command("pki", "init", "consoles", *passphrase)
        for name in ("web01", "evil"):
            warden.started(name, vnc=Vnc())
            warden.set_password(name, PASSWORD)
        yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)
        run("rm", "-rf", str(PATHS.console_ca), str(PATHS.run / "keys"))

    def enter(self, warden: Warden, certificate: tuple[str, str] | None) -> str:
        port, ca = warden.vnc_port("web01"), authority(warden, "web01")
        return vnc.login(HOST, port, ca, PASSWORD, certificate=certificate)

    def issued(
        self, warden: Warden, name: str, directory: Path, passphrase: list[str]
    ) -> tuple[str, str]:
        bundle = directory / name
        warden.command("pki", "client", "consoles", name, "--out", str(bundle), *passphrase)
        return str(bundle / "clientcert.pem"), str(bundle / "clientkey.pem")

    def test_an_operators_certificate_and_the_password_get_in(
        self, guarded: Warden, tmp_path: Path, passphrase: list[str]
    ) -> None:
        assert "web01" in self.enter(guarded, self.issued(guarded, "ann", tmp_path, passphrase))
        assert guarded.status("web01")["breaches"] == []

    def test_none_or_another_authoritys_does_not(self, guarded: Warden, tmp_path: Path) -> None:
        for certificate in (None, Authority(tmp_path).client()):
            with pytest.raises(vnc.LoginRefusedError):
                self.enter(guarded, certificate)

    def test_the_certificate_of_another_vms_console_does_not(self, guarded: Warden) -> None:
        """A guest that broke out has that one: it is of the same authority."""
        tls = PATHS.cell(guarded.status("evil")["uuid"]) / "tls"
        with pytest.raises(vnc.LoginRefusedError):
            self.enter(guarded, (str(tls / "server-cert.pem"), str(tls / "server-key.pem")))

    def test_one_that_is_revoked_does_not_from_then_on(
        self, guarded: Warden, tmp_path: Path, passphrase: list[str]
    ) -> None:
        bob = self.issued(guarded, "bob", tmp_path, passphrase)
        eve = self.issued(guarded, "eve", tmp_path, passphrase)
        assert "web01" in self.enter(guarded, eve)
        guarded.command("pki", "revoke", "consoles", "eve", *passphrase)
        with pytest.raises(vnc.LoginRefusedError):
            self.enter(guarded, eve)
        assert "web01" in self.enter(guarded, bob)

    def test_a_console_that_asks_for_none_is_a_breach(self, warden: Warden) -> None:
        warden.started("web02", vnc=Vnc())
        set_policy(console('client_certificates = "required"'))
        assert "asks viewers for no certificate" in " ".join(warden.status("web02")["breaches"])


def test_a_standing_password_is_refused_at_the_start_where_the_policy_forbids_it(
    warden: Warden,
) -> None:
    set_policy(console('static_passwords = "deny"'))
    warden.libvirt.define(domain_xml("web01", vnc=Vnc(password=STRONG_PASSWORD)))
    assert (
        "its display has a static password" in warden.command("enrol", "web01", check=False).stderr
    )
    set_policy(ENFORCING)
    warden.command("enrol", "web01")
    set_policy(console('static_passwords = "deny"'))
    assert "its VNC display has a static password" in warden.refusal("web01")
    set_policy(ENFORCING)
    warden.libvirt.start("web01")
