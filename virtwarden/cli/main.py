"""The `virt-warden` command: what can be asked of it, and who answers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from virtwarden import __version__
from virtwarden.errors import WardenError
from virtwarden.paths import Paths


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Gives 0 where all went well, 1 where something is amiss, 2 for misuse."""
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("virt-warden: only root may do that; to mend: sudo virt-warden …", file=sys.stderr)
        return 1
    try:
        return _dispatch(options, Paths())
    except WardenError as error:
        print(f"virt-warden: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(options: argparse.Namespace, paths: Paths) -> int:
    # Each imported only when it is asked for: `policy check` must work where libvirt does not.
    if options.command in ("enrol", "unenrol"):
        from virtwarden.cli import enrol

        if options.command == "unenrol":
            return enrol.unenrol(paths, options.domains, all_domains=options.all)
        if options.xml is not None:
            return enrol.enrol_file(paths, options.xml)
        return enrol.enrol(paths, options.domains, all_domains=options.all)
    if options.command == "status":
        from virtwarden.cli import status

        return status.status(paths, options.domains, as_json=options.json)
    if options.command == "explain":
        from virtwarden.cli import explain

        return explain.explain(paths, options.domain)
    if options.command == "recover":
        from virtwarden.cli import recover

        return recover.recover(paths, options.domains)
    from virtwarden.cli import policy_check

    return policy_check.check(paths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virt-warden", description="Every virtual machine in its own cell."
    )
    parser.add_argument("--version", action="version", version=f"virt-warden {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    enrol = commands.add_parser("enrol", help="put domains under guard, from their next start on")
    whom = enrol.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="all domains that the policy manages")
    whom.add_argument(
        "--xml", type=Path, metavar="FILE", help="print FILE's XML enrolled, for virsh define"
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")

    unenrol = commands.add_parser("unenrol", help="make domains again what they were")
    whom = unenrol.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="all domains that are enrolled")
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")

    status = commands.add_parser("status", help="how each domain stands; 1 if a promise is broken")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("domains", nargs="*", metavar="DOMAIN")

    explain = commands.add_parser(
        "explain", help="the rules of a domain, where each comes from, and what a start would do"
    )
    explain.add_argument("domain", metavar="DOMAIN")

    recover = commands.add_parser(
        "recover", help="undo what is left of domains that do not run any more"
    )
    recover.add_argument("domains", nargs="*", metavar="DOMAIN", help="all, if none is named")

    policy = commands.add_parser("policy", help="the policy files")
    policy.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "check", help="say all that is wrong with them"
    )
    return parser
