# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that was taken over: it makes the system calls that an attacker inside it would make.

Root stops it by ptrace(2) and has it execute a `syscall` instruction of its own, with arguments of
the attacker's: all that confines the process, its seccomp filter too, is in the way. For x86-64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from pathlib import Path
from typing import Self

from tests.host.namespace import require_private_host

WORKS = platform.machine() == "x86_64"
# linux/ptrace.h
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_GET_REGISTERS, _SET_REGISTERS, _SINGLE_STEP, _DETACH = 12, 13, 9, 17
# sys/user.h, struct user_regs_struct
_REGISTERS = struct.Struct("27Q")
_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)
_SYSCALL = b"\x0f\x05"
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_NOT_A_CALL = 2**64 - 1
# Beyond what functions use below the stack pointer (the red zone of the x86-64 ABI).
_BELOW_THE_STACK = 4096
_ERRORS = 4096
_ALL_CHILDREN = 0x40000000  # wait(2), __WALL

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class Captive:
    """The process, from entering the context to leaving it, unless a call is its death."""

    def __init__(self, pid: int) -> None:
        require_private_host()
        self._pid = pid
        self._memory = Path(f"/proc/{pid}/mem")
        self._is_dead = False

    def __enter__(self) -> Self:
        self._ptrace(_SEIZE)
        self._ptrace(_INTERRUPT)
        self._wait()
        self._instruction = self._find_instruction()
        self._former = self._registers()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_dead:
            self._set_registers(self._former)
            self._ptrace(_DETACH)

    def call(self, number: int, *arguments: int | str) -> int:
        """Make a system call; strings are laid on the process's stack.

        Raises OSError as the kernel answers, and ChildProcessError with the signal's name where the
        kernel ends the process instead.
        """
        place = (self._former["rsp"] - _BELOW_THE_STACK) & ~15
        values = []
        for argument in arguments:
            if isinstance(argument, str):
                place -= len(argument) + 1 + 15 & ~15
                self._write(place, argument.encode() + b"\0")
            values.append(place if isinstance(argument, str) else argument)
        given = dict(zip(_ARGUMENTS, values, strict=False))
        # No system call was interrupted, as far as the kernel is to know.
        step = {"rip": self._instruction, "rax": number, "orig_rax": _NOT_A_CALL}
        self._set_registers(self._former | given | step)
        self._ptrace(_SINGLE_STEP)
        self._wait()
        answer = self._registers()["rax"]
        if answer > _NOT_A_CALL - _ERRORS:
            error = _NOT_A_CALL - answer + 1
            raise OSError(error, os.strerror(error))
        return answer

    def _find_instruction(self) -> int:
        """One in the kernel's own page of code, which every process has."""
        for line in Path(f"/proc/{self._pid}/maps").read_text().splitlines():
            if line.endswith("[vdso]"):
                begin, end = (int(word, 16) for word in line.split()[0].split("-"))
                with self._memory.open("rb", buffering=0) as memory:
                    memory.seek(begin)
                    code = memory.read(end - begin)
                return begin + code.index(_SYSCALL)
        raise ValueError(f"process {self._pid} has no vdso")

    def _write(self, address: int, content: bytes) -> None:
        with self._memory.open("r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(content)

    def _registers(self) -> dict[str, int]:
        buffer = ctypes.create_string_buffer(_REGISTERS.size)
        self._ptrace(_GET_REGISTERS, ctypes.addressof(buffer))
        return dict(zip(_NAMES, _REGISTERS.unpack(buffer.raw), strict=True))

    def _set_registers(self, registers: dict[str, int]) -> None:
        content = _REGISTERS.pack(*(value % 2**64 for value in registers.values()))
        buffer = ctypes.create_string_buffer(content, _REGISTERS.size)
        self._ptrace(_SET_REGISTERS, ctypes.addressof(buffer))

    def _ptrace(self, request: int, data: int = 0) -> None:
        if _libc.ptrace(request, self._pid, None, data) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"ptrace: {os.strerror(error)}")

    def _wait(self) -> None:
        _, status = os.waitpid(self._pid, _ALL_CHILDREN)
        if os.WIFSIGNALED(status):
            self._is_dead = True
            raise ChildProcessError(signal.Signals(os.WTERMSIG(status)).name)
        if os.WSTOPSIG(status) == signal.SIGSYS:
            raise ChildProcessError(signal.SIGSYS.name)
