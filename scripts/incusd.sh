# The Incus daemon of this machine: found, or started; and ended again only if it was we who started it.
# Source it after lib.sh. Where systemd runs, the package's units do all this; by hand is for where it doesn't.
# shellcheck shell=bash

INCUS_HOME=/var/lib/incus
INCUS_SOCKET=${INCUS_SOCKET:-$INCUS_HOME/unix.socket}
[ -S "$INCUS_SOCKET" ] || [ ! -S /run/incus/unix.socket ] || INCUS_SOCKET=/run/incus/unix.socket
# The command line client keeps its settings in a folder of ours, not in the user's.
INCUS_CONF=${XDG_CACHE_HOME:-$HOME/.cache}/innkeeper/incus-client
export INCUS_SOCKET INCUS_CONF
incus_state=$STATE/incus

# Puts the user in the group that may talk to the daemon, and goes on inside that group: the session they are
# logged in with doesn't have it yet.
enter_group() {
    mkdir -p "$INCUS_CONF"
    # Without a file the client greets a newcomer, in the midst of our output.
    [ -e "$INCUS_CONF/config.yml" ] || echo '{}' >"$INCUS_CONF/config.yml"
    if ! command -v incus >/dev/null || [ "$(id -u)" = 0 ] || id -nG | grep -qw incus-admin; then return; fi
    if ! id -nG "$ME" | grep -qw incus-admin; then
        say "Adding $ME to the group incus-admin, which may talk to Incus"
        getent group incus-admin >/dev/null || as_root groupadd --system incus-admin
        as_root usermod -aG incus-admin "$ME"
    fi
    command -v sg >/dev/null || die "log in again, so that the group incus-admin counts, and run this once more"
    exec sg incus-admin -c "$(printf '%q ' "$@")"
}

# The daemon's processes. Not its helpers (forkfile and the like outlive it for a while), not one that has ended and was
# not reaped yet, and not one in a container or namespace of its own, which is another's.
daemon_pids() {
    local pid
    for pid in $(pgrep -x incusd); do
        awk '$1 == "State:" && $2 == "Z" || $1 == "NSpid:" && NF > 2 { exit 1 }' "/proc/$pid/status" 2>/dev/null || continue
        # Its arguments are options as far as there are any; a helper's first one is a word.
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) =~ ^[^\ ]+\ ([a-z].*)$ ]] || echo "$pid"
    done
}

# Asks only where there is a socket: with systemd, asking would start the daemon. Under load an answer takes its time,
# and as long as the daemon's process is there it is waited for.
daemon_answers() {
    local tries
    [ -S "$INCUS_SOCKET" ] || return 1
    for tries in {1..6}; do
        timeout 20 incus query / >/dev/null 2>&1 && return
        [ -n "$(daemon_pids)" ] || return 1
        [ "$tries" != 1 ] || say "Waiting for Incus to answer"
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
        # One that somebody is starting right now, or one that is ending: the first will answer, the second be gone.
        for _ in {1..120}; do
            [ -n "$(daemon_pids)" ] || break
            timeout 20 incus query / >/dev/null 2>&1 && return
            sleep 1
        done
        [ -z "$(daemon_pids)" ] || die "an incusd runs here (process $(daemon_pids | head -n 1)) that neither answers nor ends"
        start_by_hand
    fi
    daemon_answers || die "Incus does not answer on $INCUS_SOCKET; its log is /var/log/incus/incus.log"
}

# The process of the daemon that we started, while it runs.
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
        # It gives guests their own figures in /proc. Killed, it leaves its mount behind, which then answers nobody.
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
        setsid "$incusd" --group incus-admin --logfile /var/log/incus/incus.log </dev/null >>/var/log/incus/daemon.log 2>&1 &
        note_pid "$state/incusd.pid" $!
        "$incusd" waitready --timeout 90 || { tail -n 20 /var/log/incus/daemon.log >&2; exit 1; }
ROOT_PART
    [ -S "$INCUS_SOCKET" ] || INCUS_SOCKET=/run/incus/unix.socket
    # A machine without a service manager is a closed one as a rule. A daemon that is new and ours need not look for
    # public images there: that only costs time-outs. It is a setting of the whole server, so nobody else's is touched.
    [ -z "$first" ] || incus config set core.proxy_https=http://127.0.0.1:9 core.proxy_http=http://127.0.0.1:9
}

# Who needs the daemon, by the process that holds it: the service of `make run`, a run of `make test`.
note_user() {
    [ -n "${INNKEEPER_HOLDER:-}" ] && [ -d "$incus_state/users" ] || return 0
    forget_user "$1"
    note_pid "$incus_state/users/$1" "$INNKEEPER_HOLDER"
}
forget_user() { rm -f "$incus_state/users/$1" 2>/dev/null || as_root rm -f "$incus_state/users/$1"; }

# Ends the daemon if we started it, no other run of ours needs it and no guest of anybody runs in it.
daemon_down() {
    local pid file user
    pid=$(our_daemon) || return 0
    for file in "$incus_state"/users/*; do
        user=$(noted_pid "$file") || continue
        say "Incus stays up: process $user still needs it ($(basename "$file"))"
        return 0
    done
    if [ -n "$(incus list --all-projects -f csv -c n status=running)" ]; then
        say "Incus stays up: guests run in it that are not ours to stop"
        return 0
    fi
    [ "$(incus query /1.0 | jq -r .environment.server_pid)" = "$pid" ] || return 0
    say "Stopping Incus, which we had started"
    as_root "$(incusd_path)" shutdown --timeout 60 >&2 || true
    wait_gone "$pid" 60 || die "Incus (pid $pid) did not stop"
    as_root rm -f "$incus_state/incusd.pid"
    if pid=$(noted_pid "$incus_state/lxcfs.pid"); then
        as_root kill "$pid"
        wait_gone "$pid" 10 || warn "lxcfs (pid $pid) did not stop"
        as_root rm -f "$incus_state/lxcfs.pid"
    fi
}
