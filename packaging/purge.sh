# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Purges what a removal leaves: the VMs' users, if they own nothing any more, and virt-warden's state.
# Says what it keeps, and why. The package's postrm contains it, so it may use only essential packages
# (Debian Policy 7.2).
#
# The ledger of uids stays: a file that a VM left behind must not belong to a later VM. So does what is
# remembered of the images that VMs could write: a later installation must not believe their headers. With
# VIRT_WARDEN_FORGET_UIDS=1 in the environment both go too.
state=/var/lib/virt-warden
copy=/etc/virt-warden/uids
search_seconds=60
kept=0

left() {
    # A VM's user may have named the file: a terminal must not obey what is in the name.
    printf 'virt-warden: left: %s\n' "$*" | LC_ALL=C tr -c '[:print:]\n' '?'
    kept=$((kept + 1))
}

# The name and uid of every user that was made for a VM. A person may write any comment.
users() {
    getent passwd |
        sed -n 's/^\([^:]*\):[^:]*:\([0-9]*\):[0-9]*:virt-warden domain [^:]*:\/nonexistent:.*/\1 \2/p'
}

# A line `UID FILE` for each file of the VMs' users and groups, on all local file systems.
search() {
    lowest=$(users | awk 'NR == 1 || $2 < n { n = $2 } END { print n - 1 }')
    highest=$(users | awk '$2 > n { n = $2 } END { print n + 1 }')
    df --local --output=target 2>/dev/null | sed 1d | sort -u | tr '\n' '\0' |
        timeout -k 5 $search_seconds xargs -0 -I{} find {} -xdev \
            \( -uid "+$lowest" -uid "-$highest" -printf '%U %p\n' \) -o \
            \( -gid "+$lowest" -gid "-$highest" -printf '%G %p\n' \) 2>/dev/null
}

purge_users() {
    [ -n "$(users)" ] || return 0
    scratch=$(mktemp -d)
    searched=yes
    # 123: find was not let in somewhere, or a file went meanwhile (xargs(1), "EXIT STATUS").
    search >"$scratch/owned" || [ $? -eq 123 ] || searched=no
    users | while read -r name uid; do
        file=$(sed -n "s/^$uid //p" "$scratch/owned" | head -n 1)
        if [ -n "$(find /proc -maxdepth 1 -user "$uid" 2>/dev/null | head -n 1)" ]; then
            echo "user $name, whose VM still runs"
        elif [ -n "$file" ]; then
            printf '%s\n' "user $name, who owns $file (give it away, then: userdel $name)"
        elif [ $searched = no ]; then
            echo "user $name: not all files could be searched in $search_seconds s" \
                "(find / -uid $uid; then: userdel $name)"
        else
            userdel "$name" >/dev/null 2>&1 || echo "user $name: userdel failed"
            ! getent group "$name" >/dev/null || groupdel "$name" || echo "group $name"
        fi
    done >"$scratch/left"
    while read -r reason; do left "$reason"; done <"$scratch/left"
    rm -r "$scratch"
}

purge_state() {
    for journal in "$state"/domains/*/run.journal; do
        [ ! -e "$journal" ] || left "$journal: its VM still runs, or its changes could not be undone"
    done
    if [ -e "$state/hook.json" ]; then
        left "a hook in /etc/libvirt/hooks, until the VMs that ran at the removal have stopped" \
            "and what was saved of them is restored; the rest goes with it"
        # The hook that stays purges once more when it goes, without this environment.
        [ ! -d "$state/farewell" ] ||
            printf %s "${VIRT_WARDEN_FORGET_UIDS:-}" >"$state/farewell/purge-wanted"
    fi
    if [ $kept -gt 0 ]; then
        left "$state: what must be undone, and the uids that no other VM may get"
        return
    fi
    forget=${VIRT_WARDEN_FORGET_UIDS:-$(cat "$state/farewell/purge-wanted" 2>/dev/null || :)}
    rm -f "$state/review-due"
    rm -rf "$state/domains" "$state/shared" "${state:?}/boot" "$state/console-ca" "$state/farewell" /run/virt-warden
    [ -z "$forget" ] || rm -rf "$state/uids" "$copy" "$state/written"
    [ -z "$forget" ] || rmdir "${copy%/*}" 2>/dev/null || :
    [ ! -e "$state/uids" ] ||
        left "$state/uids: the uids that no other VM may get (to delete it: rm $state/uids $copy)"
    [ ! -e "$state/written" ] ||
        left "$state/written: the images that VMs could write (to delete it: rm -r $state/written)"
    # What an admin set up with virt-warden for the host itself works without it.
    others=$(find "$state" -mindepth 1 -maxdepth 1 ! -name uids ! -name written -printf ' %f' 2>/dev/null || :)
    [ -z "$others" ] || left "$state:$others"
    rmdir "$state" 2>/dev/null || :
}

purge() {
    purge_users
    purge_state
    # Installation wrote it, so it is no file of the admin's, whatever they changed in it.
    rm -f /etc/virt-warden/policy.d/00-found-at-installation.toml
    rmdir /etc/virt-warden/policy.d /etc/virt-warden 2>/dev/null || :
    mine=$(find /etc/virt-warden -type f ! -path "$copy" 2>/dev/null | head -n 1)
    [ -z "$mine" ] || left "/etc/virt-warden, which has files of yours, such as $mine"
}
