# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that the command line is the reviewed one, and that libvirt wrote all of it."""

from __future__ import annotations

from argv import guest_names
from consoles import check_consoles
from hostfiles import check_files
from outside import check_outside
from process import DESCRIPTOR_KEYS
from refusal import AGAIN, XML, Refusal
from texts import is_number, is_text, is_words, words_of
from vocabulary import foreign_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from argv import Option
    from ticket import Ticket

# libvirt's words: everything that its qemu_command.c (9.0, 11.3) writes by itself. Anything else
# comes from <qemu:commandline>. This list leaves out -net, of ARM boards without PCI, and the
# displays sdl and dbus, which no guard reviews. It has -loadvm (snapshot-revert) and -incoming
# defer (restore, migrate).
VOCABULARY = words_of("""
    S accel acpitable add-fd append audiodev bios blockdev boot chardev compat cpu device display
    drive dtb fsdev full-screen fw_cfg global incoming initrd k kernel loadvm m machine mem-path
    mem-prealloc mon msg name netdev no-acpi no-hpet no-reboot no-shutdown no-user-config nodefaults
    numa object overcommit rtc run-with sandbox serial shim smbios smp spice tpmdev usb uuid vnc
    watchdog-action""")

ALWAYS = words_of("no-user-config nodefaults")
SCREENS = words_of("display spice vnc")
GLOBALS = words_of("""
    ICH9-LPC.disable_s3 ICH9-LPC.disable_s4 ICH9-LPC.noreboot PIIX4_PM.acpi-root-pci-hotplug
    PIIX4_PM.disable_s3 PIIX4_PM.disable_s4 i440FX-pcihost.pci-hole64-size isa-fdc.bootindexA
    isa-fdc.bootindexB kvm-pit.lost_tick_policy mch.extended-tseg-mbytes
    q35-pcihost.pci-hole64-size spapr-nvram.reg
    driver=cfi.pflash01,property=secure,value=on""")


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
        yield from check_presence(options)
        yield from check_vocabulary(options)
        yield from check_files(ticket, options)
        yield from check_outside(ticket, options)


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
    if value == "off":  # qemu.conf's seccomp_sandbox; it is not obeyed
        return True
    first, *denied = value.split(",")
    names = [part.removesuffix("=deny") for part in denied if part.endswith("=deny")]
    return first == "on" and len(names) == len(denied) and all(map(is_words, names))


def is_keymap(value: str) -> bool:
    """The name of one: QEMU would look for another text as a file."""
    return is_words(value, "-")


def is_global(value: str) -> bool:
    """A property of a chip on the board; another one could name a file."""
    return value in GLOBALS or value.partition("=")[0] in GLOBALS


def is_serial(value: str) -> bool:
    return value.startswith("chardev:") and is_words(value.removeprefix("chardev:"), "_-")


def is_opened_by_qemu(netdev: Option) -> bool:
    """libvirt hands over the descriptor of each tap; without one QEMU opens any tap by its name."""
    keys = {key for _, key in netdev.parts}
    return "tap" in netdev.under("type") and not keys & DESCRIPTOR_KEYS


def is_forwarded_to_a_chardev(text: str) -> bool:
    """`tcp:10.0.2.1:4600-chardev:charchannel0`; 'cmd:' would run a program, 'tcp:' connect."""
    target = text.partition("-")[2]
    return target.startswith("chardev:") and is_words(target.removeprefix("chardev:"), "_-")


PHRASES: Mapping[str, Callable[[str], bool]] = {
    "display": is_display,
    "global": is_global,
    "incoming": is_incoming,
    "k": is_keymap,
    "mon": is_monitor,
    "sandbox": is_sandbox,
    "serial": is_serial,
}


def check_presence(options: list[Option]) -> Iterator[Refusal]:
    """What libvirt always writes is there: without it, QEMU makes devices and a console itself."""
    names = {option.name for option in options}
    for name in sorted(ALWAYS - names):
        yield Refusal(f"-{name} is missing", XML)
    if not names & SCREENS:
        yield Refusal("-display is missing, so QEMU would open a console", XML)


def check_vocabulary(options: list[Option]) -> Iterator[Refusal]:
    """libvirt wrote every option by itself."""
    for option in options:
        is_said = PHRASES.get(option.name, is_text)
        if option.name not in VOCABULARY or not is_said(option.value):
            yield Refusal(f"libvirt does not write {' '.join(option.words)!r} by itself", XML)
        if option.name == "netdev" and is_opened_by_qemu(option):
            yield Refusal(f"the tap of -netdev {option.value!r} has no descriptor", XML)
        for at, text in option.texts:
            if at.startswith("guestfwd") and not is_forwarded_to_a_chardev(text):
                yield Refusal(f"libvirt does not write guestfwd={text!r} by itself", XML)
        for word in foreign_words(option):
            yield Refusal(f"libvirt does not write {word!r} in -{option.name} by itself", XML)
