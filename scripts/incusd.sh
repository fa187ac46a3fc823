# Finds or starts this machine's Incus daemon, and stops it again only if we started it. Source it after lib.sh. With
# systemd the package's units do this; the manual way is for machines without it.
# shellcheck shell=bash

INCUS_HOME=/var/lib/incus
INCUS_SOCKET=${INCUS_SOCKET:-$INCUS_HOME/unix.socket}
[ -S "$INCUS_SOCKET" ] || [ ! -S /run/incus/unix.socket ] || INCUS_SOCKET=/run/incus/unix.socket
# The command line client keeps its settings in our own folder, not in the user's.
INCUS_CONF=${XDG_CACHE_HOME:-$HOME/.cache}/innkeeper/incus-client
export INCUS_SOCKET INCUS_CONF
incus_state=$STATE/incus

# Adds the user to the group that may access the daemon, and continues inside that group: the current login session does
# not have it yet.
enter_group() {
    mkdir -p "$INCUS_CONF"
    # Without this file the client prints a greeting into our output.
    [ -e "$INCUS_CONF/config.yml" ] || echo '{}' >"$INCUS_CONF/config.yml"
    if ! command -v incus >/dev/null || [ "$(id -u)" = 0 ] || id -nG | grep -qw incus-admin; then return; fi
    if ! id -nG "$ME" | grep -qw incus-admin; then
        say "Adding $ME to the group incus-admin, which has access to Incus"
        getent group incus-admin >/dev/null || as_root groupadd --system incus-admin
        as_root usermod -aG incus-admin "$ME"
    fi
    command -v sg >/dev/null || die "log in again for the group incus-admin to take effect, then run this again"
    exec sg incus-admin -c "$(printf '%q ' "$@")"
}

# The daemon's processes. Excludes its helpers (forkfile and the like outlive it for a while), zombies, and daemons in a
# container or another pid namespace.
daemon_pids() {
    local pid
    for pid in $(pgrep -x incusd); do
        awk '$1 == "State:" && $2 == "Z" || $1 == "NSpid:" && NF > 2 { exit 1 }' "/proc/$pid/status" 2>/dev/null ||
            continue
        # A daemon's arguments are options, if any; a helper's first argument is a word.
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) =~ ^[^\ ]+\ ([a-z].*)$ ]] || echo "$pid"
    done
}

# Only asks if there is a socket: with systemd, asking would start the daemon. Under load it may take a while, so it is
# waited for as long as its process exists.
daemon_answers() {
    local tries
    [ -S "$INCUS_SOCKET" ] || return 1
    for tries in {1..6}; do
        timeout 20 incus query / >/dev/null 2>&1 && return
        [ -n "$(daemon_pids)" ] || return 1
        [ "$tries" != 1 ] || say "Waiting for Incus to respond"
        sleep 1
    done
    return 1
}

daemon_up() {
    daemon_answers && return
    if has_systemd; then
        say "Starting Incus"
        as_root systemctl start incus.socket incus.service
    else
        # It may be starting or shutting down: then it will either answer or be gone soon.
        for _ in {1..120}; do
            [ -n "$(daemon_pids)" ] || break
            timeout 20 incus query / >/dev/null 2>&1 && return
            sleep 1
        done
        [ -z "$(daemon_pids)" ] || die "an incusd (process $(daemon_pids | head -n 1)) neither responds nor exits"
        start_by_hand
    fi
    daemon_answers || die "Incus does not answer on $INCUS_SOCKET; its log is /var/log/incus/incus.log"
}

# The process of the daemon that we started, if it is running.
our_daemon() { noted_pid "$incus_state/incusd.pid"; }

