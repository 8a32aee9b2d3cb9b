# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shown, scene by scene; each looks at the running host and says which promises held."""

from __future__ import annotations

from collections.abc import Callable

from demo.stage import CONSOLE_CA, IMAGES, MACS, Stage, image, user
from tests.host import vnc
from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.frames import BROADCAST, ETHERTYPE_EXPERIMENT, arp, ethernet
from tests.host.tap import inject

_DENIED = "Permission denied"
_FIRST_VNC_PORT = 5900
_PASSWORD = "s3same"
_FROM_VM = b"from the VM"
_LAST = b"the last frame"
_REFUSED = "Authentication failed"
_KINDS_OF_SECURITY = {
    vnc.SECURITY_NONE: "None",
    vnc.SECURITY_VNC_AUTH: "plain VNC",
    vnc.SECURITY_VENCRYPT: "VeNCrypt",
    vnc.VENCRYPT_X509_VNC: "X509Vnc",
}


def start(stage: Stage) -> None:
    """One command enrols all VMs; each later start is guarded."""
    enrolled = stage.run("virt-warden enrol --all")
    started = [stage.run(f"virsh start {name}").returncode for name in MACS]
    stage.promise("both run, guarded", kept=[enrolled.returncode, *started] == [0, 0, 0])


def processes(stage: Stage) -> None:
    """Each QEMU has its own user and no privilege."""
    listed = stage.run("ps --cols 76 -o user:10,uid,pid,args -C qemu-system-x86").stdout
    users = {line.split()[0] for line in listed.splitlines()[1:]}
    stage.promise("each VM runs as its own user", kept=users == {user(name) for name in MACS})
    pid = stage.libvirt.pid("web01")
    lines = "^(Uid|Gid|CapPrm|NoNewPrivs|Seccomp):"
    status = stage.run(f"grep -E '{lines}' /proc/{pid}/status").stdout
    facts = {name: values.split() for name, _, values in _fields(status)}
    own = run("id", "-u", user("web01")).stdout.strip()
    harmless = (
        set(facts["Uid"]) == set(facts["Gid"]) == {own}
        and int(facts["CapPrm"][0], 16) == 0
        and facts["NoNewPrivs"] == ["1"]
        and facts["Seccomp"] == ["2"]
    )
    stage.promise("it holds no capability and can gain none", kept=harmless)


def _fields(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in text.splitlines()]


def disks(stage: Stage) -> None:
    """A VM's user opens its own disk, reads the base, and nothing else."""
    listed = stage.run(f"ls -l {IMAGES}").stdout
    owners = {line.split()[-1]: line.split()[2] for line in listed.splitlines()[1:]}
    expected = {image(name).name: user(name) for name in MACS} | {image("base").name: "root"}
    stage.promise(
        "each disk belongs to its VM's user, the shared base to root", kept=owners == expected
    )

    as_web = f"runuser -u {user('web01')} --"
    own = stage.run(f"{as_web} head -c 3 {image('web01')}")
    stage.promise("web01 reads its own disk", kept=own.stdout == "QFI")
    theirs = stage.run(f"{as_web} head -c 3 {image('db01')}")
    stage.promise("web01 cannot read db01's disk", kept=_denied(theirs.returncode, theirs.stderr))
    base = stage.run(f"{as_web} sh -c ': >> {image('base')}'")
    stage.promise("web01 cannot write the shared base", kept=_denied(base.returncode, base.stderr))


def _denied(code: int, said: str) -> bool:
    return code != 0 and _DENIED in said


def frames(stage: Stage) -> None:
    """Frames that web01 sends with db01's address are dropped at its tap."""
    stage.run("virsh domiflist web01")
    own, other = MACS["web01"], MACS["db01"]
    sent = {
        f"frame from {own}, its own": _frame(own),
        f"frame from {other}, db01's": _frame(other),
        f"ARP: 192.0.2.1 is at {own}, its own": arp(own, own, "192.0.2.1", "192.0.2.9"),
        f"ARP: 192.0.2.1 is at {other}, db01's": arp(own, other, "192.0.2.1", "192.0.2.9"),
    }
    last = ethernet(own, BROADCAST, ETHERTYPE_EXPERIMENT, _LAST)
    inject(stage.tap("web01"), *sent.values(), last)
    arrived = stage.neighbour.frames_until(_LAST)
    for what, frame in sent.items():
        stage.screen.output(f"{what:<52}{'arrived' if frame in arrived else 'dropped'}")
    honest, spoofed, honest_arp, spoofed_arp = (frame in arrived for frame in sent.values())
    stage.promise("honest frames arrive at a neighbour", kept=honest and honest_arp)
    stage.promise("spoofed frames do not", kept=not spoofed and not spoofed_arp)


def _frame(source: str) -> bytes:
    return ethernet(source, BROADCAST, ETHERTYPE_EXPERIMENT, _FROM_VM)


