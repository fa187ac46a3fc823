# Shared by all scripts: messages, root privileges on demand, locks, ports, process identity. Source it; it does nothing
# on its own. Messages go to stderr, so that stdout is for results.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
ME=$(id -un)
# Programs that these scripts install for their own use.
TOOLS=$ROOT/target/tools
# rustup's cargo; a shell started before its installation does not have it in PATH.
# First of all our own Node, which is only there if the machine's was too old (install.sh).
PATH=$TOOLS/node/bin:$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin:$TOOLS
# State that the whole machine shares (an Incus daemon that we started, bridges' subnets).
STATE=/var/lib/innkeeper
export STATE ME TOOLS

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# as_root COMMAND...: directly if we are root, else through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this step needs root ($*): run it as root, or install sudo"
    fi
}

# run_as USER COMMAND...: as that user, without root privileges if we already are.
run_as() {
    local user=$1
    shift
    if [ "$ME" = "$user" ]; then "$@"; else as_root runuser -u "$user" -- "$@"; fi
}

# --- steps and progress ---------------------------------------------------------------------------

# progress PERCENT TEXT: a progress bar on a terminal; otherwise one line every ten percent.
PROGRESS_LAST=-1
progress() {
    local percent=$1 text=$2 width=30 filled bar
    if [ -t 2 ]; then
        filled=$((percent * width / 100))
        bar=$(printf '%*s' "$filled" '' | tr ' ' '#')
        printf '\r  [%-*s] %3d%%  %-40.40s' "$width" "$bar" "$percent" "$text" >&2
        [ "$percent" -lt 100 ] || printf '\n' >&2
    elif [ $((percent / 10)) -gt "$PROGRESS_LAST" ]; then
        printf '  %3d%%  %s\n' "$percent" "$text" >&2
    fi
    PROGRESS_LAST=$((percent / 10))
    [ "$percent" -lt 100 ] || PROGRESS_LAST=-1
}

# step TEXT COMMAND...: prints the text, runs the command and records its duration. A failure ends the script. Within a
# function that is run like this bash ignores `set -e`, so it must handle its own errors.
STEPS=()
step() {
    local text=$1 began=$SECONDS code=0
    shift
    say "==> $text"
    "$@" || code=$?
    STEPS+=("$(printf '%5ds  %-4s %s' $((SECONDS - began)) "$([ $code = 0 ] && echo ok || echo FAIL)" "$text")")
    return $code
}
steps_summary() { [ ${#STEPS[@]} = 0 ] || printf '%s\n' "${STEPS[@]}" >&2; }

# timed LOG TEXT COMMAND...: runs it with its output in a file, and prints one line with the result, plus the end of the
# output if it failed.
timed() {
    local log=$1 text=$2 began=$SECONDS code=0
    shift 2
    printf '==> %s\n' "$text" >>"$log"
    "$@" </dev/null >>"$log" 2>&1 || code=$?
    say "$(printf '%5ds  %-4s %s' $((SECONDS - began)) "$([ $code = 0 ] && echo ok || echo FAIL)" "$text")"
    [ $code = 0 ] || tail -n 20 "$log" | cut -c 1-150 | sed 's/^/          /' >&2
    return $code
}

# set_values LINES: sets variables from NAME=VALUE lines printed by another script.
set_values() {
    local line
    while IFS= read -r line; do declare -g "$line"; done <<<"$1"
}

# load_env FILE: NAME=VALUE lines into the environment; existing variables take precedence.
load_env() {
    local line
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Z][A-Z0-9_]*)=(.*)$ ]] || continue
        [ -z "${!BASH_REMATCH[2]+set}" ] || continue
        local name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        case $value in
        \"*\" | \'*\') value=${value:1:-1} ;;
        esac
        export "$name=$value"
    done <"$1"
}

# node_modules FOLDER: installs the packages in its package-lock.json, unless they already are.
node_modules() {
    local stamp=$1/node_modules/.installed-from
    cmp -s "$1/package-lock.json" "$stamp" && return
    npm ci --prefix "$1" --no-audit --no-fund && cp "$1/package-lock.json" "$stamp"
}

# --- locks, ports, processes ----------------------------------------------------------------------

# Seconds to wait for another run's lock: longer than any run takes. Anyone may hold a file in /run/lock.
LOCK_SECONDS=3600

# lock NAME [wait]: holds a machine-wide lock until this script ends; without `wait` it fails at once.
lock() {
    local name=$1 file=/run/lock/innkeeper-$1.lock fd
    [ -w /run/lock ] || file=/tmp/innkeeper-$1.lock
    [ ! -L "$file" ] || die "$file is a symlink that somebody else has created: remove it"
    # Opened for reading: in a sticky folder only its owner may open a file for writing.
    [ -e "$file" ] || (umask 022 && : >"$file")
    exec {fd}<"$file"
    if ! flock -n "$fd"; then
        [ "${2:-}" = wait ] || return 1
        say "Waiting for another run to finish ($name)"
        flock -w "$LOCK_SECONDS" "$fd" || die "$file has been locked for an hour: \`fuser -v $file\` shows by whom"
    fi
}

# without_locks COMMAND...: runs it without the descriptors that hold our locks, if it outlives this script.
without_locks() {
    (
        close_locks
        "$@"
    )
}
close_locks() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        if [ "$fd" -gt 9 ] && [ "$fd" != 255 ]; then exec {fd}>&-; fi
    done
}

# port_open PORT: whether anything listens on 127.0.0.1.
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port: a port without a listener, below the kernel's range for outgoing connections.
free_port() {
    local port tries
    for tries in {1..50}; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
        port_open "$port" || { echo "$port" && return; }
    done
    die "no free port found after $tries tries"
}

# A pid alone does not identify a process, since pids are reused. Together with the start time it does.
proc_start() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    # A zombie no longer runs.
    [ "$1" != Z ] && echo "${20}"
}

# note_pid FILE PID: records a process by pid and start time.
note_pid() { echo "$2 $(proc_start "$2")" >"$1"; }

# noted_pid FILE: prints the pid if that process is still running.
noted_pid() {
    local pid start
    [ -r "$1" ] && read -r pid start <"$1" || return 1
    [ -n "$pid" ] && [ "$(proc_start "$pid")" = "$start" ] && echo "$pid"
}

# wait_gone PID SECONDS
wait_gone() {
    local i
    for ((i = 0; i < $2 * 10; i++)); do
        proc_start "$1" >/dev/null || return 0
        sleep 0.1
    done
    return 1
}

incusd_path() {
    local path
    for path in /usr/libexec/incus/incusd /usr/lib/incus/incusd /opt/incus/bin/incusd; do
        if [ -x "$path" ]; then echo "$path" && return; fi
    done
}

has_systemd() { [ -d /run/systemd/system ]; }

# remove_tree DIR: removes a system's files that root has unpacked, unmounting whatever is still mounted in it; mounted
# contents are never deleted.
remove_tree() {
    local mounted
    awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mounted; do
        as_root umount "$mounted" || as_root umount -l "$mounted"
    done
    as_root rm -rf --one-file-system "$1"
}

random_password() { head -c 256 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 32; }
