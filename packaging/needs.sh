#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what this Debian lacks: for virt-warden, its package and its demo; with the word "tests", for
# its tests and its bench too; with "clients" or "clients-ci", for those and for the target of make of
# that name; with "release" only what makes another Debian release to run them on; with "piuparts" only
# what packaging/piuparts.sh wants beside what the package does.
# Of what these bring along (a KDC, a Tang server), nothing is started.
set -eu
packages="
 acl
 cryptsetup-bin
 debhelper
 dh-python
 dpkg-dev
 ebtables
 iproute2
 libvirt-clients
 libvirt-daemon-system
 nftables
 passwd
 procps
 python3-apt
 python3-augeas
 python3-cracklib
 python3-cryptography
 python3-jsonschema
 python3-libnbd
 python3-libvirt
 python3-lxml
 python3-nftables
 python3-pampy
 python3-pylibacl
 python3-seccomp
 python3-sh
 python3-systemd
 qemu-system-x86
 qemu-utils
 util-linux
 virtinst
"
for_tests="
 clevis
 clevis-luks
 e2fsprogs
 gnutls-bin
 ipxe
 krb5-admin-server
 krb5-kdc
 krb5-user
 libnss3-tools
 libsasl2-modules
 libsasl2-modules-gssapi-mit
 libvirt-daemon-config-nwfilter
 lintian
 mmdebstrap
 openssh-server
 openssl
 ovmf
 python3-gssapi
 python3-hypothesis
 python3-pytest
 python3-scapy
 python3-venv
 python3-yaml
 sasl2-bin
 shellcheck
 socat
 strace
 swtpm
 swtpm-tools
 tang
 tigervnc-viewer
 virt-viewer
 xvfb
"
# Before Debian 13, SPICE is a part of QEMU itself.
for_tests_from_13="
 qemu-system-modules-spice
"
for_clients_in_ci="
 virtnbdbackup
 xorriso
"
for_clients="
 ansible
 vagrant
 vagrant-libvirt
"
# Before Debian 13, it is a part of libvirt's daemon. Vagrant asks it for the host's interfaces.
for_clients_from_13="
 libvirt-daemon-driver-interface
"
for_a_release="
 git
 mmdebstrap
"
nothing_starts=""
case "${1-}" in
tests | clients | clients-ci)
    nothing_starts=yes
    packages="$packages $for_tests"
    [ "$1" = tests ] || packages="$packages $for_clients_in_ci"
    [ "$1" != clients ] || packages="$packages $for_clients"
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release && echo "${VERSION_ID:-99}")" -ge 13 ]; then
        packages="$packages $for_tests_from_13"
        [ "$1" != clients ] || packages="$packages $for_clients_from_13"
    fi
    ;;
release) packages=$for_a_release ;;
piuparts) packages="mmdebstrap piuparts" ;;
esac
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -z "$missing" ] && exit 0
echo "installing:$missing"
apt-get update -qq
if [ "$nothing_starts" ] && [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
