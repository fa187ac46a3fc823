#!/usr/bin/env bash
# Manages our part of this machine's Incus: a project, a storage pool and a bridge, all marked as ours.
#
#   scripts/incus.sh up NAME BRIDGE     starts a daemon if none runs, creates project and pool NAME and the bridge;
#                                       prints INCUS_SOCKET, _PROJECT, _POOL, _BRIDGE, _IPV4, _IPV6 as NAME=VALUE
#   scripts/incus.sh sweep NAME         deletes all guests of the project (leftovers of tests)
#   scripts/incus.sh stop NAME          stops the project's guests, then the daemon if we started it and nothing uses it
#   scripts/incus.sh down NAME BRIDGE   removes what `up` created, with its contents
#   scripts/incus.sh count NAME         runs as long as its parent: recounts disks when the kernel has stopped counting
#
# Nothing without our mark is ever changed; one sysctl is raised (fs.inotify.max_user_instances). Settings:
# INNKEEPER_NAT=1 gives guests access to this machine's network (by default they only reach the machine and each other);
# INNKEEPER_BRIDGE_NETWORKS lists more networks than the bridge's own whose guests reach each other; INNKEEPER_POOL_GIB
# sets the size of the pool (a sparse file).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"

usage="usage: $0 up|down NAME BRIDGE, or $0 sweep|stop|count NAME"
action=${1:?$usage}
name=${2:?$usage}
bridge=${3:-}
[[ $name =~ ^[a-z][a-z0-9-]{1,40}$ && $bridge =~ ^[a-z0-9]{0,15}$ ]] || die "$usage"
case $action in up | down) [ -n "$bridge" ] || die "$usage" ;; esac
mark=user.innkeeper

# ours KIND NAME: whether it exists and is ours. Dies if it exists and isn't.
ours() {
    local value
    # shellcheck disable=SC2086 # a kind may be two words
    value=$(incus $1 get "$2" "$mark" 2>/dev/null) || return 1
    [ "$value" = "$name" ] || die "Incus already has a $1 named $2 that is not ours; nothing was changed"
}

up() {
    lock incus wait
    daemon_up
    note_user "$name"
    ours storage "$name" || make_pool
    ours network "$bridge" || make_bridge
    keep_in
    mend_hosts
    count_disks
    raise_inotify
    ours project "$name" || make_project
    make_profile
    resume
    printf 'INCUS_%s=%s\n' SOCKET "$INCUS_SOCKET" PROJECT "$name" POOL "$name" BRIDGE "$bridge" \
        IPV4 "$(incus network get "$bridge" ipv4.address)" IPV6 "$(incus network get "$bridge" ipv6.address)"
}

make_project() {
    say "Creating the Incus project $name"
    # Restricted: even if something goes wrong, it can't have privileged guests or access to the host's disks.
    incus project create "$name" -c "$mark=$name" \
        -c features.images=true -c features.profiles=true \
        -c features.storage.volumes=true -c features.storage.buckets=true \
        -c restricted=true -c restricted.networks.access="$bridge" \
        -c restricted.snapshots=allow -c restricted.backups=allow -c restricted.containers.nesting=allow >&2
}

# The driver names its devices explicitly; the profile is for guests that are launched by hand.
make_profile() {
    incus --project "$name" profile device get default root pool >/dev/null 2>&1 ||
        incus --project "$name" profile device add default root disk path=/ pool="$name" >/dev/null
    incus --project "$name" profile device get default eth0 network >/dev/null 2>&1 ||
        incus --project "$name" profile device add default eth0 nic network="$bridge" name=eth0 >/dev/null
}

