#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# deb.sh [DIRECTORY [KIND]]: build the Debian package into build/deb, or another directory, which is
# emptied first. KIND is dpkg-buildpackage's: binary, or full for the source package too.
# dpkg-buildpackage wants debian/ at a root of its own.
set -eu
umask 022
cd "$(dirname "$0")/.."
built=${1:-build/deb}
source=$built/virt-warden
rm -rf "$built"
mkdir -p "$source"
cp -a virtwarden wrapper hooks policy docs packaging Makefile setup.cfg ruff.toml "$source"
cp -a tests demo bench ./*.md LICENSE "$source"
cp -aL packaging/debian "$source/debian"
rm -r "$source/packaging/debian"
ln -s ../debian "$source/packaging/debian"
find "$source" -name __pycache__ -prune -exec rm -r {} +
# The same bytes, whoever builds it: with another umask, language or time zone, from files of any age.
chmod -R u=rwX,go=rX "$source"
find "$source" -exec touch --no-dereference \
    --date="$(dpkg-parsechangelog -l "$source/debian/changelog" -S Date)" {} +
export LC_ALL=C.UTF-8 TZ=UTC
cd "$source"
# needs.sh has installed what is needed; build-essential would bring a compiler, which nothing here wants.
dpkg-buildpackage --no-check-builddeps --unsigned-source --unsigned-changes --build="${2:-binary}"
cd ..
rm -r virt-warden
ls ./*.deb
