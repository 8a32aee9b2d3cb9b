# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own reader of images, without any right on this host.

A guest may have forged all of its image, and QEMU opens what an image's header names. So root only
gives out the bytes of open files, without looking at them. What they mean is read by another
process, of a user that nothing else on the host has: it opens no file that not everybody may read.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from virtwarden.system import files
from virtwarden.system.run import in_background

_DAEMON, _SETPRIV = "/usr/bin/qemu-storage-daemon", "/usr/bin/setpriv"
# setpriv(1): no right is left, and none comes back; it ends with whoever started it.
_RIGHTLESS = ("--no-new-privs", "--inh-caps=-all", "--pdeathsig=KILL")
# Ids that nobody gives to anything; https://systemd.io/UIDS-GIDS
_UNUSED_IDS = range(1879048192, 2147483647)

Connect = Callable[[], AbstractContextManager[int]]
"""Gives a connected socket, until its `with` block ends."""


@dataclass(frozen=True)
class Layer:
    """One image of a chain, which begins with the guest's own image."""

    path: str
    format: str
    is_device: bool


@contextmanager
def serving(chain: Sequence[Layer], handles: Sequence[int]) -> Iterator[tuple[Connect, str]]:
    """Serve a chain by NBD, for reading; `handles` are its images, open.

    Gives what connects to it, and the name of what is served. Who connects is told where QEMU does
    not open the images, as the connection then ends.
    """
    with ExitStack() as stack:
        give = stack.enter_context(_daemon(_as_root(), _bytes(chain, handles), handles))
        sources = [stack.enter_context(give()) for _ in chain]
        nodes = _formats(chain, sources)
        yield stack.enter_context(_daemon(_as_nobody(), nodes, sources)), _content(0)


def _as_root() -> tuple[str, ...]:
    """Root, who may read any file and do nothing else that others may not."""
    return (_SETPRIV, "--bounding-set=-all,+dac_read_search", *_RIGHTLESS)


def _as_nobody() -> tuple[str, ...]:
    number = str(random.SystemRandom().choice(_UNUSED_IDS))
    ids = ("--reuid", number, "--regid", number, "--clear-groups")
    return (_SETPRIV, *ids, "--bounding-set=-all", *_RIGHTLESS)


@contextmanager
def _daemon(
    user: Sequence[str], nodes: Sequence[dict[str, Any]], inherited: Sequence[int]
) -> Iterator[Connect]:
    """A qemu-storage-daemon(1) that serves each of its nodes under the node's name."""
    with (
        TemporaryDirectory(prefix="virt-warden-", dir="/run") as private,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        place = f"{private}/socket"
        listener.bind(place)
        listener.listen(len(nodes))

        @contextmanager
        def connect() -> Iterator[int]:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.connect(place)
                yield connected.fileno()

        words = [*user, _DAEMON, "--nbd-server", f"addr.type=fd,addr.str={listener.fileno()}"]
        for node in nodes:
            name = node["node-name"]
            export = {"type": "nbd", "id": name, "node-name": name, "name": name}
            words += ["--blockdev", json.dumps({**node, "read-only": True})]
            words += ["--export", json.dumps(export)]
        with in_background(*words, inherited=[listener.fileno(), *inherited]):
            # Only the daemon has it now: where that ends, so do the connections.
            listener.close()
            yield connect


def _bytes(chain: Sequence[Layer], handles: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "driver": "host_device" if layer.is_device else "file",
            "node-name": _plain(depth),
            "filename": str(files.by_descriptor(handle)),
            "aio": "threads",
        }
        for depth, (layer, handle) in enumerate(zip(chain, handles, strict=True))
    ]


def _formats(chain: Sequence[Layer], sources: Sequence[int]) -> list[dict[str, Any]]:
    """The chain, from its lowest image on. It leaves QEMU nothing to look up in a header."""
    nodes: list[dict[str, Any]] = []
    below: str | None = None
    for depth in reversed(range(len(chain))):
        server = {"type": "fd", "str": str(sources[depth])}
        name = _plain(depth)
        nodes.append({"driver": "nbd", "node-name": name, "server": server, "export": name})
        node = {"driver": chain[depth].format, "node-name": _content(depth), "file": name}
        nodes.append(node if chain[depth].format == "raw" else {**node, "backing": below})
        below = _content(depth)
    return nodes


def _plain(depth: int) -> str:
    return f"bytes{depth}"


def _content(depth: int) -> str:
    return f"content{depth}"
