# shellcheck shell=sh
# What is left of virt-warden after its removal, purged: the VMs' users, if they own nothing any
# more, and all that was remembered of them. Says what it leaves, and why. It is a part of the
# package's postrm, which may count on nothing but essential packages (Debian Policy 7.2).
state=/var/lib/virt-warden
search_seconds=60
kept=0

left() {
    # A VM's user may have named the file: a terminal must not obey what is in the name.
    printf 'virt-warden: left: %s\n' "$*" | LC_ALL=C tr -c '[:print:]\n' '?'
    kept=$((kept + 1))
}

# The name and uid of every user that was made for a VM.
users() {
    getent passwd | sed -n 's/^\([^:]*\):[^:]*:\([0-9]*\):[0-9]*:virt-warden domain [^:]*:.*/\1 \2/p'
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
    search >"$scratch/owned" || [ $? -ne 124 ] || searched=no
    users | while read -r name uid; do
        file=$(sed -n "s/^$uid //p" "$scratch/owned" | head -n 1)
        if [ -n "$(find /proc -maxdepth 1 -user "$uid" 2>/dev/null | head -n 1)" ]; then
            echo "user $name, whose VM still runs"
        elif [ -n "$file" ]; then
            printf '%s\n' "user $name, who owns $file (give it away, then: userdel $name)"
        elif [ $searched = no ]; then
            echo "user $name: not all files were looked at in $search_seconds s" \
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
        [ ! -e "$journal" ] || left "$journal: its VM still runs, or its undo failed"
    done
    if [ -e "$state/hook.json" ]; then
        left "a hook in /etc/libvirt/hooks, until the VMs that ran at the removal have stopped" \
            "and what was saved of them is restored; the rest goes with it"
        [ ! -d "$state/farewell" ] || touch "$state/farewell/purge-wanted"
    fi
    if [ $kept -gt 0 ]; then
        left "$state: what must be undone, and which uids must not be given to another VM"
        return
    fi
    rm -rf "$state/domains" "$state/shared" "$state/console-ca" "$state/farewell" /run/virt-warden
    rm -f "$state/uids"
    # What an admin set up by virt-warden for the host itself goes on without it.
    rmdir "$state" 2>/dev/null || [ ! -d "$state" ] ||
        left "$state:$(find "$state" -mindepth 1 -maxdepth 1 -printf ' %f')"
}

purge() {
    purge_users
    purge_state
    mine=$(find /etc/virt-warden -type f 2>/dev/null | head -n 1)
    [ -z "$mine" ] || left "/etc/virt-warden, which has files of yours, such as $mine"
}
