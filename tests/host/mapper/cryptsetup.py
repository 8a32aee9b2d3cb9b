#!/usr/bin/python3 -IB
# SPDX-License-Identifier: GPL-2.0-or-later
"""cryptsetup without the kernel's device mapper; tests/host/mapper says what it is for."""

import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

REAL = "/usr/sbin/cryptsetup.real"
BLOCK = Path("/run/fake-sys-block")
NODES = Path("/dev/mapper")
# linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
# struct loop_config: fd, block_size, struct loop_info64 with lo_offset at 24, lo_flags at 52, rest
LOOP_CONFIG = struct.Struct("=II24xQ20xI176x64x")
# LUKS2 has it in bytes, LUKS1 in sectors of 512.
OFFSET = re.compile(r"^\s*offset:\s*(\d+) \[bytes\]|^Payload offset:\s*(\d+)", re.MULTILINE)
CHEAP = ("--pbkdf-force-iterations=4", "--pbkdf-memory=32", "--pbkdf-parallel=1")
BUSY = 5


def main(arguments: list[str]) -> int:
    flags = [word for word in arguments if word.startswith("--")]
    action, *words = [w for w in arguments if not w.startswith("--") and w not in ("luks",)]
    if action == "close":
        return close(words[0], "--deferred" in flags)
    if "--pbkdf=argon2id" in flags:
        # As cheap as it gets: what a guess costs is the real cryptsetup's affair.
        arguments = [*arguments, *CHEAP]
    if action != "open" or "--test-passphrase" in flags:
        os.execv(REAL, [REAL, *arguments])  # noqa: S606
    (key_file,) = [flag.partition("=")[2] for flag in flags if flag.startswith("--key-file=")]
    key = sys.stdin.buffer.read() if key_file == "-" else Path(key_file).read_bytes()
    container, name = words
    return open_container(container, name, key, readonly="--readonly" in flags)


def open_container(container: str, name: str, key: bytes, *, readonly: bool) -> int:
    test = [REAL, "open", "--type", "luks", "--test-passphrase", "--key-file=-", container]
    code = subprocess.run(test, input=key, check=False).returncode
    if code != 0:
        return code
    if (NODES / name).exists():
        print(f"Device {name} already exists.", file=sys.stderr)
        return BUSY
    pause_where_told()
    holder, loop = hold_loop(container, readonly=readonly)
    device = BLOCK / f"dm-{loop.removeprefix('/dev/loop')}"
    (device / "dm").mkdir(parents=True)
    (device / "slaves").mkdir()
    (device / "slaves" / Path(loop).name).symlink_to(f"/sys/devices/virtual/block/{loop[5:]}")
    number = Path(loop).stat().st_rdev
    (device / "dev").write_text(f"{os.major(number)}:{os.minor(number)}\n")
    (device / "ro").write_text(f"{int(readonly)}\n")
    (device / "holder").write_text(str(holder))
    (device / "dm" / "uuid").write_text(f"CRYPT-FAKE-{name}\n")
    os.mknod(NODES / name, 0o60600, number)
    # Last: it is there for whoever looks once its name is.
    (device / "dm" / "name").write_text(f"{name}\n")
    return 0


def pause_where_told() -> None:
    """A test kills our caller meanwhile."""
    gate = Path("/run/fake-cryptsetup-gate")
    if gate.exists():
        gate.read_text()  # a FIFO


def hold_loop(container: str, *, readonly: bool) -> tuple[int, str]:
    """A loop device that is gone once the process that holds it is, whatever ends that."""
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.setsid()
        loop, keep = make_loop(container, readonly=readonly)
        os.write(writer, loop.encode())
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.dup2(keep, 3)
        os.closerange(4, 4096)
        signal.pause()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return holder, pipe.read(64)


def make_loop(container: str, *, readonly: bool) -> tuple[str, int]:
    dump = subprocess.run([REAL, "luksDump", container], capture_output=True, text=True, check=True)
    (found,) = OFFSET.finditer(dump.stdout)
    offset = int(found[1] or 512 * int(found[2]))
    file = os.open(container, os.O_RDONLY if readonly else os.O_RDWR)
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if readonly else 0)
    control = os.open("/dev/loop-control", os.O_RDWR)
    while True:
        loop = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        keep = os.open(loop, os.O_RDONLY if readonly else os.O_RDWR)
        try:
            fcntl.ioctl(keep, LOOP_CONFIGURE, LOOP_CONFIG.pack(file, 0, offset, flags))
        except OSError:
            os.close(keep)  # somebody else took it meanwhile
        else:
            return loop, keep


def close(name: str, deferred: bool) -> int:
    for device in BLOCK.glob("dm-*"):
        if (device / "dm" / "name").read_text().strip() == name:
            break
    else:
        print(f"Device {name} is not active.", file=sys.stderr)
        return 4
    if is_used(NODES / name) and not deferred:
        Path("/run/fake-cryptsetup-was-busy").touch()
        print(f"Device {name} is still in use.", file=sys.stderr)
        return BUSY
    if is_used(NODES / name):
        return 0
    (NODES / name).unlink()
    os.kill(int((device / "holder").read_text()), signal.SIGKILL)
    shutil.rmtree(device)
    return 0


def is_used(node: Path) -> bool:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if re.fullmatch(re.escape(str(node)), str(link.readlink())):
                return True
        except OSError:
            continue
    return False


sys.exit(main(sys.argv[1:]))
