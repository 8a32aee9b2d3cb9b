#!/bin/sh
# Build the Debian package into build/deb. dpkg-buildpackage wants debian/ at a root of its own.
set -eu
umask 022
cd "$(dirname "$0")/.."
source=build/deb/virt-warden
rm -rf build/deb
mkdir -p "$source"
cp -a virtwarden wrapper hooks policy packaging Makefile "$source"
cp -a packaging/debian "$source/debian"
find "$source" -name __pycache__ -prune -exec rm -r {} +
cd "$source"
dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary
cd ..
rm -r virt-warden
ls ./*.deb
