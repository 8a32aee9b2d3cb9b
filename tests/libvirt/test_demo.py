# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo says what it sees: each scene, where its promise is broken on purpose, says so."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from lxml import etree

from demo import scenes
from demo.screen import Screen
from demo.stage import IMAGES, Stage, build, image, play
from tests.host.command import run
from tests.host.domain import domain_xml
from tests.host.namespace import CHECKOUT
from tests.host.network import neighbour
from tests.libvirt.warden import ENFORCING, Warden, set_policy

PRIVATE_HOST = (sys.executable, "-B", "-m", "tests.host", "--")
README = CHECKOUT / "README.md"
PICTURE = CHECKOUT / "docs" / "demo.svg"
Scene = Callable[[Stage], None]
SABOTAGED = """
import sys
from demo import __main__ as demo, scenes
from tests.host.command import run

def sabotage(stage):
    run("nft", "flush", "chain", "netdev", "virt-warden", f"vmw-{stage.tap('web01')}")

(start,) = [scene for scene in scenes.SCENES if scene[1] is scenes.start]
(frames,) = [scene for scene in scenes.SCENES if scene[1] is scenes.frames]
demo.SCENES = (start, ("Sabotage", sabotage), frames)
sys.exit(demo.main())
"""


@pytest.fixture
def stage(warden: Warden, bridge: str) -> Iterator[Stage]:
    """The demo's own, in the libvirtd of the tests."""
    with neighbour(bridge) as sniffer:
        try:
            yield build(Screen(io.StringIO()), warden.libvirt, bridge, sniffer)
        finally:
            warden.libvirt.remove_domains()
            shutil.rmtree(IMAGES)


def run_a_vm_unguarded(stage: Stage) -> None:
    set_policy('managed = ["*", "!theirs"]\n')
    stage.libvirt.define(domain_xml("theirs"))
    stage.libvirt.start("theirs")


def open_a_disk(_stage: Stage) -> None:
    image("db01").chmod(0o644)


def open_the_base(_stage: Stage) -> None:
    run("setfacl", "-m", "u:vmw-web01:rw", str(image("base")))


def delete_the_filter(stage: Stage) -> None:
    run("nft", "flush", "chain", "netdev", "virt-warden", f"vmw-{stage.tap('web01')}")


def cut_the_cable(stage: Stage) -> None:
    run("ip", "link", "set", stage.tap("web01"), "nomaster")


def start_without_tls(stage: Stage) -> None:
    set_policy(ENFORCING + '[console]\ntls = "off"\n')
    stage.libvirt.destroy("web01")
    stage.libvirt.start("web01")


def start_without_password(stage: Stage) -> None:
    set_policy(ENFORCING + '[console]\npassword = "off"\n')
    stage.libvirt.destroy("web01")
    stage.libvirt.start("web01")


def be_permissive(_stage: Stage) -> None:
    set_policy(ENFORCING + 'mode = "permissive"\n')


def leave_a_rule(_stage: Stage) -> None:
    run("nft", "add", "table", "netdev", "left-over")


# In an order in which what one sabotage leaves behind does not spoil what the next one shows.
SABOTAGES: tuple[tuple[Scene, Scene, str], ...] = (
    (scenes.processes, run_a_vm_unguarded, "each VM runs as its own user"),
    (scenes.disks, open_a_disk, "web01 cannot read db01's disk"),
    (scenes.disks, open_the_base, "web01 cannot write the shared base"),
    (scenes.frames, delete_the_filter, "spoofed frames do not"),
    (scenes.frames, cut_the_cable, "No VM can send with another's address (TimeoutError"),
    (scenes.console, start_without_tls, "a viewer without TLS is turned away"),
    (scenes.console, start_without_password, "only VeNCrypt with x509 is offered"),
    (scenes.refusals, be_permissive, "a domain that is not enrolled is refused"),
    (scenes.status, delete_the_filter, "all guards are up"),
    (scenes.stop, leave_a_rule, "owners, modes, rules, users and XML are as before"),
)


def test_every_scene_tells_of_a_promise_that_is_broken(stage: Stage) -> None:
    scenes.start(stage)
    titles = {scene: title for title, scene in scenes.SCENES}
    for scene, sabotage, promise in SABOTAGES:
        sabotage(stage)
        stage.screen.broken.clear()
        play(stage, titles[scene], scene)
        broken = stage.screen.broken
        assert any(text.startswith(promise) for text in broken), (sabotage.__name__, broken)
    assert {scene for scene, _, _ in SABOTAGES} == titles.keys() - {scenes.start}


def test_the_first_scene_tells_that_nothing_starts(stage: Stage) -> None:
    set_policy("managed = 1\n")
    scenes.start(stage)
    assert stage.screen.broken == ["both run, guarded"]


@pytest.fixture(scope="module")
def played() -> subprocess.CompletedProcess[str]:
    """The whole demo, as `make demo` plays it."""
    return run(*PRIVATE_HOST, sys.executable, "-B", "-m", "demo", check=False)


def test_the_demo_keeps_every_promise(played: subprocess.CompletedProcess[str]) -> None:
    assert played.returncode == 0, played.stdout + played.stderr
    assert "BROKEN" not in played.stdout
    assert played.stdout.count("kept: ") > len(scenes.SCENES)


def test_the_demo_fits_80_columns(played: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, played.stdout.splitlines())) <= 80


def test_the_readmes_picture_shows_what_the_demo_prints(
    played: subprocess.CompletedProcess[str],
) -> None:
    assert "](docs/demo.svg)" in README.read_text()
    rows = etree.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text")
    shown = by_scene("".join(f"{''.join(row.itertext())}\n" for row in rows))
    real = by_scene(played.stdout)
    assert len(shown) == 2
    for title, lines in shown.items():
        assert lines == real[title]


def by_scene(printed: str) -> dict[str, list[str]]:
    """Lines by the title of their scene, without what differs from one run to the next."""
    same = re.sub(r"[A-Z][a-z]{2} +\d+ \d\d:\d\d", "DATE", printed)
    same = re.sub(r" +", " ", re.sub(r"\d+", "N", same))
    _, *found = re.split(r"^N\. ", same, flags=re.MULTILINE)
    return {scene.splitlines()[0]: scene.strip().splitlines()[1:] for scene in found}


def test_the_demo_fails_where_the_filter_is_deleted_between_two_scenes() -> None:
    done = run(*PRIVATE_HOST, sys.executable, "-B", "-c", SABOTAGED, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\nBROKEN: spoofed frames do not\n" in done.stdout
