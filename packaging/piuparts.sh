#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Have piuparts install, remove and purge the package on a minimal system of this Debian's release.
# As root; `make piuparts` runs it on Debian 13. Further arguments are piuparts's.
set -eu
cd "$(dirname "$0")/.."
packaging/needs.sh
packaging/needs.sh piuparts
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
packaging/deb.sh "$scratch/deb" >/dev/null 2>"$scratch/log" || { cat "$scratch/log" && exit 1; }
# apt's own way to Debian, as in the system that this runs on.
apt-config dump Acquire >"$scratch/apt.conf"
mmdebstrap --quiet --mode=root --variant=minbase --aptopt="$scratch/apt.conf" \
    "$codename" "$scratch/base.tar" /etc/apt/sources.list
# systemd's and udev's, which come with libvirt: libvirt-daemon-system alone leaves them too.
piuparts --distribution="$codename" --basetgz="$scratch/base.tar" --no-eatmydata --log-level=info \
    --ignore=/usr/lib/udev/ --ignore=/var/lib/machines/ --ignore=/var/lib/portables/ \
    "$@" "$scratch"/deb/*.deb
