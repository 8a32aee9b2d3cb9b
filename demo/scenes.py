"""What is shown, scene by scene; each looks at the running host and says which promises held."""

from __future__ import annotations

from collections.abc import Callable

from demo.stage import MACS, Stage


def enrolment(stage: Stage) -> None:
    """Two commands put a VM under guard."""
    enrolled = stage.run("virt-warden enrol --all")
    stage.screen.promise("both are under guard from now on", kept=enrolled.returncode == 0)
    for name in MACS:
        started = stage.run(f"virsh start {name}")
        stage.screen.promise(f"{name} runs", kept=started.returncode == 0)


SCENES: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Two VMs on one base image come under guard", enrolment),
)
"""Each scene with its title, in the order in which they are played."""
