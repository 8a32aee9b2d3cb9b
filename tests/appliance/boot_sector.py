# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in 512 bytes, which real firmware boots: it counts its boots on its own disk."""

from __future__ import annotations

COUNTER = 0x1B0
"""Where on the disk the byte stands that says how often it was booted."""

_LENGTH = 512
_SIGNATURE = b"\x55\xaa"
_LOADED_AT = 0x7C00


def counting_boot_sector(boots: int) -> bytes:
    """A disk that resets the machine until it was booted so often, and then rests."""
    counter = (_LOADED_AT + COUNTER).to_bytes(2, "little")
    code = b"".join(
        (
            b"\x31\xc0",  # xor ax, ax
            b"\x8e\xd8\x8e\xc0",  # mov ds, ax; mov es, ax
            b"\xfe\x06" + counter,  # inc byte [counter]
            b"\xb8\x01\x03",  # mov ax, 0301h: write one sector
            b"\xb9\x01\x00",  # mov cx, 1: the first one
            b"\xba\x80\x00",  # mov dx, 80h: of the first disk
            b"\xbb\x00\x7c",  # mov bx, 7c00h: from here
            b"\xcd\x13",  # int 13h
            b"\x80\x3e" + counter + bytes([boots]),  # cmp byte [counter], boots
            b"\x73\x04",  # jae over the next two
            b"\xb0\xfe\xe6\x64",  # mov al, FEh; out 64h, al: the keyboard controller's reset
            b"\xf4\xeb\xfd",  # hlt, for ever
        )
    )
    return code.ljust(_LENGTH - len(_SIGNATURE), b"\0") + _SIGNATURE
