#!/usr/bin/env bash
# A single fresh machine, seen from inside: the first process of its namespaces. Started by scripts/fresh.sh.
#
#   scripts/fresh-machine.sh ROOT root|user CODENAME ARCHIVES HOME LOG
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
root=$1 who=$2 codename=$3 archives=$4 lent=$5 log=$6
# From here to the end, whatever happens to the root file system.
exec {log_fd}>>"$log"
log=/proc/self/fd/$log_fd

# overlay FROM TO: makes the contents of FROM writable at TO without changing FROM.
overlay() {
    local layers=$root/opt/layers/${2##*/}
    mkdir -p "$2" "$layers/upper" "$layers/work"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$layers/upper,workdir=$layers/work" "$2"
    chown "$owner" "$2"
}

# Mount the file systems of a running machine and what it is lent, then make this the root.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir -m 1777 "$root/run/lock"
mount --bind "$archives" "$root/var/cache/apt/archives"
user=root home=/root owner=0:0
if [ "$who" = user ]; then
    user=newcomer home=/home/newcomer
    chroot "$root" useradd -m -s /bin/bash "$user"
    echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/newcomer"
    owner=$(chroot "$root" id -u "$user"):$(chroot "$root" id -g "$user")
fi
for folder in .cargo .rustup; do overlay "$lent/$folder" "$root$home/$folder"; done
mv "$root/opt/project" "$root$home/innkeeper"
hostname fresh
mkdir -p "$root/opt/outside"
cd "$root"
pivot_root . opt/outside
cd /
umount -l /opt/outside
chown -R "$owner" "$home/innkeeper"

settings=(HOME="$home" USER="$user" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
    INNKEEPER_DEMO_PROJECT=innkeeper-fresh INNKEEPER_TEST_INCUS_PROJECT=innkeeper-fresh-test YES=1)
[ ! -x /opt/innkeeper ] || settings+=(INNKEEPER_BIN=/opt/innkeeper)
mapfile -t -O ${#settings[@]} settings </opt/environment
# as_newcomer MINUTES COMMAND...: runs a command in the project's folder.
as_newcomer() {
    local minutes=$1
    shift
    (cd "$home/innkeeper" &&
        exec runuser -u "$user" -- env -i "${settings[@]}" timeout --kill-after=10 "${minutes}m" "$@")
}

# Packages of one source must match: the rest of qemu has to come from there as well.
qemu_of_backports() {
    sed -n '1,/^$/p' /etc/apt/sources.list.d/debian.sources | sed "s/^Suites:.*/Suites: $codename-backports/" \
        >/etc/apt/sources.list.d/backports.sources
    apt-get update -qq && apt-get install -qq -y --no-install-recommends -t "$codename-backports" qemu-utils
}

# Starts the service in the background, as in a second terminal, and waits until it responds.
serve() {
    local waited
    as_newcomer 90 make run &
    served=$!
    for ((waited = 0; waited < 5400; waited++)); do
        proc_start "$served" >/dev/null || { echo 'make run has exited'; return 1; }
        ! curl -fsS -m 5 -o /dev/null http://127.0.0.1:5000/api/openapi.json 2>/dev/null || return 0
        sleep 1
    done
    echo 'the service does not respond'
    return 1
}

# Places an order as in the README and follows it to its end. Run by the newcomer.
newcomers_order() {
    local tariff image order operation answer=''
    # shellcheck disable=SC1091
    source data/demo.env
    api() {
        curl -sS --fail-with-body -m 30 -H "Authorization: Bearer $INNKEEPER_CUSTOMER_TOKEN" \
            "$INNKEEPER_URL/api/$1" "${@:2}"
    }
    tariff=$(api tariffs | jq 'map(select(.memory == 512))[0].id')
    image=$(api images | jq '.[0].id')
    # shellcheck disable=SC2016 # jq's variables
    order=$(jq -n --argjson tariffId "$tariff" --argjson osId "$image" '{$tariffId, $osId, name: "fresh-1"}')
    operation=$(api server/create --json "$order" | jq -r .operationId)
    for _ in {1..300}; do
        answer=$(api "operations/$operation")
        case $(jq -r .state <<<"$answer") in
        succeeded) return ;;
        failed | stuck) break ;;
        esac
        sleep 1
    done
    echo "the order did not succeed: $answer"
    return 1
}

# nothing_runs: checks that everything that was started has been stopped.
nothing_runs() {
    local left
    left=$(ps -eo pid=,stat=,args= | awk '$2 !~ /^Z/ && $1 != 1 && $3 != "ps" && $3 != "awk" && $0 !~ /fresh-machine/')
    [ -z "$left" ] || { echo "still running:" && echo "$left" && return 1; }
}

served=''
if [ "$codename:$who" = bookworm:root ]; then timed "$log" 'qemu-utils from backports' qemu_of_backports; fi
timed "$log" 'scripts/install.sh run' as_newcomer 40 scripts/install.sh run
timed "$log" 'make run' serve
timed "$log" 'the first order' as_newcomer 10 bash -euo pipefail -c "$(declare -f newcomers_order); newcomers_order"
timed "$log" 'make stop' as_newcomer 5 make stop
wait "$served" || true
timed "$log" 'nothing runs' nothing_runs
timed "$log" 'make clean-demo' as_newcomer 5 make clean-demo
timed "$log" 'nothing runs' nothing_runs
timed "$log" 'scripts/test.sh --install' as_newcomer 60 scripts/test.sh --install
timed "$log" 'nothing runs' nothing_runs
built=$home/innkeeper/target/release/innkeeper
if [ -x "$built" ]; then mv "$built" /opt/built; fi
