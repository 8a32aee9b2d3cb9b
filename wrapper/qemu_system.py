"""The <emulator> of an enrolled domain: finds all as the hook left it, tightens it, becomes QEMU.

libvirt executes this in QEMU's place, by its entry script emulator.py, as the VM's own user.
Anything it imported from elsewhere would run as that user before every guest, and every import
delays every start: hence one file, the standard library alone, few modules of it, and no regular
expressions, which take longer to import and compile than all the rest to run. Confined by AppArmor
it can read the ticket and execute QEMU, and little else; so it asks the kernel by system calls,
never by /proc.

The ticket is root's word on what was reviewed; without one that only root can have written,
nothing starts. It must hold every host file that the domain's XML names or that libvirt derives
from it, save those that are its own (is_own), and the MAC of every NIC but those assigned as host
devices.
"""

from __future__ import annotations

# ctypes, json, signal, stat and os wrap these in modules that take up to a third as long to import
# as Python to start.
import _ctypes
import _json
import _signal  # type: ignore[import-not-found]  # typeshed has signal alone
import _stat as stat
import posix as os
import sys
from itertools import chain, islice

TYPE_CHECKING = False  # importing typing to learn the same costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn

    Ticket = dict[str, Any]

TICKETS = "/run/virt-warden"
TICKET_LIMIT = 1 << 20
QEMUS = "/usr/bin"
OWN_DIRECTORY = __file__.rpartition("/")[0] or "/"
ENCODING = sys.getfilesystemencoding(), "surrogateescape"
VNC_TLS = "vmw-vnc-tls"
VNC_AUTHZ = "vmw-vnc-authz"
VNC_SASL = "vmw-vnc-sasl"

# The kernel's words: <linux/prctl.h>, <linux/capability.h>, <linux/landlock.h>,
# <linux/close_range.h>, <linux/resource.h>
PR_SET_NO_NEW_PRIVS = 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522
NR_CLOSE_RANGE, CLOSE_RANGE_CLOEXEC = 436, 4
RLIMIT_CORE = 4
LAST_DESCRIPTOR = LAST_ID = 0xFFFFFFFF
NR_LANDLOCK_CREATE_RULESET, NR_LANDLOCK_ADD_RULE, NR_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH, LANDLOCK_RULE_NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV
# REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, REFER
CHANGE = WRITE | 0x27B0
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2
# What each ABI of Landlock handles: rights on files, on TCP ports, and what is scoped.
LANDLOCK = {
    1: (0x1FFF, 0, 0),
    2: (0x3FFF, 0, 0),
    3: (0x7FFF, 0, 0),
    4: (0x7FFF, BIND_TCP | CONNECT_TCP, 0),
    5: (0xFFFF, BIND_TCP | CONNECT_TCP, 0),
    6: (0xFFFF, BIND_TCP | CONNECT_TCP, SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL),
}


class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # it takes none when it runs
    _type_ = "i"


class CapabilitySets(_ctypes.Array):  # type: ignore[type-arg]
    """struct __user_cap_data_struct, of version 3: effective, permitted, inheritable, twice."""

    _type_ = Int
    _length_ = 6


class LibC:
    """What this process is linked with."""

    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # dlopen(3): the program itself


