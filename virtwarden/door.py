"""What libvirt's hook does: virt-warden.service answers, or else this process does, alike.

Most of a hook's time goes into importing; the service has all imported. This module runs before
that is known, so it imports next to nothing: not even annotations from the future.
"""

import _socket
import posix
import sys

from virtwarden import wire

_XML_LIMIT_BYTES = 4 * 1024 * 1024


def main(arguments: list[str]) -> int:
    """Answer libvirt's call of the hook; see virtwarden/hook.py.

    Gives the exit code; where the service gave it, leaves with it at once.
    """
    # One byte more than is allowed: that it is too much is for the answer to say.
    xml = sys.stdin.buffer.read(_XML_LIMIT_BYTES + 1)
    answer = ask(wire.SOCKET, arguments, xml)
    if answer is None:
        return do_it_here(arguments, xml)
    code, stdout, stderr = answer
    for stream, said in ((sys.stdout, stdout), (sys.stderr, stderr)):
        stream.buffer.write(said)
        stream.flush()
    posix._exit(code)  # Python would tidy up first, for a millisecond


def ask(service: str, arguments: list[str], xml: bytes) -> tuple[int, bytes, bytes] | None:
    """The service's answer: exit code, stdout and stderr.

    None where it gave none. Nobody acts in its name then: it was not told to, or is dead.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        return _answer(connection) if _is_offered(connection, service, arguments, xml) else None
    except (OSError, EOFError, ValueError):
        return None
    finally:
        connection.close()


def _is_offered(connection: _socket.socket, service: str, arguments: list[str], xml: bytes) -> bool:
    connection.settimeout(wire.OFFER_SECONDS)
    connection.connect(service)
    if wire.peer_uid(connection) != 0:
        return False
    words = "\0".join(arguments).encode(errors="surrogateescape")
    wire.send(connection, wire.VERSION, words, xml)
    return wire.receive(connection) == wire.OFFER


def _answer(connection: _socket.socket) -> tuple[int, bytes, bytes]:
    # It is for as long as the work's own time limits allow.
    connection.settimeout(None)
    wire.send(connection, wire.TAKE)
    try:
        code, stdout, stderr = (wire.receive(connection) for _ in range(3))
        return int(code), stdout, stderr
    except ValueError:
        while connection.recv(4096):  # not before it has hung up may anybody else act
            pass
        raise


def do_it_here(arguments: list[str], xml: bytes) -> int:
    """Answer the call in this process; gives the exit code."""
    import site

    site.main()  # Debian's packages; the hook is started without them, which is faster
    from io import BytesIO

    from virtwarden import hook

    return hook.main(arguments, BytesIO(xml), sys.stdout.buffer, sys.stderr)
