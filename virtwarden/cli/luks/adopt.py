# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks adopt`: an existing disk of a domain is encrypted, without losing a byte."""

from __future__ import annotations

import argparse

from virtwarden.adoption.former import remove_old
from virtwarden.adoption.steps import abort, adopt
from virtwarden.adoption.subject import Subject
from virtwarden.adoption.work import at_work
from virtwarden.cli.terminal.dialogue import Terminal
from virtwarden.domain.model import Domain, read
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import connected, find, inactive_xml
from virtwarden.luks import creation
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Rules, load
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", metavar="DOMAIN", help="by name or UUID; it must be off")
    parser.add_argument("disk", metavar="DISK", help="the disk's target, such as vda")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--abort", action="store_true", help="give up an interrupted adopt")
    after.add_argument(
        "--remove-old",
        action="store_true",
        help="overwrite and remove the former disk, after its domain has the container",
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    policy = load(paths, store=True)
    with connected() as connection:
        domain = read(inactive_xml(find(connection, options.domain)))
        rules = policy.rules_for(domain.name)
        said = creation.rules_of(rules, domain, options.disk)
        place = creation.place_of(said, domain, options.disk)
        node = creation.node(said, domain, options.disk)
        subject = Subject(paths, connection, domain, rules, options.disk, place, node, Terminal())
        with at_work(paths, subject.key):
            if options.abort:
                abort(subject)
            elif options.remove_old:
                remove_old(subject)
            else:
                _must_be_kept_from_starting(policy, rules, domain)
                adopt(subject)
    return 0


def _must_be_kept_from_starting(policy: Policy, rules: Rules, domain: Domain) -> None:
    """Only of these does the hook refuse a start in the middle, whose writes would be lost."""
    if not policy.manages(domain.name) or rules.mode is not Mode.ENFORCING or not domain.enrolment:
        raise HostError(
            f"{domain.name} could start during the copy",
            where=rules.where("mode"),
            fix=f'manage it (`managed`), set mode = "enforcing", and enrol it: virt-warden enrol'
            f" {shown(domain.name)}",
        )
