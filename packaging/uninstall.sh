#!/bin/sh
# Take virt-warden off a host: every domain is first made again what it was.
set -eu
: "${DESTDIR:=}"
hooks=$DESTDIR/etc/libvirt/hooks
if [ -z "$DESTDIR" ] && [ -x /usr/sbin/virt-warden ]; then
    /usr/sbin/virt-warden unenrol --all || {
        echo "not uninstalled: mend the above first, or a domain would not start any more" >&2
        exit 1
    }
    running=$(find /var/lib/virt-warden/domains -name run.journal 2>/dev/null | wc -l)
    [ "$running" -eq 0 ] || {
        echo "not uninstalled: $running domains still run under guard (virt-warden status);" \
            "shut them down first, so that what was done for them is undone" >&2
        exit 1
    }
fi
for hook in "$hooks/qemu" "$hooks/qemu.d/virt-warden"; do
    if [ -e "$hook" ] && grep -q virt-warden "$hook"; then rm "$hook"; fi
done
rm -rf "$DESTDIR/usr/share/virt-warden" "$DESTDIR/usr/lib/virt-warden"
rm -f "$DESTDIR/usr/sbin/virt-warden"
echo "left: /etc/virt-warden (your policy), /var/lib/virt-warden (which uids were ever used)"
