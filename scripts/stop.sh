#!/usr/bin/env bash
# make stop: ends the demo's service, its guests, its PostgreSQL, and the Incus daemon if it was we who started it.
# Everything is kept: the next `make run` goes on where this one ended.
#
#   scripts/stop.sh [--but-incus]     clean.sh sees to Incus itself
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/demo.sh
source "$(dirname "$0")/demo.sh"
enter_group "$0" "$@"

if pid=$(noted_pid "$PID_FILE"); then
    say "Stopping Innkeeper (process $pid)"
    kill -TERM "$pid" 2>/dev/null || as_root kill -TERM "$pid"
    if ! wait_gone "$pid" 45; then
        warn "it did not end within 45 seconds and is ended by force; nothing is lost by that"
        kill -KILL "$pid" 2>/dev/null || as_root kill -KILL "$pid"
        wait_gone "$pid" 10 || die "process $pid can't be ended"
    fi
fi
rm -f "$PID_FILE"
"$ROOT/scripts/postgres.sh" stop "$INNKEEPER_DATA/postgres"
if [ "${1:-}" = --but-incus ]; then exit 0; fi
if command -v incus >/dev/null; then "$ROOT/scripts/incus.sh" stop "$DEMO_PROJECT"; fi
say "Stopped. Nothing is lost: \`make run\` goes on from here, \`make clean-demo\` removes it all."
