# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that the command line is the reviewed one, and that libvirt wrote all of it."""

from __future__ import annotations

from argv import guest_names
from consoles import check_consoles
from hostfiles import check_files
from refusal import AGAIN, XML, Refusal
from texts import is_number, is_text, is_words, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from argv import Option
    from ticket import Ticket

# libvirt's words: everything that its qemu_command.c (9.0) writes by itself. Anything else comes
# from <qemu:commandline>. This list leaves out -net, of ARM boards without PCI, and the displays
# sdl and dbus, which no guard reviews. It has -loadvm (snapshot-revert) and -incoming defer
# (restore, migrate).
VOCABULARY = words_of("""
    S accel acpitable add-fd append audiodev bios blockdev boot chardev compat cpu device display
    drive dtb fsdev full-screen fw_cfg global incoming initrd k kernel loadvm m machine mem-path
    mem-prealloc mon msg name netdev no-acpi no-hpet no-reboot no-shutdown no-user-config nodefaults
    numa object overcommit rtc sandbox serial smbios smp spice tpmdev usb uuid vnc
    watchdog-action""")


def check_argv(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """The command line is the one that was reviewed, as far as the ticket tells."""
    if guest_names(options) != [ticket["name"]]:
        yield Refusal(f"-name says {guest_names(options)}", XML)
    for option in options:
        if not option.readable:
            yield Refusal(f"-{option.name} is not JSON: {option.value!r}", XML)
    yield from check_nics(ticket, options)
    yield from check_consoles(ticket, options)
    if not ticket["passthrough"]:
        yield from check_vocabulary(options)
        yield from check_files(ticket, options)


def check_nics(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Each planned MAC is on exactly one NIC, and no NIC has another MAC."""
    missing = [mac.lower() for mac in ticket["macs"]]
    for option in options:
        if option.name != "device":
            continue
        macs = [mac.lower() for mac in option.under("mac")]
        if len(macs) > 1 or (option.under("netdev") and not macs):
            yield Refusal(f"a NIC must have one MAC address: {option.value!r}", XML)
        for mac in macs:
            if mac in missing:
                missing.remove(mac)
            else:
                yield Refusal(f"the NIC with MAC {mac} was not reviewed", XML)
    for mac in missing:
        yield Refusal(f"the NIC with MAC {mac} is missing", AGAIN)


def is_display(value: str) -> bool:
    return value == "none" or value.split(",")[0] == "egl-headless"


def is_incoming(value: str) -> bool:
    """A descriptor, or what the monitor will name; 'exec:' would run a shell."""
    return value == "defer" or (value.startswith("fd:") and is_number(value[3:]))


def is_monitor(value: str) -> bool:
    return value == "chardev=charmonitor,id=monitor,mode=control"


def is_sandbox(value: str) -> bool:
    first, *denied = value.split(",")
    names = [part.removesuffix("=deny") for part in denied if part.endswith("=deny")]
    return first == "on" and len(names) == len(denied) and all(map(is_words, names))


def is_serial(value: str) -> bool:
    return value.startswith("chardev:") and is_words(value.removeprefix("chardev:"), "_-")


PHRASES: Mapping[str, Callable[[str], bool]] = {
    "display": is_display,
    "incoming": is_incoming,
    "mon": is_monitor,
    "sandbox": is_sandbox,
    "serial": is_serial,
}


def check_vocabulary(options: list[Option]) -> Iterator[Refusal]:
    """libvirt wrote every option by itself."""
    for option in options:
        is_said = PHRASES.get(option.name, is_text)
        if option.name not in VOCABULARY or not is_said(option.value):
            yield Refusal(f"libvirt does not write {' '.join(option.words)!r} by itself", XML)
