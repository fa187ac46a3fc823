#!/usr/bin/env bash
# A private PostgreSQL cluster in a folder: 127.0.0.1 only, its own port, scram, no unix socket.
#
#   scripts/postgres.sh start DIR [--throwaway]   creates and starts it if needed, prints DATABASE_URL
#   scripts/postgres.sh stop DIR
#   scripts/postgres.sh remove DIR                stops and deletes it, with its contents
#   scripts/postgres.sh status DIR                prints DATABASE_URL, or fails if it isn't running
#
# --throwaway trades all durability for speed, and keeps the cluster in memory where there is plenty; it is for tests.
# initdb refuses to run as root, so root's cluster belongs to the user `postgres`; anyone else's to themselves.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

usage="usage: $0 start|stop|remove|status DIR [--throwaway]"
action=${1:?$usage}
dir=$(realpath -m "${2:?$usage}")
throwaway=${3:-}
cd /

if [ "$(id -u)" = 0 ]; then owner=postgres; else owner=$ME; fi

# Whether a test run's databases fit into /dev/shm. There, thousands of databases are made and dropped at a fraction of
# what they cost on ext4, which searches for inodes that were not deleted lately.
plenty_of_memory() {
    [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] &&
        [ "$(df --output=avail -B1M /dev/shm | tail -n 1)" -ge 4096 ] &&
        [ "$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -ge 8192 ]
}

# Where the cluster is: here, in memory, or below $STATE if its owner can't access this folder (a checkout in /root).
locate() {
    # What was in memory is gone after a restart of the machine.
    case $(cat "$dir/location" 2>/dev/null) in
    /dev/shm/*) [ -d "$(cat "$dir/location")" ] || rm "$dir/location" ;;
    esac
    if [ -s "$dir/location" ]; then
        home=$(cat "$dir/location")
    elif [ "$throwaway" = --throwaway ] && [ -d "$dir" ] && [ ! -d "$dir/cluster" ] && plenty_of_memory; then
        home=$(mktemp -d /dev/shm/innkeeper-pg.XXXXXX)
        chmod 711 "$home"
        echo "$home" >"$dir/location"
    elif [ ! -d "$dir" ] || [ "$owner" = "$ME" ] || runuser -u "$owner" -- test -x "$dir"; then
        home=$dir
    else
        home=$STATE/pg-$(printf %s "$dir" | sha256sum | cut -c1-16)
        echo "$home" >"$dir/location"
    fi
    data=$home/cluster
    log=$home/postgres.log
    # An existing cluster keeps its owner, whoever runs this.
    if [ -d "$data" ]; then owner=$(stat -c %U "$data"); fi
}

# The programs of the cluster's own version, else of the latest.
binaries() {
    local version=''
    version=$(run_as "$owner" cat "$data/PG_VERSION" 2>/dev/null || true)
    # shellcheck disable=SC2086 # a star is meant to match
    bin=$(printf '%s\n' /usr/lib/postgresql/${version:-*}/bin | sort -t/ -k5 -n | tail -n 1)
    [ -x "${bin:-}/postgres" ] || die "PostgreSQL ${version:-server programs} not found: run scripts/install.sh"
}

# The postmaster's pid, if that process really is this cluster's. Its command line tells, and anyone may read that.
running() {
    local pid
    pid=$(run_as "$owner" head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && proc_start "$pid" >/dev/null &&
        tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "$data" && echo "$pid"
}

url() { echo "postgres://innkeeper:$(cat "$dir/password")@127.0.0.1:$(cat "$dir/port")/innkeeper"; }

# Created beside its final place and moved there once complete: an interrupted run leaves nothing in the way.
create() {
    local new=$data.new
    say "Creating a PostgreSQL cluster in $home"
    mkdir -p "$home"
    give_to_owner "$new"
    run_as "$owner" find "$new" -mindepth 1 -delete
    (umask 077 && random_password >"$dir/password")
    # initdb reads the password from a file, which only its user may read.
    run_as "$owner" sh -c "umask 077 && cat >'$new/password'" <"$dir/password"
    run_as "$owner" "$bin/initdb" -D "$new/cluster" -U innkeeper --pwfile="$new/password" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    run_as "$owner" sh -c "echo \"include 'innkeeper.conf'\" >>'$new/cluster/postgresql.conf'"
    mv "$new/cluster" "$data"
    rm -rf "$new"
}

# give_to_owner PATH: a folder, and the log, that the cluster's user may write to.
give_to_owner() {
    mkdir -p "$1"
    : >>"$log"
    chmod 700 "$1"
    chmod 600 "$log"
    [ "$owner" = "$ME" ] || chown "$owner" "$1" "$log"
}

settings() {
    echo "listen_addresses = '127.0.0.1'"
    echo "port = $1"
    # A socket's path may have at most 107 characters; a checkout's may be longer.
    echo "unix_socket_directories = ''"
    echo "password_encryption = 'scram-sha-256'"
    echo "timezone = 'UTC'"
    # Several processes and a benchmark's 200 clients; unused slots cost next to nothing.
    echo "max_connections = 400"
    if [ "$throwaway" = --throwaway ]; then
        # Dropping a database waits for every session of the cluster, also for one whose client ended while it was
        # signing in: as a test may that has just ended. The default is a minute; a busy machine needs more than 15 s.
        echo "authentication_timeout = 30s"
        printf '%s\n' 'fsync = off' 'synchronous_commit = off' 'full_page_writes = off' \
            'autovacuum_naptime = 10s' 'jit = off' 'max_wal_size = 2GB' 'shared_buffers = 256MB'
    fi
}

start() {
    local port
    mkdir -p "$dir"
    lock "pg-$(printf %s "$dir" | sha256sum | cut -c1-16)" wait
    locate
    if running >/dev/null; then
        url
        return
    fi
    binaries
    [ -d "$data" ] || create
    # A postmaster.pid left by a crash would block the start if its number has been reused.
    run_as "$owner" rm -f "$data/postmaster.pid"
    port=$(cat "$dir/port" 2>/dev/null || true)
    if [ -z "$port" ] || port_open "$port"; then port=$(free_port); fi
    echo "$port" >"$dir/port"
    settings "$port" | run_as "$owner" tee "$data/innkeeper.conf" >/dev/null
    if ! without_locks run_as "$owner" "$bin/pg_ctl" -D "$data" -l "$log" -w -t 120 -s start >&2; then
        run_as "$owner" tail -n 20 "$log" >&2
        die "PostgreSQL did not start; its log is $log"
    fi
    if [ -z "$(sql postgres -tAc "select 1 from pg_database where datname = 'innkeeper'")" ]; then
        sql postgres -qc 'create database innkeeper'
    fi
    url
}

sql() {
    local database=$1
    shift
    PGPASSWORD=$(cat "$dir/password") \
        "$bin/psql" -X -h 127.0.0.1 -p "$(cat "$dir/port")" -U innkeeper -d "$database" "$@"
}

stop() {
    local pid
    locate
    pid=$(running) || return 0
    binaries
    run_as "$owner" "$bin/pg_ctl" -D "$data" -m fast -w -t 60 -s stop >&2
    # It has released its port by now, but may take another moment to exit.
    wait_gone "$pid" 10 || die "PostgreSQL (pid $pid) did not stop"
}

remove() {
    stop
    if [ "$owner" = "$ME" ]; then rm -rf "$data" "$data.new" "$log"; else as_root rm -rf "$data" "$data.new" "$log"; fi
    rm -f "$dir"/{port,password,location}
    [ "$home" = "$dir" ] || as_root rmdir "$home" 2>/dev/null || true
    rmdir "$dir" 2>/dev/null || true
}

case $action in
start | stop | remove) "$action" ;;
status)
    locate
    running >/dev/null || exit 1
    url
    ;;
*) die "$usage" ;;
esac