start_by_hand() {
    local incusd first=''
    incusd=$(incusd_path)
    [ -n "$incusd" ] || die "Incus is not installed: run scripts/install.sh"
    say "Starting Incus"
    as_root test -e "$INCUS_HOME/database" || first=1
    as_root bash -s "$incusd" "$ROOT/scripts/lib.sh" "$incus_state" <<'ROOT_PART'
        set -euo pipefail
        incusd=$1 state=$3
        source "$2"
        close_locks
        install -d -m 0755 "$STATE" "$state"
        install -d -m 1777 "$state/users"
        getent group incus-admin >/dev/null || groupadd --system incus-admin
        install -d -m 0755 -g incus-admin /var/log/incus
        grep -q '^root:' /etc/subuid || usermod --add-subuids 1000000-1000999999 root
        grep -q '^root:' /etc/subgid || usermod --add-subgids 1000000-1000999999 root
        ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
        # It shows guests their own values in /proc. If killed, it leaves its mount behind, which hangs from then on.
        if ! test -e /var/lib/lxcfs/proc/meminfo; then
            ! grep -q ' /var/lib/lxcfs ' /proc/mounts || umount --lazy /var/lib/lxcfs
            mkdir -p /var/lib/lxcfs
            setsid lxcfs /var/lib/lxcfs </dev/null >>/var/log/incus/lxcfs.log 2>&1 &
            note_pid "$state/lxcfs.pid" $!
            for _ in {1..50}; do
                ! test -e /var/lib/lxcfs/proc/meminfo || break
                sleep 0.1
            done
            test -e /var/lib/lxcfs/proc/meminfo || { tail -n 20 /var/log/incus/lxcfs.log >&2; exit 1; }
        fi
        setsid "$incusd" --group incus-admin --logfile /var/log/incus/incus.log \
            </dev/null >>/var/log/incus/daemon.log 2>&1 &
        note_pid "$state/incusd.pid" $!
        "$incusd" waitready --timeout 90 || { tail -n 20 /var/log/incus/daemon.log >&2; exit 1; }
ROOT_PART
    [ -S "$INCUS_SOCKET" ] || INCUS_SOCKET=/run/incus/unix.socket
    # A machine without a service manager usually has no internet access. A new daemon of ours need not look for public
    # images there, which only costs timeouts. It is a setting of the whole server, so it is not changed on any other.
    [ -z "$first" ] || incus config set core.proxy_https=http://127.0.0.1:9 core.proxy_http=http://127.0.0.1:9
}

# Who uses the daemon, recorded by process: the service of `make run`, a run of `make test`.
note_user() {
    [ -n "${INNKEEPER_HOLDER:-}" ] && [ -d "$incus_state/users" ] || return 0
    forget_user "$1"
    note_pid "$incus_state/users/$1" "$INNKEEPER_HOLDER"
}
forget_user() { rm -f "$incus_state/users/$1" 2>/dev/null || as_root rm -f "$incus_state/users/$1"; }

# Stops the daemon if we started it, no other run of ours uses it and no guests are running in it.
daemon_down() {
    local pid file user
    pid=$(our_daemon) || return 0
    for file in "$incus_state"/users/*; do
        user=$(noted_pid "$file") || continue
        say "Incus keeps running: process $user still uses it ($(basename "$file"))"
        return 0
    done
    if [ -n "$(incus list --all-projects -f csv -c n status=running)" ]; then
        say "Incus keeps running: it has running guests that are not ours"
        return 0
    fi
    [ "$(incus query /1.0 | jq -r .environment.server_pid)" = "$pid" ] || return 0
    say "Stopping Incus, which we started"
    as_root "$(incusd_path)" shutdown --timeout 60 >&2 || true
    wait_gone "$pid" 60 || die "Incus (pid $pid) did not stop"
    as_root rm -f "$incus_state/incusd.pid"
    if pid=$(noted_pid "$incus_state/lxcfs.pid"); then
        as_root kill "$pid"
        wait_gone "$pid" 10 || warn "lxcfs (pid $pid) did not stop"
        as_root rm -f "$incus_state/lxcfs.pid"
    fi
}