make_pool() {
    local size=${INNKEEPER_POOL_GIB:-}
    as_root modprobe btrfs 2>/dev/null || true
    if ! command -v mkfs.btrfs >/dev/null && [ ! -x /usr/sbin/mkfs.btrfs ] || ! grep -qw btrfs /proc/filesystems; then
        warn "btrfs is not available: guests' disks are plain folders, slow to copy and without an enforced size"
        incus storage create "$name" dir "$mark=$name" >&2
        return
    fi
    # Sparse, so it only takes what is used; but never promise more than the disk has.
    [ -n "$size" ] ||
        size=$(df -BG --output=avail "$INCUS_HOME" | awk 'NR == 2 { s = int($1 * 0.7); print (s > 40 ? 40 : s) }')
    [ "$size" -ge 4 ] || die "not enough space for guests below $INCUS_HOME ($size GiB)"
    say "Creating the Incus storage pool $name (btrfs in a sparse file, up to $size GiB)"
    incus storage create "$name" btrfs size="${size}GiB" "$mark=$name" >&2
}

# count_disks: disk sizes are only enforced while btrfs counts usage. Recent kernels stop counting when a tree of some
# height is dropped, as deleting a guest does. The height is a setting of the mounted file system, so it is set on every
# start. Only our own pool is touched, and only if it is btrfs.
count_disks() {
    local folder
    folder=$(pool_sysfs) || return 0
    # Incus enables quotas with the first guest; before that there is nothing to set.
    [ -e "$folder/qgroups/enabled" ] || at_pool btrfs quota enable "$INCUS_HOME/storage-pools/$name" || return 0
    if [ "$(cat "$folder/qgroups/drop_subtree_threshold" 2>/dev/null || echo 8)" -lt 8 ]; then
        echo 8 | as_root tee "$folder/qgroups/drop_subtree_threshold" >/dev/null || return 0
    fi
    recount "$folder"
}

