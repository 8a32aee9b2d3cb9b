# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a domain's XML may name a path of the host: everywhere except in free texts.

libvirt gets new elements with each release, and each may name a file. So this module lists what is
not a path. Of everything else, a text counts as a path where it has a slash, or where libvirt gives
its name to paths (docs/schemas/domaincommon.rng in libvirt's source has them all).
"""

from __future__ import annotations


def _is(names: str) -> str:
    # One search in all names costs a fraction of a comparison with each; no name has a blank.
    return f"contains(' {' '.join(names.split())} ', concat(' ', local-name(), ' '))"


# Relative paths count too: libvirtd's working directory is the root.
_PATH_ATTRIBUTES = "dir evdev file logFile path rendernode socket tap template vhost"
_PATH_ELEMENTS = "backend database path"
# These are names and words of the guest, of another host, or of libvirt itself.
_FREE_ATTRIBUTES = """
    actual channel clientName connectPorts fdgroup filter keymap name passwd portgroup query
    streamName tlsHostname usage username value"""
_FREE_ELEMENTS = "certificate cookie group_name label product serial vendor"
_FREE_IN_OS = "cmdline initarg initenv"
_FREE_PLACES = """
    blkiotune bootloader_args clock cpu description devices launchSecurity metadata name resource
    seclabel title"""

_ATTRIBUTES = (
    f"@*[contains(., '/') or {_is(_PATH_ATTRIBUTES)}][not({_is(_FREE_ATTRIBUTES)})]"
    "[not(parent::target and local-name() = 'dir')][not(ancestor::mirror)]"
)
_ELEMENTS = f"[not(*)][contains(., '/') or {_is(_PATH_ELEMENTS)}][not({_is(_FREE_ELEMENTS)})]"

PATHS_OF_A_DEVICE = f"descendant-or-self::*/{_ATTRIBUTES} | descendant-or-self::*{_ELEMENTS}"
"""Every such path in one element of `<devices>`; a running block job's `<mirror>` is no concern."""

_BESIDE = f"*[namespace-uri() = ''][not({_is(_FREE_PLACES)})]/descendant-or-self::*"
PATHS_BESIDE_DEVICES = (
    f"{_BESIDE}/{_ATTRIBUTES} | {_BESIDE}{_ELEMENTS}[not(ancestor::sysinfo)]"
    f"[not(parent::os and ({_is(_FREE_IN_OS)}))]"
)
"""Every such path outside `<devices>`."""
