# SPDX-License-Identifier: GPL-2.0-or-later
"""Which host files QEMU opens because of its command line, and which are the domain's own."""

from __future__ import annotations

from refusal import XML, Refusal
from texts import ENCODING, is_number, is_uuid, is_words, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from argv import Option
    from ticket import Ticket

# A text is a host file under these options and keys, and wherever it has a slash unless it is free
# (object.dir and spice.x509-dir: certificates that qemu.conf names, never the domain's XML; where a
# display listens is looked at elsewhere).
FILE_OPTIONS = words_of("bios dtb initrd kernel mem-path shim")
FILE_KEYS = words_of("""
    cancel-path conf data db dh-cert-file dir evdev file filename host-path hostdevice logfile
    mem-path path rendernode romfile rootdir session-file sysfsdev vhostdev""")
FREE_OPTIONS = words_of("append cpu loadvm name rtc smbios vnc")
FREE_KEYS = words_of("""
    blockdev.backing blockdev.file chardev.name device.mount_tag device.name device.product
    device.serial device.tag device.vendor fw_cfg.name fw_cfg.string netdev.net object.data
    object.dir object.iv spice.addr spice.x509-dir""")
# What libvirt makes for only one domain has its name, cut to so many characters or bytes.
SHORT_NAME = 20
OWN_DIRECTORIES = words_of("/run /var/lib")
HUGE_PAGES = "/dev/hugepages"
OF_HELPERS = words_of("dbus passt slirp swtpm")
OF_ALL = words_of("/dev/random /dev/urandom")
MEDIATED, PASSED, USB = "/sys/bus/mdev/devices/", "/dev/fdset/", "/dev/bus/usb/"
# Each domain has a file of its own here, beside the files of others.
SHARED_DIRECTORIES = words_of("""
    /dev/hugepages/libvirt/qemu /run/libvirt/qemu /run/libvirt/qemu/channel
    /run/libvirt/qemu/dbus /run/libvirt/qemu/passt /run/libvirt/qemu/slirp
    /run/libvirt/qemu/swtpm /var/lib/libvirt/qemu /var/lib/libvirt/qemu/channel/target""")


def check_files(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Every host file was reviewed, or libvirt made it for this domain."""
    for option in options:
        for path in opened_files(option):
            if path in ticket["files"] or is_own(path, ticket["name"], ticket["memory"]):
                continue
            yield Refusal(f"-{option.name} opens {path!r}, which was not reviewed", XML)


def opened_files(option: Option) -> Iterator[str]:
    if option.name in FILE_OPTIONS:
        yield option.value
        return
    for at, text in option.texts:
        key = at.rpartition(".")[2]
        if not text or f"{option.name}.{key}" in FREE_KEYS:
            continue
        if key in FILE_KEYS or ("/" in text and option.name not in FREE_OPTIONS):
            yield text


def certificate_directories(options: Iterable[Option]) -> set[str]:
    """The directories of qemu.conf that TLS reads: the domain's XML cannot name one."""
    keys = {"object": "dir", "spice": "x509-dir"}
    found = [text for o in options if o.name in keys for text in o.under(keys[o.name])]
    return {path for path in found if path.startswith("/")}


def is_own(path: str, name: str, memory: Sequence[str]) -> bool:
    """Whether libvirt made a file only for the domain of this name, or opens it by device."""
    return path in OF_ALL or is_devices(path) or is_made_for(path, name, memory)


def is_devices(path: str) -> bool:
    """Whether libvirt opens it to one domain, device by device."""
    if path.startswith(MEDIATED):
        return is_uuid(path.removeprefix(MEDIATED))
    for directory, depth in ((PASSED, 1), (USB, 2)):
        if path.startswith(directory):
            numbers = path.removeprefix(directory).split("/")
            return len(numbers) == depth and all(map(is_number, numbers))
    return False


def is_made_for(path: str, name: str, memory: Sequence[str]) -> bool:
    """Whether it is at a place for this domain's name among libvirt's files for QEMU.

    `memory`: where else libvirt makes files for guests' memory.
    """
    top, _, below = path.partition("/libvirt/qemu/")
    # libvirt's locale decides whether it cuts characters or bytes.
    names = {name[:SHORT_NAME], name.encode(*ENCODING)[:SHORT_NAME].decode(*ENCODING)}
    if ".." in below.split("/"):
        return False
    if top == "/run" and is_helpers(below, names):
        return True
    is_libvirts = top in OWN_DIRECTORIES or top in memory or is_huge_pages(top)
    return is_libvirts and is_domains(below, names)


def is_domains(below: str, names: set[str]) -> bool:
    """`[domain-]ID-NAME`, up to two directories deep, and everything within it."""
    for part in below.split("/")[:3]:
        number, _, whose = part.removeprefix("domain-").partition("-")
        if is_number(number) and whose in names:
            return True
        if not (part.isascii() and part.isalpha() and part.islower()):
            break
    return False


def is_helpers(below: str, names: set[str]) -> bool:
    """`HELPER/ID-NAME-WHAT`: the socket of a helper that this domain's QEMU talks to."""
    helper, _, socket = below.partition("/")
    number, _, whose = socket.partition("-")
    of = [whose.removeprefix(f"{n}-") for n in names if whose.startswith(f"{n}-")]
    return helper in OF_HELPERS and is_number(number) and any(is_words(what, "_.-") for what in of)


def is_huge_pages(top: str) -> bool:
    return top.startswith(HUGE_PAGES) and is_words(f"_{top.removeprefix(HUGE_PAGES)}")
