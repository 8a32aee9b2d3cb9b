# SPDX-License-Identifier: GPL-2.0-or-later
"""nft's library, where the kernel gives it no socket."""

from __future__ import annotations

import socket

import pytest

from virtwarden.errors import CommandError
from virtwarden.system.netfilter import BACKENDS
from virtwarden.system.nft import nft


def test_a_kernel_that_does_not_talk_about_nftables_is_an_error_and_ends_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("nftables")

    def refuse(*_: object) -> socket.socket:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(CommandError, match="Protocol not supported"):
        nft("list tables")
    assert not BACKENDS["nftables"].works()