def console(stage: Stage) -> None:
    """VNC offers only TLS, and accepts only viewers with the password."""
    display = stage.run("virsh vncdisplay web01").stdout.strip()
    host, _, number = display.rpartition(":")
    address = host or "127.0.0.1", _FIRST_VNC_PORT + int(number)
    types, subtypes = vnc.security_types(*address), vnc.vencrypt_subtypes(*address)
    stage.screen.output(f"offered:                   {_named(types)}, in it {_named(subtypes)}")
    only_x509 = types == [vnc.SECURITY_VENCRYPT] and subtypes == [vnc.VENCRYPT_X509_VNC]
    stage.promise("only VeNCrypt with x509 is offered", kept=only_x509)

    answers = vnc.try_plain(*address)
    for kind, answer in answers.items():
        stage.screen.output(f"{f'asked for {_named([kind])}:':<26} {answer}")
    let_in = {vnc.ACCEPTED, vnc.ASKS_FOR_PASSWORD} & set(answers.values())
    stage.promise("a viewer without TLS is turned away", kept=not let_in)

    unset = _login(address, _PASSWORD)
    _set_password(stage)
    wrong, right = _login(address, "another"), _login(address, _PASSWORD)
    stage.screen.output(f"TLS, before it was set:    {unset}")
    stage.screen.output(f"TLS, a wrong password:     {wrong}")
    stage.screen.output(f"TLS, the right password:   {right}")
    stage.promise(
        "the right password opens it, over TLS with a verified certificate",
        kept=(unset, wrong, right) == (_REFUSED, _REFUSED, "QEMU (web01)"),
    )


def _named(kinds: list[int]) -> str:
    return ", ".join(f"{kind} ({_KINDS_OF_SECURITY.get(kind, '?')})" for kind in kinds)


def _login(address: tuple[str, int], password: str) -> str:
    try:
        return vnc.login(*address, CONSOLE_CA, password, "localhost")
    except vnc.LoginRefusedError as refusal:
        return refusal.reason


def _set_password(stage: Stage) -> None:
    # On stdin, where ps does not show it.
    graphics = f"<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='{_PASSWORD}'/>"
    stage.run("virsh update-device web01 /dev/stdin --live", stdin=graphics)


def refusals(stage: Stage) -> None:
    """A domain that breaks a rule does not start; the refusal names the fix."""
    stage.libvirt.define(domain_xml("copycat", disks=[Disk(image("db01"))]))
    stranger = stage.run("virsh start copycat")
    fix = "virt-warden enrol copycat"
    told = stranger.returncode != 0 and f"fix: {fix}" in stranger.stderr
    stage.promise("a domain that is not enrolled is refused, and the fix is named", kept=told)
    fixed = stage.run(fix).returncode == 0
    thief = stage.run("virsh start copycat")
    told = thief.returncode != 0 and "running domain db01 also uses it" in thief.stderr
    stage.promise("a disk that a running VM writes is refused to another", kept=fixed and told)
    run("virt-warden", "unenrol", "copycat")
    stage.libvirt.undefine("copycat")


def status(stage: Stage) -> None:
    """`status` asks the kernel each time, so it also reports a later breach."""
    healthy = stage.run("virt-warden status web01")
    stage.promise("all guards are up", kept=healthy.returncode == 0)
    stage.run(f"nft flush chain netdev virt-warden vmw-{stage.tap('web01')}")
    broken = stage.run("virt-warden status")
    told = broken.returncode == 1 and "! web01: network:" in broken.stdout
    stage.promise("status reports a deleted rule at once", kept=told)


def stop(stage: Stage) -> None:
    """After the stop the host is as before; after `unenrol` also libvirt's XML and /etc/passwd."""
    for name in MACS:
        stage.run(f"virsh destroy {name}")
    stage.run(f"ls -l {IMAGES}")
    left = run("pgrep", "--uid", ",".join(map(user, MACS)), check=False).stdout.split()
    stage.promise("no process of theirs is left", kept=not left)
    stage.run("virt-warden unenrol --all")
    after = stage.now()
    changed = sorted(
        what
        for what in stage.before.keys() | after.keys()
        if stage.before.get(what) != after.get(what)
    )
    for what in changed:
        stage.screen.output(f"{what} was:\n{stage.before.get(what)}\nand is:\n{after.get(what)}")
    stage.promise("owners, modes, rules, users and XML are as before", kept=not changed)


SCENES: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Two VMs on one base image are enrolled and start", start),
    ("Each VM has its own user, without privileges", processes),
    ("Each VM's disk is its own", disks),
    ("No VM can send with another's address", frames),
    ("The console needs TLS and a password", console),
    ("A domain that breaks a rule does not start", refusals),
    ("Promises are checked on the running VM", status),
    ("Nothing is left after the stop", stop),
)
"""Each scene with its title, in the order in which they are played."""
