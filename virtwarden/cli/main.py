# SPDX-License-Identifier: GPL-2.0-or-later
"""The `virt-warden` command: its subcommands, and which module runs each of them."""

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
    "enrol": "enrol domains: guard them from their next start on",
    "unenrol": "unenrol domains: restore their former XML",
    "status": "show each domain's guards and breaches; exit 1 on a breach",
    "explain": "show a domain's rules, their origin, and what its next start would do",
    "check": "show what the policy asks for that this host cannot do",
    "graduate": "make domains enforcing that the installation found and made permissive",
    "audit": "check the host and every domain against the threat model",
    "log": "show what happened to a domain: starts, refusals, breaches",
    "pki": "manage the console CA, the remote CA and their certificates",
    "remote": "check, set up or undo remote administration of libvirt",
    "console": "get a password for one connection to a domain's console",
    "recover": "undo what a crash left of domains that no longer run",
    "luks": "make, fill and list encrypted disks, and load their keys",
    "policy": "check the policy files",
    "package": "what install and remove do on the host, apart from files",
    "service": "what virt-warden.service runs",
    "network": "the gate, the filters, and the host's own network",
}
"""Each command with its help; the module of its name in virtwarden/cli, with _ for -, answers."""

# A shell gives this code for a process that died of SIGINT.
_INTERRUPTED = 130

# These commands ask a service that runs as root, and the service decides.
_FOR_ALL = ("console",)


class Command(Protocol):
    """What the module of a command has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes."""

    def run(self, options: argparse.Namespace, paths: Paths) -> int:
        """Do it. Gives 0 where all went well, 1 where something is wrong; raises WardenError."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Gives 0 where all went well, 1 where something is wrong, 2 for misuse."""
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
    """The module of the command, and the only one to be imported.

    `policy check` must work where libvirt does not.
    """
    module: Command = importlib.import_module(f"virtwarden.cli.{_name(words).replace('-', '_')}")
    return module


def _name(words: Sequence[str]) -> str:
    return next((word for word in words if word in COMMANDS), "policy")


def _parser(words: Sequence[str], command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virt-warden", description="Guard libvirt's virtual machines: each in its own cell."
    )
    parser.add_argument("--version", action="version", version=f"virt-warden {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        subparser = commands.add_parser(name, help=purpose, description=purpose)
        if name == _name(words):
            command.arguments(subparser)
    return parser
