# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a domain's XML a path of the host may stand: everywhere but in the free texts.

libvirt learns new elements with each release, and each may name a file. So what is listed here is
what is not a path: of all else, whatever has a slash, or stands under a name that libvirt gives
to paths, is taken for one (docs/schemas/domaincommon.rng in libvirt's source has them all).
"""

from __future__ import annotations


def _is(names: str) -> str:
    # One look into all names costs a fraction of a comparison with each; no name has a blank.
    return f"contains(' {' '.join(names.split())} ', concat(' ', local-name(), ' '))"


# Relative ones, too: libvirtd's working directory is the root.
_PATH_ATTRIBUTES = "dir evdev file logFile path rendernode socket tap template vhost"
_PATH_ELEMENTS = "backend database path"
# Names and words of the guest's, of another host's or of libvirt's own.
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
