# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the C library for what Python's own modules do not ask the kernel."""

from __future__ import annotations

import _ctypes  # ctypes wraps it in a module that takes long to import
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # it takes none when it runs
    _type_ = "i"


class CapabilitySets(_ctypes.Array):  # type: ignore[type-arg]
    """struct __user_cap_data_struct, of version 3: effective, permitted, inheritable, twice."""

    _type_ = Int
    _length_ = 6


class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class LibC:
    """The C library that this process is linked with."""

    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # dlopen(3): the program itself


class Call(_ctypes.CFuncPtr):
    """A function of the C library: takes numbers of 32 bits and bytes, gives one, keeps errno."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Int


syscall, prctl, capget, capset, setrlimit, unshare = (
    Call((name, LibC))  # type: ignore[arg-type]
    for name in ("syscall", "prctl", "capget", "capset", "setrlimit", "unshare")
)


def failure(what: str) -> OSError:
    """Why the last call failed, as an error to raise."""
    return OSError(_ctypes.get_errno(), what)


def in_memory(content: bytes) -> Any:
    """The bytes at an address that stays theirs as long as this object is kept."""
    kind: Any = type("Bytes", (_ctypes.Array,), {"_type_": Byte, "_length_": len(content)})
    return kind.from_buffer_copy(content)


def packed(size: int, *numbers: int) -> bytes:
    """Numbers of so many bytes each, as the kernel's structures hold them."""
    return b"".join(number.to_bytes(size, sys.byteorder) for number in numbers)
