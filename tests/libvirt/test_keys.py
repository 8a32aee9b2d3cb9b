# SPDX-License-Identifier: GPL-2.0-or-later
"""Every place that a key can be in, for real, and that it is to be found nowhere else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.images import luks
from tests.host.keyservers import person, tang
from tests.host.syslog import Syslog
from tests.libvirt.vault import KEY, Vault, eventually, opened


def starts(vault: Vault) -> bool:
    """Whether the domain starts, with its disk open, and stops with it closed."""
    vault.enrol()
    vault.warden.libvirt.start("web01")
    was_open = opened() == ["vmw-web01-vda"]
    vault.warden.libvirt.destroy("web01")
    return was_open and opened() == []


def test_a_key_file_may_hold_any_bytes(vault: Vault, images: Path) -> None:
    for content in (b"\0\n\xff" * 1000, b"with a newline\n"):
        container = images / f"{len(content)}.luks"
        vault.key = images / f"{len(content)}.key"
        vault.key.write_bytes(content)
        vault.key.chmod(0o400)
        run("truncate", "-s", "32M", str(container))
        quick = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
        run("cryptsetup", "luksFormat", "-q", *quick, str(container), str(vault.key))
        vault.container = container
        vault.say()
        assert starts(vault)


class TestSystemdCredentials:
    def test_one_of_this_host_opens_the_container(self, vault: Vault, images: Path) -> None:
        credential = images / "web01"
        run("systemd-creds", "encrypt", "--with-key=host", "-", str(credential), stdin=KEY)
        assert KEY not in credential.read_text()
        vault.say(key_file="", key_credential=f'"{credential}"')
        assert starts(vault)

    def test_one_of_another_name_is_refused(self, vault: Vault, images: Path) -> None:
        credential = images / "web01"
        run("systemd-creds", "encrypt", "--with-key=host", "-", str(credential), stdin=KEY)
        credential.rename(images / "web02")
        vault.say(key_file="", key_credential=f'"{images}/web02"')
        assert "the credential cannot be decrypted" in vault.refusal()

    def test_one_of_another_host_is_refused(self, vault: Vault, images: Path) -> None:
        credential = images / "web01"
        run("systemd-creds", "encrypt", "--with-key=host", "-", str(credential), stdin=KEY)
        secret = Path("/var/lib/systemd/credential.secret")
        secret.rename(secret.with_suffix(".kept"))
        run("systemd-creds", "setup")
        vault.say(key_file="", key_credential=f'"{credential}"')
        assert "the credential cannot be decrypted" in vault.refusal()
        secret.with_suffix(".kept").rename(secret)
        vault.warden.libvirt.start("web01")
        vault.warden.libvirt.destroy("web01")


class TestClevis:
    @pytest.fixture
    def server(self, images: Path) -> Iterator[str]:
        with tang(images / "tang") as url:
            yield url

    def bind(self, vault: Vault, pin: str, config: str) -> None:
        run(
            "clevis",
            "luks",
            "bind",
            "-y",
            "-k-",
            "-d",
            str(vault.container),
            pin,
            config,
            stdin=KEY,
        )
        vault.key.unlink()
        vault.say(key_file="", key_clevis='"header"')

    def test_a_tang_server_opens_the_container_that_was_bound_to_it(
        self, vault: Vault, server: str
    ) -> None:
        self.bind(vault, "tang", f'{{"url": "{server}"}}')
        assert starts(vault)

    def test_luks1_can_be_bound_as_well(self, vault: Vault, images: Path, server: str) -> None:
        vault.container = luks(images / "old.luks", KEY, version=1)
        self.bind(vault, "tang", f'{{"url": "{server}"}}')
        assert starts(vault)

    def test_a_file_that_clevis_encrypted_opens_it(
        self, vault: Vault, images: Path, server: str
    ) -> None:
        sealed = images / "web01.jwe"
        config = f'{{"url": "{server}"}}'
        sealed.write_text(run("clevis", "encrypt", "tang", config, "-y", stdin=KEY).stdout)
        vault.say(key_file="", key_clevis=f'"{sealed}"')
        assert starts(vault)

    def test_a_tang_server_that_is_gone_is_a_refusal(self, vault: Vault, images: Path) -> None:
        with tang(images / "tang") as url:
            self.bind(vault, "tang", f'{{"url": "{url}"}}')
        line = vault.refusal()
        assert "clevis does not give the key" in line
        assert f"clevis luks list -d {vault.container}" in line

    def test_a_container_that_was_never_bound_is_a_refusal(self, vault: Vault) -> None:
        vault.say(key_file="", key_clevis='"header"')
        assert "clevis does not give the key" in vault.refusal()

    def test_the_second_binding_is_tried_where_the_first_fails(
        self, vault: Vault, images: Path, server: str
    ) -> None:
        with tang(images / "gone", port=7501) as gone:
            config = f'{{"url": "{gone}"}}'
            device = ("-d", str(vault.container))
            run("clevis", "luks", "bind", "-y", "-k-", *device, "tang", config, stdin=KEY)
        self.bind(vault, "tang", f'{{"url": "{server}"}}')
        assert starts(vault)


class TestAsking:
    def test_the_one_who_is_asked_opens_the_container(self, vault: Vault) -> None:
        vault.say(key_file="", key_ask="30")
        with person(KEY) as asked:
            assert starts(vault)
        assert asked == ["Passphrase for disk vda of web01"]

    def test_a_wrong_passphrase_is_a_refusal(self, vault: Vault) -> None:
        vault.say(key_file="", key_ask="30")
        with person("wrong"):
            assert "wrong key" in vault.refusal()

    def test_nobody_is_waited_for_longer_than_the_policy_says(self, vault: Vault) -> None:
        vault.say(key_file="", key_ask="1")
        with person(None) as asked:
            line = vault.refusal()
        assert asked
        assert "nobody gave the passphrase within 1 s" in line
        assert "systemd-tty-ask-password-agent" in line

    def test_where_nobody_can_be_asked_the_refusal_says_so(self, vault: Vault) -> None:
        vault.say(key_file="", key_ask="30")
        questions = Path("/run/systemd/ask-password")
        shutil.rmtree(questions, ignore_errors=True)
        questions.touch()
        try:
            line = vault.refusal()
        finally:
            questions.unlink()
        assert "/usr/bin/systemd-ask-password" in line
        assert "Failed to query password" in line
        assert "nobody gave" not in line


class TestTraces:
    """A key goes through pipes, and is to be found nowhere else, during a start or after it."""

    @pytest.fixture(params=["file", "credential", "clevis", "ask"])
    def source(self, request: pytest.FixtureRequest, vault: Vault, images: Path) -> Iterator[str]:
        """A domain whose key is there."""
        kind = str(request.param)
        with tang(images / "tang") as url:
            if kind == "credential":
                run("systemd-creds", "encrypt", "-H", "-", str(images / "web01"), stdin=KEY)
                vault.say(key_file="", key_credential=f'"{images}/web01"')
            elif kind == "clevis":
                config = f'{{"url": "{url}"}}'
                sealed = run("clevis", "encrypt", "tang", config, "-y", stdin=KEY).stdout
                (images / "web01.jwe").write_text(sealed)
                vault.say(key_file="", key_clevis=f'"{images}/web01.jwe"')
            elif kind == "ask":
                vault.say(key_file="", key_ask="60")
            if kind != "file":
                vault.key.unlink()
            with person(KEY) if kind == "ask" else nullcontext():
                yield kind

    def test_are_in_no_argument_environment_or_file_while_the_hook_works(
        self, vault: Vault, source: str, images: Path
    ) -> None:
        vault.enrol()
        lines = traced_hook(images / "trace", vault.warden.libvirt.xml("web01"))
        assert opened() == []
        seen = [line for line in lines if KEY in line]
        assert any(line.startswith("write(") for line in seen), "the trace missed it"
        allowed = re.compile(
            rf"(write|read)\(\d+<pipe:\[\d+\]>, |read\(\d+<{re.escape(str(vault.key))}>, "
        )
        assert [line for line in seen if not allowed.match(line)] == []

    def test_are_in_no_process_log_or_file_while_the_vm_runs_or_after(
        self, vault: Vault, source: str, syslog: Syslog
    ) -> None:
        vault.enrol()
        vault.warden.libvirt.start("web01")
        running = [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]
        assert [path for path in running if KEY.encode() in content(path)] == []
        written = written_down()
        vault.warden.libvirt.destroy("web01")
        written += written_down()
        assert written == ""
        assert syslog.wait_for("event=undone")
        assert not any(KEY in line for line in syslog.lines())


def written_down() -> str:
    """The files with the key in them, but for the tests' own."""
    places = "/run /tmp /dev/shm /etc /var/tmp /var/log /var/lib/virt-warden /var/lib/libvirt"
    options = ("-rlF", "-D", "skip", "--exclude-dir=images", "-e", KEY)
    return run("grep", *options, *places.split(), check=False).stdout


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def traced_hook(directory: Path, xml: str) -> list[str]:
    """All that the hook and its children execute, read and write as it opens a disk (strace).

    A file for each thread, so that each call is on one line with its descriptors.
    """
    directory.mkdir()
    calls = "execve,read,write,pread64,pwrite64,readv,writev,sendto,sendmsg,recvfrom,splice"
    output = ("-ff", "-o", str(directory / "of"), "-s", "65536", "-v", "-y")
    hook = ("/etc/libvirt/hooks/qemu", "web01")
    command = ["strace", "-f", "--seccomp-bpf", *output, "-e", f"trace={calls}", *hook, "prepare"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdin is not None
        tracer.stdin.write(xml)
        tracer.stdin.close()
        eventually(lambda: len(opened()))
        # Until then, what holds the stand-in's loop device is traced as well.
        run(*hook, "release", stdin=xml)
    found = [
        line
        for file in directory.iterdir()
        for line in file.read_text(errors="replace").splitlines()
    ]
    shutil.rmtree(directory)
    return found
