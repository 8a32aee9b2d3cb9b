#!/usr/bin/python3 -ISB
# SPDX-License-Identifier: GPL-2.0-or-later
"""/etc/libvirt/hooks/qemu, and hooks/network: the entry script of virtwarden/service/ask.py.

Python compiles a script each time it runs, and what it imports just once. So this is short: where
to go, and what to say where there is no way. Neither the environment nor the working directory
(-I) nor a file of site-packages (-S) says what is imported: root alone can write in SHARE.
"""

import posix
import sys

SHARE = "/usr/share/virt-warden"
LOGGER = "/usr/bin/logger"
NAME, STEP = (*sys.argv[1:], "", "")[:2]


def give_up(error: Exception) -> None:
    """Refuse a start, since nothing would be guarded. No other step fails for this.

    At `started` and `reconnect`, libvirt would end the running VM.
    """
    if STEP in ("prepare", "start"):
        if not is_removed():
            sys.exit(refusal(error))  # libvirt shows the line to whoever asked for the start
        return
    try:
        if not is_removed():
            log(error)
    finally:
        posix._exit(0)


def is_removed() -> bool:
    """Whether virt-warden was taken off this host, and this file was left."""
    try:
        posix.stat(SHARE)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def refusal(error: Exception) -> str:
    line = f"virt-warden refuses {NAME}: its files are not all there ({told(error)}); fix:"
    line += " install virt-warden and python3 again, or remove /etc/libvirt/hooks/qemu"
    return printable(line)


def log(error: Exception) -> None:
    name, why = NAME.replace("'", "?"), told(error).replace("'", "?")
    line = printable(f"event=failed domain='{name}' op={STEP} reason='{__file__}: {why}'")
    command = [LOGGER, "-t", "virt-warden", "-p", "authpriv.crit", line]
    posix.waitpid(posix.posix_spawn(LOGGER, command, posix.environ), 0)


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def printable(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


# What else befalls a network goes by names that steps of domains have too.
if "/hooks/network" in __file__ and STEP != "port-created":
    sys.exit()
sys.path.insert(0, SHARE)
try:
    from virtwarden.service.ask import main

    main(sys.argv)
except Exception as error:  # noqa: BLE001 - whatever a file that is there by half, or unreadable, raises
    give_up(error)
