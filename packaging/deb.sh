#!/bin/sh
# Build the Debian package into build/deb, or another directory, which is emptied first.
# dpkg-buildpackage wants debian/ at a root of its own.
set -eu
umask 022
cd "$(dirname "$0")/.."
built=${1:-build/deb}
source=$built/virt-warden
rm -rf "$built"
mkdir -p "$source"
cp -a virtwarden wrapper hooks policy docs packaging Makefile "$source"
for page in README.md CHANGELOG.md; do
    [ ! -e $page ] || cp -a $page "$source"
done
cp -a packaging/debian "$source/debian"
find "$source" -name __pycache__ -prune -exec rm -r {} +
cd "$source"
# Every build asks for build-essential, which has compilers: nothing is compiled here, and what this
# build needs, needs.sh has installed.
dpkg-buildpackage --no-check-builddeps --unsigned-source --unsigned-changes --build=binary
cd ..
rm -r virt-warden
ls ./*.deb
