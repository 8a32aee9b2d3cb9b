# SPDX-License-Identifier: GPL-2.0-or-later
"""One call of libvirt's hook: virt-warden.service answers it, or else the hook works without it.

hooks/qemu.py calls it. libvirt waits for this three times in each start, and each time Python has
to start. So this file imports only wire.py and what is built into the interpreter. Importing os or
socket would take as long as all the rest of this file. Not even `from __future__` is free.
"""

import _socket
import posix
import sys
from time import monotonic

from virtwarden.service import wire

TYPE_CHECKING = False  # importing typing for the same value costs milliseconds
if TYPE_CHECKING:
    from typing import NoReturn

PYTHON = "/usr/bin/python3"
SERVICE = "/run/virt-warden/hook.sock"
SERVICE_UID = 0
SAVES = "/var/lib/libvirt/qemu/save"
OFFER_SECONDS = 2  # the service needs a few milliseconds, on a busy host
XML_LIMIT_BYTES = 4 * 1024 * 1024
CHUNK = 65536
MFD_NOEXEC_SEAL = 8  # <linux/memfd.h>


def main(argv: list[str]) -> "NoReturn":
    """Answer the call `HOOK NAME OP SUBOP EXTRA`, with the XML on stdin, and end the process.

    Where it cannot, raises the error that prevents it.
    """
    if not sys.flags.no_site:
        do_the_work(argv)
    untrusted_xml = read_xml()
    answer = answer_of_the_service(argv, untrusted_xml)
    if answer is None:
        go_on_without_it(argv, untrusted_xml)
    code, stdout, stderr = answer
    write(1, stdout)
    write(2, stderr)
    posix._exit(code)  # Python has nothing left to clean up


def read_xml() -> bytes:
    """What libvirt wrote, at most one byte over the limit, so that the answer can refuse it."""
    content = bytearray()
    while more := posix.read(0, min(XML_LIMIT_BYTES + 1 - len(content), CHUNK)):
        content += more
    return bytes(content)


def answer_of_the_service(argv: list[str], untrusted_xml: bytes) -> tuple[int, bytes, bytes] | None:
    """Exit code, stdout and stderr; None where there is no answer.

    After None the service does not act on this call: the hook did not tell it to, or it is dead.
    """
    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            return take(connection) if is_offered(connection, argv, untrusted_xml) else None
        finally:
            connection.close()
    except (OSError, EOFError, ValueError):
        return None


def is_offered(connection: _socket.socket, argv: list[str], untrusted_xml: bytes) -> bool:
    """Whether the service reads the call and offers to act on it within OFFER_SECONDS."""
    until = monotonic() + OFFER_SECONDS
    connection.settimeout(OFFER_SECONDS)
    connection.connect(SERVICE)
    if wire.peer_uid(connection) != SERVICE_UID:
        return False
    arguments = "\0".join(argv[1:]).encode(sys.getfilesystemencoding(), "surrogateescape")
    wire.send(connection, wire.VERSION, arguments, untrusted_xml, until=until)
    return wire.receive(connection, until) == wire.OFFER


def take(connection: _socket.socket) -> tuple[int, bytes, bytes] | None:
    """Tell the service to act, and wait for its answer without a time limit."""
    connection.settimeout(None)
    try:
        wire.send(connection, wire.TAKE)
        code, stdout, stderr = (wire.receive(connection) for _ in range(3))
        if code in (b"0", b"1"):
            return int(code), stdout, stderr
    except (OSError, EOFError, ValueError):
        pass
    wait_for_end(connection)
    return None


def wait_for_end(connection: _socket.socket) -> None:
    """Wait until the service hangs up. Until then it may act."""
    try:
        while connection.recv(CHUNK):
            pass
    except OSError:
        pass


def go_on_without_it(argv: list[str], untrusted_xml: bytes) -> "NoReturn":
    """Become a Python that finds the host's modules and does the work, with the same XML on stdin.

    It is executed, not imported here: AppArmor confines the program that libvirt executes, but not
    a program that this one executes.
    """
    stdin = memory_file()
    if not write(stdin, untrusted_xml):
        raise MemoryError("no room for the XML")
    posix.lseek(stdin, 0, 0)
    posix.dup2(stdin, 0)
    command = [PYTHON, "-IB", *argv]
    step = argv[2:3]
    if step == ["reconnect"] or (step == ["restore"] and is_saved(argv[1])):
        work_by_a_child(command)
    try:
        posix.execv(PYTHON, command)
    except OSError as error:
        error.filename = PYTHON  # the refusal says which file
        raise


def memory_file() -> int:
    """A file without a name. A kernel may insist on the flag; one before 6.3 does not know it."""
    try:
        return posix.memfd_create("xml", posix.MFD_CLOEXEC | MFD_NOEXEC_SEAL)
    except OSError:
        return posix.memfd_create("xml", posix.MFD_CLOEXEC)


def is_saved(name: str) -> bool:
    """Whether the domain has a managed save, of which nothing is refused at `restore`."""
    try:
        posix.stat(f"{SAVES}/{name}.save")
    except OSError:
        return False
    return True


def work_by_a_child(command: list[str]) -> "NoReturn":
    """Have a child do the work, and outlive it. Only for calls that may not be refused.

    Where a hook fails at `reconnect`, libvirt ends the running VM. Where it fails at `restore`,
    libvirt 11.3 deletes the VM's managed save. So only the log hears of a child that is killed, by
    lack of memory for example. A Python that cannot even begin exits with 1.
    """
    _, status = posix.waitpid(posix.posix_spawn(PYTHON, command, posix.environ), 0)
    if status != 0:
        raise ChildProcessError(f"wait status {status}")
    posix._exit(0)


def do_the_work(argv: list[str]) -> "NoReturn":
    """Do what the service would have done, with the same code."""
    from virtwarden import hook

    sys.exit(hook.main(argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr))


def write(descriptor: int, content: bytes) -> bool:
    """Write all of it; whether that succeeded."""
    try:
        while content:
            content = content[posix.write(descriptor, content) :]
    except OSError:
        return False
    return True
