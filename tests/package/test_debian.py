# SPDX-License-Identifier: GPL-2.0-or-later
"""What Debian asks of a package: two builds are one, lintian, and a test of its own."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.namespace import CHECKOUT
from tests.package.dpkg import Package

BUILD = "packaging/deb.sh"
DEBIAN = CHECKOUT / "packaging" / "debian"
# What differs from one builder to the next, and must not show in what is built.
BUILDERS = (
    {"umask": "0022", "LC_ALL": "C", "TZ": "UTC", "HOME": "/root", "directory": "a"},
    {"umask": "0077", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "HOME": "/", "directory": "b/c/d"},
)
# What lintian says at its most pedantic, with why it stays: of Debian 13's there is nothing.
EXPLAINED = {
    "12": {
        "newer-standards-version": "the package is held to Debian 13's policy",
        "package-supports-alternative-init-but-no-init.d-script": "without the service the hook "
        "does its work itself, and Debian 13's lintian does not ask for an init.d script any more",
    }
}


def copy_of_the_checkout(to: Path) -> Path:
    kept = shutil.ignore_patterns("build", ".git", "__pycache__")
    return Path(shutil.copytree(CHECKOUT, to, ignore=kept))


def test_two_builders_get_the_same_bytes(tmp_path: Path) -> None:
    built = []
    for seconds, builder in enumerate(BUILDERS):
        checkout = copy_of_the_checkout(tmp_path / builder["directory"])
        for path in checkout.rglob("*"):
            os.utime(path, (86400 + seconds, 86400 + seconds))
            if builder["umask"] == "0077":
                path.chmod(path.stat().st_mode & 0o700)
        settings = [f"{name}={value}" for name, value in builder.items() if name.isupper()]
        shell = f"umask {builder['umask']} && cd '{checkout}' && {BUILD} out full"
        run("env", *settings, "sh", "-c", shell, seconds=300)
        found = [*(checkout / "out").glob("*.deb"), *(checkout / "out").glob("*.tar.xz")]
        built.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in found})
    assert len(built[0]) == 2
    assert built[0] == built[1]


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with its source, as it is uploaded."""
    directory = tmp_path_factory.mktemp("upload") / "built"
    run("sh", str(CHECKOUT / BUILD), str(directory), "full", seconds=300)
    (found,) = directory.glob("*.changes")
    return found


def test_lintian_says_nothing_that_is_not_explained(changes: Path) -> None:
    level = ("--pedantic", "--display-info", "--show-overrides", "--allow-root")
    said = run("lintian", *level, str(changes), check=False, seconds=300)
    assert said.stderr == ""
    tags = re.findall(r"^\w: [^:]+: ([\w.-]+)", said.stdout, re.MULTILINE)
    release = platform.freedesktop_os_release()["VERSION_ID"]
    assert {*tags} == {*EXPLAINED.get(release, {})}, said.stdout


def test_the_copyright_names_who_holds_it_and_a_license_for_every_file() -> None:
    stanzas = (DEBIAN / "copyright").read_text().split("\n\n")
    assert stanzas[0].startswith(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
    )
    files = [stanza for stanza in stanzas if stanza.startswith("Files: ")]
    assert files[0].startswith("Files: *\n")
    licenses = {re.findall(r"^License: (\S+)", stanza, re.MULTILINE)[0] for stanza in files}
    texts = {name for stanza in stanzas for name in re.findall(r"\ALicense: (\S+)", stanza)}
    assert licenses <= texts
    assert all(re.search(r"^Copyright: \d{4}", stanza, re.MULTILINE) for stanza in files)


class TestOfDebians:
    """debian/tests, run here as autopkgtest runs it on a machine of its own."""

    def test_every_promise_is_kept_by_the_installed_package(self, package: Package) -> None:
        package.install()
        done = run(str(DEBIAN / "tests" / "demo"), check=False, seconds=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "promises kept" in done.stdout

    def test_it_fails_where_the_installed_package_is_broken(self, package: Package) -> None:
        package.install()
        # What the checkout has in its place works.
        (Path("/usr/share/virt-warden") / "virtwarden" / "hook.py").write_text("1 / 0\n")
        done = run(str(DEBIAN / "tests" / "demo"), check=False, seconds=300)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "BROKEN: both run, guarded" in done.stdout
        package.install()

    def test_it_fails_where_no_package_is_installed(self) -> None:
        done = run(str(DEBIAN / "tests" / "demo"), check=False, seconds=300)
        assert done.returncode != 0

    def test_its_control_file_names_it_and_what_it_may_do(self) -> None:
        control = (DEBIAN / "tests" / "control").read_text()
        (tests,) = re.findall(r"^Tests: (.*)$", control, re.MULTILINE)
        assert {path.name for path in (DEBIAN / "tests").iterdir()} == {"control", *tests.split()}
        (restrictions,) = re.findall(r"^Restrictions: (.*)$", control, re.MULTILINE)
        assert restrictions.split(", ") == ["allow-stderr", "isolation-machine", "needs-root"]
