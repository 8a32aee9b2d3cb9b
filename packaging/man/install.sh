#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Put the manual pages into $DESTDIR.
set -eu
cd "$(dirname "$0")"
man=$DESTDIR/usr/share/man
install -d "$man/man5" "$man/man8"
install -m 644 ./*.8 "$man/man8"
PYTHONPATH=../.. "$PYTHON" -B keys.py virt-warden.toml.5 ../../policy/schema.json \
    >"$man/man5/virt-warden.toml.5"
