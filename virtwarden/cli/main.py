"""The `virt-warden` command: what can be asked of it, and which module answers."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from virtwarden import __version__
from virtwarden.errors import FIX, WardenError
from virtwarden.paths import Paths

COMMANDS = {
    "enrol": "put domains under guard, from their next start on",
    "unenrol": "make domains again what they were",
    "status": "how each domain stands; 1 if a promise is broken",
    "explain": "the rules of a domain, where each comes from, and what a start would do",
    "check": "what the policy asks for that this host, or a domain on it, cannot keep",
    "audit": "how the host and every domain stand against the threat model",
    "log": "what befell a domain: starts, refusals, breaches, out of the systemd journal",
    "pki": "the authorities of consoles and of remote administration, and their certificates",
    "remote": "how libvirt is managed from elsewhere: checked, set up, put back",
    "console": "a password for one look at a domain's console, for those whom the policy names",
    "recover": "undo what is left of domains that do not run any more",
    "luks": "encrypted disks: make and fill them, load their keys, see how they stand",
    "policy": "the policy files",
    "package": "what installation and removal do to the host beyond placing files",
    "service": "what virt-warden.service runs",
    "virt-install": "virt-install(1), whose domains are under guard from their first boot",
    "network": "the gate and the filters, and the network of the host itself",
}
"""Each command with its help; the module of its name in virtwarden/cli, with _ for -, answers."""

# As a shell has it for who died of SIGINT.
_INTERRUPTED = 130

# They ask a service of root's, which decides.
_FOR_ALL = ("console",)


class Command(Protocol):
    """What the module of a command has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes."""

    def run(self, options: argparse.Namespace, paths: Paths) -> int:
        """Do it. Gives 0 where all went well, 1 where something is amiss; raises WardenError."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Gives 0 where all went well, 1 where something is amiss, 2 for misuse."""
    words = sys.argv[1:] if arguments is None else arguments
    command = _module(words)
    options = _parser(words, command).parse_args(words)
    if os.geteuid() != 0 and options.command not in _FOR_ALL:
        print(f"virt-warden: only root may do that{FIX}sudo virt-warden …", file=sys.stderr)
        return 1
    try:
        return command.run(options, Paths())
    except WardenError as error:
        print(f"virt-warden: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except EOFError:
        print(
            f"virt-warden: no terminal to ask at{FIX}run it in a terminal, or use an option that"
            f" reads a file: virt-warden {options.command} --help",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _module(words: Sequence[str]) -> Command:
    """The module of the command that is asked for.

    No other is imported: `policy check` must work where libvirt does not.
    """
    module: Command = importlib.import_module(f"virtwarden.cli.{_name(words).replace('-', '_')}")
    return module


def _name(words: Sequence[str]) -> str:
    return next((word for word in words if word in COMMANDS), "policy")


def _parser(words: Sequence[str], command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virt-warden", description="Every virtual machine in its own cell."
    )
    parser.add_argument("--version", action="version", version=f"virt-warden {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        subparser = commands.add_parser(name, help=purpose, description=purpose)
        if name == _name(words):
            command.arguments(subparser)
    return parser
