#!/bin/sh
# Install what virt-warden, its demo and its tests need and this Debian lacks.
set -eu
packages="
 acl
 clevis
 clevis-luks
 cryptsetup-bin
 debhelper
 dh-python
 dpkg-dev
 e2fsprogs
 ebtables
 gnutls-bin
 iproute2
 ipxe
 krb5-admin-server
 krb5-kdc
 krb5-user
 libsasl2-modules
 libsasl2-modules-gssapi-mit
 python3-gssapi
 libnss3-tools
 libvirt-clients
 libvirt-daemon-config-nwfilter
 libvirt-daemon-system
 lintian
 mmdebstrap
 nftables
 openssh-server
 ovmf
 passwd
 procps
 python3-apt
 python3-augeas
 python3-cracklib
 python3-cryptography
 python3-hypothesis
 python3-jsonschema
 python3-libvirt
 python3-lxml
 python3-pampy
 python3-pylibacl
 python3-pytest
 python3-scapy
 python3-sh
 python3-libnbd
 python3-systemd
 python3-venv
 python3-yaml
 qemu-system-x86
 qemu-utils
 sasl2-bin
 shellcheck
 swtpm
 swtpm-tools
 socat
 strace
 tang
 util-linux
 virtinst
"
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -z "$missing" ] && exit 0
echo "installing:$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