# pool_sysfs: the folder in sysfs of our pool's file system; fails if it is not btrfs in a file.
pool_sysfs() {
    local image loop folder
    [ "$(incus storage show "$name" | awk '$1 == "driver:" { print $2 }')" = btrfs ] || return 1
    image=$(incus storage get "$name" source)
    loop=$(grep -lxF -- "$image" /sys/block/loop*/loop/backing_file 2>/dev/null | head -n 1)
    loop=${loop#/sys/block/}
    [ -n "$loop" ] || return 1
    folder=$(printf '%s\n' /sys/fs/btrfs/*/devices/"${loop%%/*}" | head -n 1)
    folder=${folder%/devices/*}
    [ -d "$folder/devices" ] || return 1
    echo "$folder"
}

recount() {
    [ "$(cat "$1/qgroups/inconsistent" 2>/dev/null || echo 0)" != 0 ] || return 0
    say "Recounting the usage of guests' disks"
    at_pool btrfs quota rescan -w "$INCUS_HOME/storage-pools/$name"
}

# count: since Linux 6.11 counting also stops if the count of a deleted guest is found to be wrong, which happens a few
# times an hour where many are deleted (kdave/btrfs-progs#922).
count() {
    local folder pause
    folder=$(pool_sysfs) || return 0
    # A wait that leaves no process behind when this script is ended.
    exec {pause}<> <(:)
    while kill -0 "$PPID" 2>/dev/null && [ -d "$folder" ]; do
        recount "$folder" || true
        read -rt 1 -u "$pause" || true
    done
}

# at_pool COMMAND...: runs it as root where the pool is mounted; the daemon may have its own mount namespace.
at_pool() {
    local pid
    if grep -qF " $INCUS_HOME/storage-pools/$name " /proc/self/mountinfo; then
        as_root "$@" >/dev/null
    else
        pid=$(incus query /1.0 | jq -r .environment.server_pid)
        as_root nsenter -t "$pid" -m -- "$@" >/dev/null
    fi || warn "guests' disk sizes may not be enforced: \`$*\` failed"
}

make_bridge() {
    local ipv4 ipv6=none nat=false
    [ "${INNKEEPER_NAT:-}" != 1 ] || nat=true
    ipv4=$(free_subnet)
    if grep -q . /proc/net/if_inet6 2>/dev/null; then
        ipv6=$(printf 'fd%s:%s:%s::1/64' "$(hex 1)" "$(hex 2)" "$(hex 2)")
    fi
    say "Creating the Incus bridge $bridge ($ipv4, $ipv6)"
    # Without NAT there is no routing either, so this machine's own forwarding is not changed. We assign the guests'
    # addresses; DHCP is on because Incus requires it for fixed addresses. DNS is not forwarded.
    incus network create "$bridge" --type=bridge "$mark=$name" \
        ipv4.address="$ipv4" ipv4.nat=$nat ipv4.routing=$nat \
        ipv6.address="$ipv6" ipv6.nat=$nat ipv6.routing=$nat ipv6.dhcp.stateful=true \
        dns.mode=none raw.dnsmasq=port=0 >&2
}

# keep_in: without NAT, guests reach each other and this machine, and nothing else. By default Incus rejects whatever is
# forwarded on a bridge without routing, and if netfilter sees bridged packets (br_netfilter), that includes traffic
# between guests. So the bridge gets rules that allow its own networks instead. Incus maintains them and applies them
# before any guest starts. Done on every start, since an older run may have created the bridge.
keep_in() {
    local own
    [ "$(incus network get "$bridge" ipv4.nat)" = false ] || return 0
    own=$(network_of "$(incus network get "$bridge" ipv4.address)")
    if [ "$(incus network get "$bridge" ipv6.address)" != none ]; then
        own+=,$(network_of "$(incus network get "$bridge" ipv6.address)"),fe80::/10
    fi
    own+=${INNKEEPER_BRIDGE_NETWORKS:+,$INNKEEPER_BRIDGE_NETWORKS}
    ours 'network acl' "$bridge" || incus network acl create "$bridge" "$mark=$name" >&2
    # ff02::/16: guests need it for IPv6 neighbour discovery.
    jq -n --arg mark "$mark" --arg name "$name" --arg own "$own" '{
        description: "Guests reach each other and this machine, but nothing beyond", config: {($mark): $name},
        egress: [{action: "allow", state: "enabled", destination: ($own + ",ff02::/16")}],
        ingress: [{action: "allow", state: "enabled", source: $own}]}' | incus network acl edit "$bridge" >&2
    if [ "$(incus network get "$bridge" security.acls)" != "$bridge" ]; then
        incus network set "$bridge" security.acls="$bridge" ipv4.firewall=false ipv6.firewall=false >&2
    fi
}

# mend_hosts: if a network is changed while its guests are running, Incus 6.0 records an address "none" for guests with
# addresses of one family only, fails on that record, and starts no further guests of that kind.
mend_hosts() {
    local notes
    mapfile -t notes < <(grep -lsF '[none]' "$INCUS_HOME/networks/$bridge/dnsmasq.hosts"/* || true)
    [ ${#notes[@]} = 0 ] || as_root sed -i 's/,\[none\]//' "${notes[@]}"
}

# network_of ADDRESS/PREFIX: its network; `make_bridge` only creates /24 and /64.
network_of() {
    case $1 in
    *:*/64) echo "${1%::*}::/64" ;;
    *.*/24) echo "${1%.*}.0/24" ;;
    *) die "the bridge $bridge has the address $1, which this script did not set" ;;
    esac
}

# raise_inotify: every guest with systemd takes 8 to 10 of these, and all of them count against this machine's root:
# with the default of 128 the seventeenth guest dies at boot. It is never reset, since other programs may depend on it
# by then. A reboot resets it, so it is checked every time.
INOTIFY_INSTANCES=1048576
raise_inotify() {
    local file=/proc/sys/fs/inotify/max_user_instances
    [ "$(cat "$file")" -lt "$INOTIFY_INSTANCES" ] || return 0
    say "Setting fs.inotify.max_user_instances to $INOTIFY_INSTANCES until the next boot, so that guests can boot"
    echo "$INOTIFY_INSTANCES" | as_root tee "$file" >/dev/null ||
        warn "it could not be set: from the seventeenth guest on, guests may die at boot"
}

hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# free_subnet: a gateway address in a /24 of 10.0.0.0/8 that no route and no address of this machine overlaps.
free_subnet() {
    local taken tries x y
    taken=$({ ip -4 route show table all && ip -4 addr; } |
        grep -oE '\b[0-9]+(\.[0-9]+){3}(/[0-9]+)?' | sort -u | grep -v '^0\.0\.0\.0')
    for tries in {1..200}; do
        x=$((60 + RANDOM % 180)) y=$((RANDOM % 256))
        if awk -F'[./]' -v x="$x" -v y="$y" '
            # Two networks overlap if they agree in the bits of the shorter prefix.
            { bits = $5 == "" ? 32 : $5; if (bits > 24) bits = 24; step = 2 ^ (32 - bits)
              theirs = (($1 * 256 + $2) * 256 + $3) * 256; mine = ((10 * 256 + x) * 256 + y) * 256
              if (bits > 0 && int(theirs / step) == int(mine / step)) { hit = 1; exit } }
            END { exit hit }' <<<"$taken"; then
            echo "10.$x.$y.1/24"
            return
        fi
    done
    die "no free subnet found in 10.0.0.0/8 after $tries tries"
}

guests() { incus --project "$name" list -f csv -c n "$@" 2>/dev/null; }

sweep() {
    local guest
    daemon_answers && ours project "$name" || return 0
    guests | while read -r guest; do
        say "Deleting the leftover guest $guest"
        incus --project "$name" delete --force "$guest" </dev/null >&2 || warn "$guest could not be deleted"
    done
}

# resume: starts what `stop` stopped. (It does not check our mark: that would claim guests that were created manually.)
resume=user.resume-with-make-run
resume() {
    guests "$resume=true" | while read -r guest; do
        say "Starting the guest $guest again"
        incus --project "$name" start "$guest" </dev/null >&2 || warn "$guest could not be started"
        incus --project "$name" config unset "$guest" "$resume" </dev/null >&2 || true
    done
}

stop() {
    local running guest
    lock incus wait
    daemon_answers || return 0
    if ours project "$name"; then
        mapfile -t running < <(guests status=running)
        if [ ${#running[@]} -gt 0 ]; then
            say "Stopping ${#running[@]} guests"
            for guest in "${running[@]}"; do
                incus --project "$name" config set "$guest" "$resume=true" </dev/null >&2 || true
            done
            incus --project "$name" stop --timeout 30 "${running[@]}" >&2 ||
                incus --project "$name" stop --force "${running[@]}" >&2 || warn "some guests did not stop"
        fi
    fi
    forget_user "$name"
    daemon_down
}

down() {
    local other image profile
    lock incus wait
    daemon_up
    if ours project "$name"; then
        # The project is ours, but guests that were created by hand are not.
        other=$(incus query "/1.0/instances?project=$name&recursion=1" | jq -r \
            '.[] | select(.config | keys | any(startswith("user.innkeeper")) | not) | .name' | tr '\n' ' ')
        [ -z "$other" ] || die "the project $name has guests that Innkeeper did not create: $other- delete them first"
        sweep
        incus --project "$name" image list -f csv -c f | while read -r image; do
            incus --project "$name" image delete "$image" </dev/null >&2
        done
        incus --project "$name" profile list -f csv | cut -d, -f1 | while read -r profile; do
            if [ "$profile" = default ]; then
                incus --project "$name" profile device remove default root eth0 </dev/null >/dev/null 2>&1 || true
            else
                incus --project "$name" profile delete "$profile" </dev/null >&2
            fi
        done
        incus project delete "$name" >&2
    fi
    if ours network "$bridge"; then incus network delete "$bridge" >&2; fi
    if ours 'network acl' "$bridge"; then incus network acl delete "$bridge" >&2; fi
    if ours storage "$name"; then incus storage delete "$name" >&2; fi
    forget_user "$name"
    daemon_down
}

case $action in
count) count ;;
up | sweep | stop | down)
    enter_group "$0" "$@"
    "$action"
    ;;
*) die "$usage" ;;
esac
