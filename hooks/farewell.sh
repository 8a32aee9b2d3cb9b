#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# virt-warden was removed while VMs ran under it. When one of them stops, this gives back what was
# changed for it; after the last of them, it goes by itself. It keeps no VM from starting.
farewell=/var/lib/virt-warden/farewell
case $2 in
prepare | restore | release)
    /usr/bin/python3 -I $farewell/farewell.py "$@" ||
        logger -t virt-warden -p authpriv.err "event=failed domain='$1' op=$2 by=$farewell"
    ;;
esac
exit 0
