#!/usr/bin/env bash
# make stop: stops the demo's service, its guests, its PostgreSQL, and the Incus daemon if we started it. Everything is
# kept: the next `make run` resumes from here.
#
#   scripts/stop.sh [--but-incus]     clean.sh handles Incus itself
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
        warn "it did not exit within 45 seconds and is being killed; nothing is lost"
        kill -KILL "$pid" 2>/dev/null || as_root kill -KILL "$pid"
        wait_gone "$pid" 10 || die "process $pid can't be killed"
    fi
fi
rm -f "$PID_FILE"
"$ROOT/scripts/postgres.sh" stop "$INNKEEPER_DATA/postgres"
if [ "${1:-}" = --but-incus ]; then exit 0; fi
if command -v incus >/dev/null; then "$ROOT/scripts/incus.sh" stop "$DEMO_PROJECT"; fi
say "Stopped. Nothing is lost: \`make run\` resumes from here, \`make clean-demo\` removes everything."
