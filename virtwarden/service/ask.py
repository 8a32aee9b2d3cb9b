# SPDX-License-Identifier: GPL-2.0-or-later
"""One call of libvirt's hook: asked of virt-warden.service, or else done without it.

hooks/qemu.py calls it. libvirt waits for this three times in each start, and for Python to start
each time: so this imports what the interpreter has in itself, and wire.py, alone. os or socket
would take as long as all else here together; not even `from __future__` is free.
"""

import _socket
import posix
import sys
from time import monotonic

from virtwarden.service import wire

TYPE_CHECKING = False  # importing typing to learn the same costs milliseconds
if TYPE_CHECKING:
    from typing import NoReturn

PYTHON = "/usr/bin/python3"
SERVICE = "/run/virt-warden/hook.sock"
SERVICE_UID = 0
SAVES = "/var/lib/libvirt/qemu/save"
OFFER_SECONDS = 2  # the service needs some milliseconds, on a busy host
XML_LIMIT_BYTES = 4 * 1024 * 1024
CHUNK = 65536
MFD_NOEXEC_SEAL = 8  # <linux/memfd.h>


def main(argv: list[str]) -> "NoReturn":
    """Answer the call `HOOK NAME OP SUBOP EXTRA`, with the XML on stdin; ends the process.

    Raises whatever keeps it from that.
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
    posix._exit(code)  # nothing is left that Python would have to clean up


def read_xml() -> bytes:
    """What libvirt gave, to one byte more than is allowed: the answer says that it is too much."""
    content = bytearray()
    while more := posix.read(0, min(XML_LIMIT_BYTES + 1 - len(content), CHUNK)):
        content += more
    return bytes(content)


def answer_of_the_service(argv: list[str], untrusted_xml: bytes) -> tuple[int, bytes, bytes] | None:
    """Exit code, stdout and stderr; None where there is no answer.

    Nobody acts in the service's name then: it was not told to, or is dead.
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
    """Whether the service, in time, has read the call and offers to act on it."""
    until = monotonic() + OFFER_SECONDS
    connection.settimeout(OFFER_SECONDS)
    connection.connect(SERVICE)
    if wire.peer_uid(connection) != SERVICE_UID:
        return False
    arguments = "\0".join(argv[1:]).encode(sys.getfilesystemencoding(), "surrogateescape")
    wire.send(connection, wire.VERSION, arguments, untrusted_xml, until=until)
    return wire.receive(connection, until) == wire.OFFER


def take(connection: _socket.socket) -> tuple[int, bytes, bytes] | None:
    """Have the service act, and wait for its answer however long it takes."""
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
    """Return once the service has hung up: until then it may act."""
    try:
        while connection.recv(CHUNK):
            pass
    except OSError:
        pass


def go_on_without_it(argv: list[str], untrusted_xml: bytes) -> "NoReturn":
    """Become a Python that finds the host's modules and does the work, with the same XML on stdin.

    Executed, not imported here: AppArmor holds what libvirt executes, and nothing that this does.
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
    """A file without a name, with the flag that a kernel may insist on, or before 6.3 not know."""
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
    """Have the work done where nothing may be refused, and outlive whoever does it.

    libvirt ends the running VM whose hook fails at `reconnect`, and libvirt 11.3 deletes the managed
    save of a domain whose hook fails at `restore`. So a child that is killed, for want of memory for
    example, is for the log. A Python that cannot even begin exits with 1.
    """
    _, status = posix.waitpid(posix.posix_spawn(PYTHON, command, posix.environ), 0)
    if status != 0:
        raise ChildProcessError(f"wait status {status}")
    posix._exit(0)


def do_the_work(argv: list[str]) -> "NoReturn":
    """What the service would have done, by the same code."""
    from virtwarden import hook

    sys.exit(hook.main(argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr))


def write(descriptor: int, content: bytes) -> bool:
    """Write all, and say whether it was taken."""
    try:
        while content:
            content = content[posix.write(descriptor, content) :]
    except OSError:
        return False
    return True