class Call(_ctypes.CFuncPtr):
    """A function of the C library: takes numbers of 32 bits and bytes, gives one, keeps errno."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Int


syscall, prctl, capget, setrlimit = (
    Call((name, LibC))  # type: ignore[arg-type]
    for name in ("syscall", "prctl", "capget", "setrlimit")
)


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# QEMU's words (7.2, all targets). FLAGS eat no argument; any other option eats the next word.
FLAGS = words_of("""
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable portrait preconfig s semihosting singlestep snapshot usb
    version win2k-hack xen-attach xen-domid-restrict""")
JSON_OPTIONS = words_of("audiodev blockdev compat device display netdev object")
IMPLIED_KEYS = {"fw_cfg": "name", "name": "guest", "object": "qom-type", "vnc": "vnc"}
NETWORK_DRIVERS = words_of("ftp ftps gluster http https iscsi nbd nfs rbd ssh")

# libvirt's words: all that its qemu_command.c (9.0) writes by itself; anything else comes from
# <qemu:commandline>. Left out: -net, of ARM boards without PCI, and the displays sdl and dbus,
# which no guard reviews. -loadvm (snapshot-revert) and -incoming defer (restore, migrate) are in.
VOCABULARY = words_of("""
    S accel acpitable add-fd append audiodev bios blockdev boot chardev compat cpu device display
    drive dtb fsdev full-screen fw_cfg global incoming initrd k kernel loadvm m machine mem-path
    mem-prealloc mon msg name netdev no-acpi no-hpet no-reboot no-shutdown no-user-config nodefaults
    numa object overcommit rtc sandbox serial smbios smp spice tpmdev usb uuid vnc
    watchdog-action""")
VNC_KEYS = words_of("audiodev password power-control sasl share tls-creds vnc websocket")
ENVIRONMENT = words_of("""
    HOME KRB5RCACHENAME LC_ALL LOGNAME PATH SASL_CONF_PATH SDL_AUDIODRIVER TMPDIR TZ USER
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME""")

# A text is a host file under these options and keys, and wherever it has a slash unless it is free
# (object.dir and spice.x509-dir: certificates that qemu.conf names, never the domain's XML).
FILE_OPTIONS = words_of("bios dtb initrd kernel mem-path")
FILE_KEYS = words_of("data file filename logfile mem-path path romfile")
DESCRIPTOR_KEYS = words_of("fd fds vhostfd vhostfds")
FREE_OPTIONS = words_of("append cpu loadvm name rtc smbios vnc")
FREE_KEYS = words_of("""
    blockdev.backing blockdev.file chardev.name device.mount_tag device.name device.product
    device.serial device.tag device.vendor fw_cfg.name fw_cfg.string netdev.net object.data
    object.dir object.iv spice.x509-dir""")
# What libvirt makes for one domain alone has its name, cut to so many characters or bytes.
SHORT_NAME = 20
OWN_DIRECTORIES = words_of("/run /var/lib")
HUGE_PAGES = "/dev/hugepages"
OF_HELPERS = words_of("dbus passt slirp swtpm")
OF_ALL = words_of("/dev/random /dev/urandom")
MEDIATED, PASSED, USB = "/sys/bus/mdev/devices/", "/dev/fdset/", "/dev/bus/usb/"
# Where an own file of each domain lies beside those of others.
SHARED_DIRECTORIES = words_of("""
    /dev/hugepages/libvirt/qemu /run/libvirt/qemu /run/libvirt/qemu/channel
    /run/libvirt/qemu/dbus /run/libvirt/qemu/passt /run/libvirt/qemu/slirp
    /run/libvirt/qemu/swtpm /var/lib/libvirt/qemu /var/lib/libvirt/qemu/channel/target""")

LEAVE = "'virt-warden unenrol {name}' to run it without virt-warden"
AGAIN = "start {name} once more through libvirt, or " + LEAVE
ENROL = "'virt-warden enrol {name}' if the policy manages it, or " + LEAVE
HOOK = "'virt-warden package configure' puts its hook in place; " + ENROL
XML = (
    "'virsh edit {name}', take it out of <qemu:commandline>; or allow it in the policy, by"
    ' exceptions = ["qemu-commandline"] under a [[domain]] for {name}'
)
STANDING = (
    "'virsh edit {name}', take passwd= out of <graphics>, and vnc_password out of"
    ' /etc/libvirt/qemu.conf; or static_passwords = "allow" in the policy'
)
LANDLOCKED = (
    'boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in lsm=, or set sandbox = "auto" or'
    ' "off" in the policy'
)


class Refusal(Exception):
    """Why this guest may not start, and what mends it ({name} stands for the domain's)."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


# QEMU asks a viewer's certificate for its issuer and never for its purpose: without this, a guest
# that broke out could show its own console's, whose name is its UUID.
OPERATORS_ALONE = {
    "qom-type": "authz-list",
    "id": VNC_AUTHZ,
    "policy": "allow",
    "rules": [
        {"match": f"*CN={'-'.join('?' * n for n in (8, 4, 4, 4, 12))}*", "policy": "deny"}
        | {"format": "glob"}
    ],
}

HEX = frozenset("0123456789abcdef")


def is_text(text: str) -> bool:
    return "\0" not in text


def is_path(text: str) -> bool:
    return text.startswith("/") and is_text(text)


def is_name(text: str) -> bool:
    return bool(text) and is_text(text) and "/" not in text


def is_words(text: str, also: str = "_") -> bool:
    """One or more letters, digits and what is allowed besides."""
    return bool(text) and all(char.isalnum() or char in also for char in text)


def is_user(text: str) -> bool:
    return is_words(text, "_.-")


def is_uuid(text: str) -> bool:
    """In the one form that cannot lead to another directory."""
    parts = text.split("-")
    return [*map(len, parts)] == [8, 4, 4, 4, 12] and HEX.issuperset("".join(parts))


def is_mac(text: str) -> bool:
    parts = text.lower().split(":")
    return [*map(len, parts)] == [2] * 6 and HEX.issuperset("".join(parts))


FORM = {
    "version": int,
    "mode": ("enforcing", "permissive", "disabled"),
    "uuid": is_uuid,
    "name": is_name,
    "user": is_user,
    "uid": int,
    "gid": int,
    "groups": [int],
    "emulator": is_path,
    "files": [is_path],
    "macs": [is_mac],
    "vnc": [({"listen": is_text, "port": int}, {"socket": is_path})],
    "tls_dir": (is_path, type(None)),
    "password": bool,
    "sasl": ({"dir": is_path, "names": ([is_text], type(None))}, type(None)),
    "display": bool,
    "client_certificates": bool,
    "static_passwords": bool,
    "passthrough": bool,
    "spice": bool,
    "landlock": (
        {
            "required": bool,
            "execute": [is_path],
            "read": [is_path],
            "write": [is_path],
            "bind": ([int], type(None)),
            "connect": ([int], type(None)),
        },
        type(None),
    ),
}


# What a ticket of an older hook leaves out.
FORMER = {
    "spice": False,
    "landlock": None,
    "display": True,
    "sasl": None,
    "client_certificates": False,
    "static_passwords": True,
}


def fits(value: Any, form: Any) -> Any:
    """Whether a JSON value is a type, a word, a kind of text, one of a tuple, or holds such."""
    if form is None:  # there is no such key
        return False
    if isinstance(form, tuple):
        return any(fits(value, choice) for choice in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        same = isinstance(value, dict) and value.keys() == form.keys()
        return same and all(fits(value[key], form[key]) for key in form)
    if form is int:
        return type(value) is int and 0 < value < LAST_ID
    if isinstance(form, type):
        return type(value) is form
    return isinstance(value, str) and (value == form if isinstance(form, str) else form(value))


def parse_ticket(text: str, uuid: str) -> Ticket:
    """The ticket of this uuid, in its one form; what FORMER has may be left out."""
    ticket = load_json(text)
    ticket = FORMER | ticket if isinstance(ticket, dict) else {}
    wrong = [key for key in {**FORM, **ticket} if not fits(ticket.get(key, ...), FORM.get(key))]
    if wrong or ticket["version"] != 1:
        raise Refusal(f"its ticket is malformed at {' '.join(wrong) or 'version'}", HOOK)
    if ticket["uuid"] != uuid:
        raise Refusal(f"its ticket is another domain's, {ticket['uuid']}", HOOK)
    return ticket


def open_roots_own(name: str, flags: int, owner: int, at: int | None = None) -> int:
    """Open what nobody but `owner`, who is root, can have made, changed or swapped."""
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    found = os.fstat(fd)
    if found.st_uid != owner or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refusal(f"its ticket could be forged: {name} is not root's alone to write", HOOK)
    return fd


def read_ticket(uuid: str, tickets: str = TICKETS, owner: int = 0) -> Ticket:
    """What root wrote for this uuid; any doubt about it is a refusal, whatever the mode."""
    try:
        # O_PATH, because a VM's user may pass through these directories but not list them.
        run = open_roots_own(tickets, os.O_PATH | os.O_DIRECTORY, owner)
        cell = open_roots_own(uuid, os.O_PATH | os.O_DIRECTORY, owner, run)
        ticket = open_roots_own("ticket.json", os.O_RDONLY, owner, cell)
        found = os.fstat(ticket)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Refusal("its ticket could be forged: not a file with just one name", HOOK)
        if found.st_size > TICKET_LIMIT:
            raise Refusal("its ticket is too big", HOOK)
        return parse_ticket(os.read(ticket, TICKET_LIMIT).decode(), uuid)
    except FileNotFoundError:
        raise Refusal("the hook wrote no ticket for this start", HOOK) from None
    except OSError as error:
        raise Refusal(f"its ticket cannot be read: {error}", HOOK) from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"its ticket is malformed: {error}", HOOK) from None


class Option:
    """One option: its name without dashes, its value, its words, each (key, text) in its value."""

    def __init__(self, name: str, value: str, words: list[str]) -> None:
        self.name, self.value, self.words = name, value, words
        self.readable = True
        try:
            if name in JSON_OPTIONS and value.startswith("{"):
                self.texts = list(walk(load_json(value)))
            else:
                self.texts = [part[:2] for part in split_opts(value, IMPLIED_KEYS.get(name, ""))]
        except (ValueError, RecursionError):
            self.texts, self.readable = [], False

    def under(self, key: str) -> list[str]:
        """Every text that stands under this key."""
        return [text for at, text in self.texts if at == key]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: of two readers, each could take another one."""
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


class Reading:
    """What the scanner of json.JSONDecoder wants to know of it."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(unique)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(no_number)


# typeshed asks for the parameters that json passes by position, under other types.
scan_json = _json.make_scanner(Reading)  # type: ignore[arg-type]


def load_json(text: str) -> Any:
    """What stands in a JSON text. Raises ValueError, RecursionError."""
    text = text.strip(" \t\n\r")
    try:
        value, end = scan_json(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def dump_json(value: Any) -> str:
    """JSON of texts and booleans, lists and objects of them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dump_json(k)}: {dump_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump_json, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else _json.encode_basestring_ascii(value)


def walk(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Each text with its dotted key; none of a network disk's, which opens no file."""
    if isinstance(node, str):
        yield at, node
    elif isinstance(node, list):
        for item in node:
            yield from walk(item, at)
    elif isinstance(node, dict) and str(node.get("driver")) not in NETWORK_DRIVERS:
        for key, value in node.items():
            yield from walk(value, f"{at}.{key}".removeprefix("."))


def split_opts(text: str, implied: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, value and raw text of each part of a QemuOpts string, cut where QEMU cuts it."""
    if implied and "=" not in text.partition(",")[0]:
        text = f"{implied}={text}"
    # Two commas in a value are one of it; meanwhile they are what no command line holds.
    parts = text.replace(",,", "\0").split(",")
    for more, part in enumerate(parts, 1 - len(parts)):
        keys, equals, value = part.partition("=")
        *flags, key = keys.replace("\0", ",,").split(",")
        if equals:
            pair = [(key, value.replace("\0", ","), f"{key}={value}".replace("\0", ",,"))]
        else:
            pair = []
            flags += [key] if key or more else []  # not the nothing at the end
        for flag in flags:  # 'nopassword' is QEMU's old 'password=off'
            yield flag.removeprefix("no"), "", flag
        yield from pair


def parse_argv(argv: Iterable[str]) -> list[Option]:
    """The options as QEMU reads them, behind one dash or two; '' names a word that has none."""
    options = []
    rest = iter(argv)
    for word in rest:
        name = word.replace("-", "", 2 if word.startswith("--") else 1) if word[:1] == "-" else ""
        value = [] if name in FLAGS or not name else [*islice(rest, 1)]
        if name == "display" and value and value[0].startswith("vnc="):
            options.append(Option("vnc", value[0][4:], [word, *value]))
        else:
            options.append(Option(name, "".join(value), [word, *value]))
    return options


def guest_names(options: Iterable[Option]) -> list[str]:
    return [name for option in options if option.name == "name" for name in option.under("guest")]


def is_probe(options: Iterable[Option]) -> bool:
    """Whether libvirt asks what QEMU can do, or somebody its version: there is no guest in it."""
    return all(option.name != "uuid" for option in options) and any(
        option.name in ("audio-help", "h", "help", "version")
        or option.value in ("?", "help")
        or (option.name in ("M", "machine") and option.value.split(",")[0] == "none")
        for option in options
    )


def guest_uuid(options: Iterable[Option]) -> str:
    """The one -uuid, in the one form that cannot lead to another directory."""
    uuids = [option.value for option in options if option.name == "uuid"]
    if len(uuids) != 1 or not is_uuid(uuids[0]):
        raise Refusal("its command line has no -uuid, or several, or a malformed one", XML)
    return uuids[0]


def check_identity(
    ticket: Ticket, uids: set[int], gids: set[int], groups: set[int], capabilities: int
) -> Iterator[Refusal]:
    """The process is the VM's own user and nobody else, in any of its ids."""
    fix = f"'virt-warden enrol {{name}}' gives it the label {ticket['user']} again"
    if uids != {ticket["uid"]}:
        yield Refusal(f"it runs as uid {sorted(uids)}, not as {ticket['uid']}", fix)
    if gids != {ticket["gid"]}:
        yield Refusal(f"it runs as gid {sorted(gids)}, not as {ticket['gid']}", fix)
    if foreign := groups - {ticket["gid"], *ticket["groups"]}:
        yield Refusal(f"it is in groups {sorted(foreign)}, which are not the VM's", fix)
    if capabilities:
        yield Refusal(f"it has capabilities ({capabilities:#x})", fix)


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
    """Each planned MAC is on just one NIC, and no NIC has another."""
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


def endpoint(address: str) -> str:
    """Where a VNC address of QEMU's listens, in the ticket's terms: displays count from 5900."""
    host, colon, display = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or "]" in host or not is_number(display) or len(display) > len("65535"):
        return address
    return f"{host} port {int(display) + 5900}"


def check_consoles(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Every way in is a planned one; -vnc can name several, and more by its other keys."""
    planned = {"none"}
    for console in ticket["vnc"]:
        form = "unix:{socket}" if "socket" in console else "{listen} port {port}"
        planned.add(form.format(**console))
    for option in options:
        if option.name == "spice" and not (ticket["spice"] or ticket["passthrough"]):
            yield Refusal("SPICE is not among its planned consoles", XML)
        if option.name != "vnc":
            continue
        if "on" in option.under("password") and not ticket["static_passwords"]:
            yield Refusal("its VNC display has a password that stands for ever", STANDING)
        for address in option.under("vnc") or [""]:
            if endpoint(address) not in planned:
                yield Refusal(f"VNC at {endpoint(address)!r} is not a planned console", XML)
        for key, value in option.texts:
            # A bare websocket port shares address, TLS and password; 'host:port' would not.
            if key not in VNC_KEYS or (key == "websocket" and not value.isdecimal()):
                yield Refusal(f"libvirt does not write {key}={value} in -vnc by itself", XML)


def is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def is_display(value: str) -> bool:
    return value == "none" or value.split(",")[0] == "egl-headless"


def is_incoming(value: str) -> bool:
    """A descriptor, or what the monitor will tell; 'exec:' would run a shell."""
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


def check_files(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Every host file was reviewed, or libvirt made it for this domain."""
    for option in options:
        for path in opened_files(option):
            if path in ticket["files"] or is_own(path, ticket["name"]):
                continue
            yield Refusal(f"-{option.name} opens {path!r}, which was not reviewed", XML)


def is_own(path: str, name: str) -> bool:
    """Whether libvirt made a file for the domain of this name alone, or opens it by device."""
    return path in OF_ALL or is_devices(path) or is_made_for(path, name)


def is_devices(path: str) -> bool:
    """Whether it is what libvirt opens to one domain, device by device."""
    if path.startswith(MEDIATED):
        return is_uuid(path.removeprefix(MEDIATED))
    for directory, depth in ((PASSED, 1), (USB, 2)):
        if path.startswith(directory):
            numbers = path.removeprefix(directory).split("/")
            return len(numbers) == depth and all(map(is_number, numbers))
    return False


def is_made_for(path: str, name: str) -> bool:
    """Whether it has its place among libvirt's files for QEMU, under this domain's name."""
    top, _, below = path.partition("/libvirt/qemu/")
    # In characters or bytes, is up to libvirt's locale.
    names = {name[:SHORT_NAME], name.encode(*ENCODING)[:SHORT_NAME].decode(*ENCODING)}
    if ".." in below.split("/"):
        return False
    if top == "/run" and is_helpers(below, names):
        return True
    return (top in OWN_DIRECTORIES or is_huge_pages(top)) and is_domains(below, names)


def is_domains(below: str, names: set[str]) -> bool:
    """`[domain-]ID-NAME`, up to two directories deep, and all within it."""
    for part in below.split("/")[:3]:
        number, _, whose = part.removeprefix("domain-").partition("-")
        if is_number(number) and whose in names:
            return True
        if not (part.isascii() and part.isalpha() and part.islower()):
            break
    return False


def is_helpers(below: str, names: set[str]) -> bool:
    """`HELPER/ID-NAME-WHAT`: the socket of one that this domain's QEMU talks to."""
    helper, _, socket = below.partition("/")
    number, _, whose = socket.partition("-")
    of = [whose.removeprefix(f"{n}-") for n in names if whose.startswith(f"{n}-")]
    return helper in OF_HELPERS and is_number(number) and any(is_words(what, "_.-") for what in of)


def is_huge_pages(top: str) -> bool:
    return top.startswith(HUGE_PAGES) and is_words(f"_{top.removeprefix(HUGE_PAGES)}")


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


def tighten_argv(ticket: Ticket, options: list[Option]) -> list[str]:
    """The words for QEMU: every -vnc with what the ticket asks for, or none where it says so."""
    ours = {"tls-creds": VNC_TLS} if ticket["tls_dir"] else {}
    sasl = ticket["sasl"] if ticket["tls_dir"] else None
    ours |= {"password": "on"} if ticket["password"] and not sasl else {}
    ours |= {"sasl": "on"} if sasl else {}
    names = sasl and sasl["names"]
    ours |= {"sasl-authz": VNC_SASL} if names is not None else {}
    # QEMU would ask for the password instead.
    unwanted = ours.keys() | ({"password"} if sasl else set())
    asks_whose = ticket["tls_dir"] and ticket["client_certificates"]
    ours |= {"tls-authz": VNC_AUTHZ} if asks_whose else {}
    consoles = [option for option in options if option.name == "vnc"]
    replaced = consoles if ticket["tls_dir"] or not ticket["display"] else []
    former = {*chain.from_iterable(option.under("tls-creds") for option in replaced)}
    words = []
    for option in options:
        if option in consoles and not ticket["display"]:
            continue
        if option in consoles and ours:
            kept = [raw for key, _, raw in split_opts(option.value, "vnc") if key not in unwanted]
            words += ["-vnc", ",".join(kept + [f"{key}={value}" for key, value in ours.items()])]
        # libvirt's own credentials, now unused: QEMU would still load them, and die of a key that
        # the VM's user cannot read.
        elif option.name != "object" or former.isdisjoint(option.under("id")):
            words += option.words
    if consoles and not ticket["display"]:
        # With neither option QEMU would open a display of its own choice.
        none = ["-display", "none"]
        return words if any(option.name == "display" for option in options) else words + none
    if consoles and ticket["tls_dir"]:
        words += ["-object", dump_json(tls_credentials(ticket))]
    if consoles and asks_whose:
        words += ["-object", dump_json(OPERATORS_ALONE)]
    if consoles and names is not None:
        words += ["-object", dump_json(principals_alone(names))]
    return words


def principals_alone(names: list[str]) -> dict[str, object]:
    """The object that has QEMU let these come in, of all whom Kerberos knows."""
    rules = [{"match": name, "policy": "allow", "format": "exact"} for name in names]
    return {"qom-type": "authz-list", "id": VNC_SASL, "policy": "deny", "rules": rules}


def tls_credentials(ticket: Ticket) -> dict[str, object]:
    """The object that has QEMU speak TLS, and ask viewers for a certificate or not."""
    return {
        "qom-type": "tls-creds-x509",
        "id": VNC_TLS,
        "dir": ticket["tls_dir"],
        "endpoint": "server",
        "verify-peer": ticket["client_certificates"],
    }


def tighten_environment(ticket: Ticket, given: Mapping[str, str]) -> dict[str, str]:
    """What libvirt sets for QEMU by itself; with passthrough its <qemu:env> as well."""
    kept = {key: given[key] for key in given if key in ENVIRONMENT or ticket["passthrough"]}
    sasl = ticket["sasl"]
    ours = {"SASL_CONF_PATH": sasl["dir"]} if sasl else {}
    if sasl and sasl["names"] is not None:
        # No cache against replay (krb5.conf(5)), which would be a file in /var/tmp: within TLS
        # nobody sees what could be replayed.
        ours["KRB5RCACHENAME"] = "none:"
    return kept | ours


def named_descriptors(options: list[Option]) -> set[int]:
    """The descriptors that the command line names: `fd=30`, `vhostfds=31:32`, `fd:33`."""
    named = {0, 1, 2}
    for option in options:
        texts = [text for at, text in option.texts if at.rpartition(".")[2] in DESCRIPTOR_KEYS]
        if option.value.startswith("fd:"):
            texts.append(option.value[3:])
        for text in texts:
            if all(map(is_number, numbers := text.split(":"))):
                named.update(map(int, numbers))
    return named


def tighten_descriptors(ticket: Ticket, options: list[Option]) -> None:
    """QEMU inherits what its command line names, and nothing that was forgotten open.

    A saved guest's memory comes by a descriptor that libvirt names later, in the monitor.
    """
    deferred = any((option.name, option.value) == ("incoming", "defer") for option in options)
    if ticket["passthrough"] or deferred:
        return
    last = -1
    for number in [*sorted(named_descriptors(options)), LAST_DESCRIPTOR]:
        if number > last + 1:
            close_on_exec(last + 1, number - 1)
        last = number


def close_on_exec(first: int, last: int) -> None:
    """close_range(2); a kernel that does not know it leaves them open, as libvirt did."""
    syscall(NR_CLOSE_RANGE, first, last, CLOSE_RANGE_CLOEXEC)


def tighten_process() -> None:
    """Nothing QEMU executes gains a privilege; neither cores nor new files are for others."""
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(_ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if setrlimit(RLIMIT_CORE, packed(8, 0, 0)) != 0:
        raise OSError(_ctypes.get_errno(), "RLIMIT_CORE")
    os.umask(0o077)


def confine(ticket: Ticket, options: list[Option]) -> None:
    """From here on this process, and the QEMU it becomes, reaches what this domain needs.

    landlock(7). Where the kernel has less of it than we know, it is held to as much as it has.
    """
    wanted = ticket["landlock"]
    if wanted is None:
        return
    abi = landlock(NR_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 1:
        what = f"this kernel has no Landlock ({os.strerror(_ctypes.get_errno())})"
        if wanted["required"]:
            raise Refusal(what, LANDLOCKED)
        say(ticket["name"], "goes without a sandbox for", what, LANDLOCKED)
        return
    files, ports, scoped = LANDLOCK[min(abi, max(LANDLOCK))]
    ports &= BIND_TCP * (wanted["bind"] is not None) | CONNECT_TCP * (wanted["connect"] is not None)
    ruleset = create_ruleset(files, ports, scoped)
    opened = {path for option in options for path in opened_files(option)}
    made = {path for path in opened if is_made_for(path, ticket["name"])}
    homes = {path.rpartition("/")[0] for path in made} - SHARED_DIRECTORIES
    for rights, paths in (
        (EXECUTE | READ_FILE, wanted["execute"]),
        (READ, wanted["read"]),
        (WRITE, opened - {*wanted["read"]}),
        (CHANGE, homes.union(wanted["write"])),
    ):
        for path in paths:
            allow_path(ruleset, path, rights & files)
    for rights, numbers in ((BIND_TCP, wanted["bind"]), (CONNECT_TCP, wanted["connect"])):
        for number in numbers or ():
            allow_port(ruleset, number, rights & ports)
    if landlock(NR_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(_ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
    os.write(2, f"virt-warden: sandboxed by Landlock {abi}\n".encode())


def landlock(number: int, *arguments: bytes | int | None) -> int:
    return int(syscall(number, *arguments))


def packed(size: int, *numbers: int) -> bytes:
    """Numbers of so many bytes each, as they stand in the kernel's structures."""
    return b"".join(number.to_bytes(size, sys.byteorder) for number in numbers)


def create_ruleset(files: int, ports: int, scoped: int) -> int:
    attributes = packed(8, files, ports, scoped)
    ruleset = landlock(NR_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(_ctypes.get_errno(), "landlock_create_ruleset")
    return ruleset


def allow_path(ruleset: int, path: str, rights: int) -> None:
    """A file or device, or all below a directory; what is not there cannot be allowed."""

    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= OF_A_FILE
        rule = packed(8, rights) + packed(4, fd)
        if landlock(NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0):
            raise OSError(_ctypes.get_errno(), f"landlock_add_rule for {path}")
    finally:
        os.close(fd)


def allow_port(ruleset: int, port: int, rights: int) -> None:
    rule = packed(8, rights, port)
    if rights and landlock(NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_NET_PORT, rule, 0):
        raise OSError(_ctypes.get_errno(), f"landlock_add_rule for port {port}")


def capabilities() -> int:
    """Every capability that this process has, could take or could hand on; 0 rules out ambient."""
    sets = CapabilitySets()
    if capget(packed(4, LINUX_CAPABILITY_VERSION_3, 0), sets) != 0:
        raise OSError(_ctypes.get_errno(), "capget")
    low, high = (int(sets[at] | sets[at + 1] | sets[at + 2]) & 0xFFFFFFFF for at in (0, 3))
    return low | high << 32


def say(name: str, verb: str, what: object, fix: str) -> None:
    """One line on stderr, which libvirt shows in the error of `virsh start`."""
    line = f"virt-warden {verb} {name}: {str(what)[:400]}; to mend: {fix.format(name=name)}"
    printable = "".join(char if char.isprintable() else "?" for char in line)
    os.write(2, f"{printable}\n".encode(errors="backslashreplace"))


def judge(ticket: Ticket, violations: Iterable[Refusal]) -> None:
    """The first one ends it, unless the mode is permissive: then each is only said."""
    for refusal in violations:
        if ticket["mode"] == "enforcing":
            raise refusal
        say(ticket["name"], "would refuse", refusal, refusal.fix)


def is_ours(found: os.stat_result) -> bool:
    """Whether a file, by whichever name it was found, is one of the wrapper's."""
    for name in os.listdir(OWN_DIRECTORY):
        try:
            one = os.stat(f"{OWN_DIRECTORY}/{name}")
        except FileNotFoundError:  # an upgrade has just put it in another's place
            continue
        if (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
            return True
    return False


def become(emulator: str, words: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute QEMU, with every descriptor that libvirt passed: taps, monitor, logs."""
    fix = "reinstall its package, or give {name} another <emulator>"
    try:
        found = os.stat(emulator)
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refusal(f"{emulator} is not root's alone to write", fix)
        if is_ours(found):
            raise Refusal(f"{emulator} is this wrapper again", ENROL)
        for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):  # by Python; exec would leave it so
            _signal.signal(ignored, _signal.SIG_DFL)
        os.execve(emulator, [emulator, *words], environment)
    except OSError as error:
        raise Refusal(f"{emulator} cannot be executed: {error.strerror}", fix) from None


def main(argv: list[str]) -> NoReturn:
    """Become QEMU, or say in one line why not."""
    name = "DOMAIN"
    try:
        given = {k.decode(*ENCODING): v.decode(*ENCODING) for k, v in os.environ.items()}
        options = parse_argv(argv[1:])
        name = (guest_names(options) or [name])[0]
        if is_probe(options):
            become(f"{QEMUS}/{argv[0].rpartition('/')[2]}", argv[1:], given)
        ticket = read_ticket(guest_uuid(options))
        if ticket["mode"] == "disabled":
            become(ticket["emulator"], argv[1:], given)
        ids = {*os.getresuid()}, {*os.getresgid()}, {*os.getgroups()}
        judge(ticket, check_identity(ticket, *ids, capabilities()))
        judge(ticket, check_argv(ticket, options))
        words = tighten_argv(ticket, options)
        environment = tighten_environment(ticket, given)
        tighten_descriptors(ticket, options)
        tighten_process()
        confine(ticket, options)
        become(ticket["emulator"], words, environment)
    except Refusal as refusal:
        say(name, "refuses", refusal, refusal.fix)
    except Exception as error:  # noqa: BLE001 - fail closed, with a line and never a traceback
        say(name, "refuses", f"internal error: {error!r}", AGAIN)
    sys.exit(1)
