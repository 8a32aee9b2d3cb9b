# SPDX-License-Identifier: GPL-2.0-or-later
"""swtpm and swtpm_setup, as libvirt finds them: each reaches only what its own VM's TPM needs.

libvirt runs the emulated TPMs of all VMs as one user, whose files all TPMs' states are. So a guest
that breaks out of its TPM has the others' states before it, but for landlock(7), which this sets.
libvirt executes it in the place of the program of the same name, and asks it for that program's
capabilities.

A note of root's says what the TPM of a running VM needs, by the VM's name, which the path of the
log tells. Without a note nothing is confined: the policy does not manage the domain, or says so.
"""

from __future__ import annotations

import _socket
import posix as os
import sys

from landlock import CHANGE, EXECUTE, READ, READ_FILE, confine_to
from process import execute, tighten_process
from refusal import AGAIN, HOOK, Refusal, say
from texts import ENCODING, is_name, is_path, load_json
from ticket import fits, open_roots_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    Note = dict[str, Any]

PROGRAMS = "/usr/bin"
OWN_PATH = __file__.rpartition("/")[0] + "/bin"
NOTES = "/run/virt-warden/tpms"
NOTE_LIMIT = 1 << 16
# The note's own name is the beginning of the VM's: a file name is shorter than some of those.
NAME_LENGTH = 50
FORM = {
    "version": int,
    "name": is_name,
    "mode": ("enforcing", "permissive"),
    "required": bool,
    "socket": is_path,
    "execute": [is_path],
    "read": [is_path],
    "write": [is_path],
}

# libvirt's and swtpm's words.
LOG_SUFFIX = "-swtpm.log"
SETUP = "swtpm_setup"
TEMPORARY = "/tmp"  # noqa: S108 - where swtpm_setup makes a file for its swtpm's pid


def values(words: list[str], option: str) -> Iterator[str]:
    """What follows this option."""
    for at, word in enumerate(words[:-1]):
        if word == option:
            yield words[at + 1]


def field(value: str, name: str) -> str:
    """A field of a value of fields, such as file=/var/log/x,level=5; empty where it lacks it."""
    for part in value.split(","):
        at, _, text = part.partition("=")
        if at == name:
            return text
    return ""


def vm_of(words: list[str]) -> str:
    """The VM's name; empty where the command line is not about one."""
    logs = [*values(words, "--logfile"), *(field(v, "file") for v in values(words, "--log"))]
    name = logs[0].rpartition("/")[2] if logs else ""
    return name.removesuffix(LOG_SUFFIX) if name.endswith(LOG_SUFFIX) else ""


def note_of(name: str, notes: str = NOTES, owner: int = 0) -> Note | None:
    """What root says of this VM's TPM; None where it says nothing."""
    if not name:
        return None
    try:
        run = open_roots_own(notes, os.O_PATH | os.O_DIRECTORY, owner)
        file = open_roots_own(f"{name[:NAME_LENGTH]}.json", os.O_RDONLY, owner, run)
        note = load_json(os.read(file, NOTE_LIMIT).decode())
        os.close(file)
        os.close(run)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(f"what root says of its TPM cannot be read: {error}", HOOK) from None
    if not fits(note, FORM) or note["version"] != 1:
        raise Refusal("what root says of its TPM is malformed", HOOK)
    return note if note["name"] == name else None


def reads_a_guests_state(program: str, words: list[str]) -> bool:
    """Whether it runs on a state that the guest could write. libvirt also sets up new ones.

    A swtpm_setup that libvirt found elsewhere runs swtpm too, but gives it no path of a socket.
    """
    if program != SETUP:
        return any(field(value, "path") for value in values(words, "--ctrl"))
    return "--reconfigure" in words or any(map(has_content, values(words, "--tpm-state")))


def has_content(state: str) -> bool:
    """Whether the state is a file that is there; a directory is new, or else reconfigured."""
    if not state.startswith("file://"):
        return False
    try:
        return os.stat(state.removeprefix("file://")).st_size > 0
    except OSError:
        return False


def with_socket(words: list[str], path: str) -> list[str]:
    """The command line with the listening socket itself for its path.

    So nobody who breaks out of swtpm needs to be let into the directory of all TPMs' sockets.
    """
    found = list(words)
    for at, word in enumerate(words[1:], 1):
        parts = word.split(",")
        if words[at - 1] == "--ctrl" and f"path={path}" in parts:
            parts[parts.index(f"path={path}")] = f"fd={listening(path)}"
            found[at] = ",".join(parts)
    return found


def listening(path: str) -> int:
    """A descriptor of a socket that listens there, for its owner alone."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    former = os.umask(0o177)
    server.bind(path)
    os.umask(former)
    server.listen(1)
    os.set_inheritable(server.fileno(), True)
    return server.detach()


def confined(program: str, words: list[str], note: Note) -> list[str]:
    """The command line, once this process reaches only what the note says."""
    words = with_socket(words, note["socket"])
    tighten_process()
    temporary = [TEMPORARY] if program == SETUP else []
    allowed = [
        (EXECUTE | READ_FILE, note["execute"]),
        (READ, note["read"]),
        (CHANGE, [*note["write"], *temporary]),
    ]
    confine_to(note["name"], allowed, required=note["required"])
    return words


def tell(words: list[str], name: str, refusal: Refusal) -> None:
    """Say why on stderr, and in swtpm_setup's log, because libvirt shows only where that is."""
    say(name, "refuses the TPM of", refusal, refusal.fix)
    for log in values(words, "--logfile"):
        line = f"virt-warden refuses: {refusal}; fix: {refusal.fix.format(name=name)}\n"
        try:
            file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            os.write(file, line.encode(errors="backslashreplace"))
            os.close(file)
        except OSError:
            return


def environment() -> dict[bytes, bytes]:
    """swtpm_setup looks on its PATH for the swtpm that it runs: not for this wrapper."""
    given = dict(os.environ)
    if (path := given.get(b"PATH")) is not None:
        own = OWN_PATH.encode(*ENCODING)
        given[b"PATH"] = b":".join(part for part in path.split(b":") if part != own)
    return given


def main(argv: list[str]) -> NoReturn:
    """Become the program of the same name, or say in one line why not."""
    program, words = argv[0].rpartition("/")[2], argv[1:]
    name = vm_of(words) or "DOMAIN"
    try:
        note = note_of(vm_of(words)) if reads_a_guests_state(program, words) else None
        if note is not None:
            try:
                words = confined(program, words, note)
            except (Refusal, OSError) as error:
                if note["mode"] == "enforcing":
                    raise
                say(name, "would refuse the TPM of", error, getattr(error, "fix", AGAIN))
        execute(f"{PROGRAMS}/{program}", words, environment())
    except Refusal as refusal:
        tell(words, name, refusal)
    except Exception as error:  # noqa: BLE001 - fail closed, with a line and never a traceback
        tell(words, name, Refusal(f"internal error: {error!r}", AGAIN))
    sys.exit(1)
