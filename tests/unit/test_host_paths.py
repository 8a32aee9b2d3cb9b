# SPDX-License-Identifier: GPL-2.0-or-later
"""No place of a domain's XML in which libvirt takes a path of the host is overlooked.

libvirt's own schema says which those are. What is seen here is refused by the host guard, unless
a guard looks at it.
"""

from __future__ import annotations

import pytest
from libvirt_schema import Place, places, written

from virtwarden.domain.model import from_tree

PATH = {"absFilePath", "absDirPath", "filePath"}
# Elements of other namespaces, which the schema's places do not tell: the sandbox guard refuses
# QEMU's. The names of domains are paths for nobody, whatever their type.
ELSEWHERE = ("commandline", "override", "capabilities", "deprecation", "namespace", "metadata")
# Under Linux containers and ESX alone.
NOT_QEMUS = ("root", "initdir", "init", "idmap", "datacenterpath")

# Of type text in the schema, and yet a path.
PATHS_BY_MEANING = {
    *{
        ("domain", "devices", tag, "source", f"@{name}")
        for tag in ("console", "parallel", "serial", "channel", "smartcard", "redirdev")
        for name in ("path",)
    },
    ("domain", "devices", "rng", "backend", "source", "@path"),
    ("domain", "devices", "lease", "target", "@path"),
    ("domain", "sysinfo", "entry", "@file"),
    # Since libvirt 11.2
    ("domain", "os", "shim", "text()"),
}
# Free texts in which no honest slash stands: modes, ports, interfaces, addresses, BSD's terminals
# (@master, @slave). Audio's servers, leases and other displays are refused anyway.
SLASHLESS = {
    *("@mode", "@host", "@service", "@model", "@port", "@address", "@network", "@bridge", "@hash"),
    *("@dev", "@portgroupid", "@parent", "@id", "@master", "@slave", "@serverName", "@display"),
    *("@xauth", "interface/text()", "lockspace/text()", "key/text()", "bootloader/text()"),
}
# Such places that only newer schemas have, those of Debian 13.
LATER = {"@group"}


def seen(place: Place, value: str) -> bool:
    found = from_tree(written(place, value))
    paths = [path for device in found.devices for path in device.paths]
    return value in [*paths, *found.other_paths, found.emulator]


def of_type(types: set[str]) -> list[Place]:
    return [
        place
        for place, found in places().items()
        if found & types
        and len(place) > 2
        and place[1] not in (*ELSEWHERE, "blkiotune", "resource")
        and not {*place} & {*NOT_QEMUS, "mirror", "title"}
    ]


def test_the_schema_has_many_paths() -> None:
    assert len(of_type(PATH)) > 60
    assert ("domain", "devices", "disk", "source", "@file") in of_type(PATH)
    assert ("domain", "os", "kernel", "text()") in of_type(PATH)


@pytest.mark.parametrize("value", ["/etc/shadow", "etc/shadow", "../etc/shadow"])
def test_no_path_of_the_schema_is_overlooked(value: str) -> None:
    overlooked = [place for place in of_type(PATH) if not seen(place, value)]
    assert overlooked == []


def test_no_path_that_is_one_by_its_meaning_is_overlooked() -> None:
    assert not {place for place in PATHS_BY_MEANING if not seen(place, "/etc/shadow")}


@pytest.mark.parametrize(
    "place",
    [
        ("domain", "devices", "serial", "source", "@path"),
        ("domain", "devices", "tpm", "backend", "device", "@path"),
        ("domain", "devices", "interface", "backend", "@vhost"),
        ("domain", "devices", "interface", "backend", "@tap"),
        ("domain", "devices", "interface", "script", "@path"),
        ("domain", "devices", "rng", "backend", "text()"),
        ("domain", "devices", "smartcard", "database", "text()"),
        ("domain", "devices", "memory", "source", "path", "text()"),
        ("domain", "os", "nvram", "@template"),
        ("domain", "devices", "filesystem", "source", "@socket"),
        ("domain", "devices", "video", "model", "acceleration", "@rendernode"),
    ],
)
def test_a_name_without_a_slash_is_a_path_too_where_libvirt_takes_one(place: Place) -> None:
    """libvirtd's working directory is the root: 'swapfile' is /swapfile."""
    assert seen(place, "swapfile")


def test_no_free_text_is_taken_for_a_path() -> None:
    """An honest domain is not refused for a slash in a name, a password or a comment."""
    free = [place for place in of_type({"text"}) if not places()[place] & PATH]
    assert len(free) > 100
    taken = {place for place in free if seen(place, "a/b")} - PATHS_BY_MEANING
    names = {"/".join(place[-1 if place[-1][0] == "@" else -2 :]) for place in taken}
    assert names - LATER == SLASHLESS


def test_a_password_is_never_taken_for_a_path() -> None:
    assert not seen(("domain", "devices", "graphics", "@passwd"), "a/b")


def test_what_libvirt_learns_later_is_seen() -> None:
    assert seen(("domain", "devices", "teleporter", "source", "@target-file"), "/etc/shadow")
    assert seen(("domain", "os", "shim", "text()"), "/etc/shadow")
    assert seen(("domain", "firmware", "variables", "@store"), "/etc/shadow")
