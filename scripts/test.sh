#!/usr/bin/env bash
# make test: everything that must pass before a change is accepted, starting from a clean machine. Lint, all tests
# against real PostgreSQL and real containers, documentation. Stops everything that it started.
#
# Arguments are passed to cargo nextest run, and then nothing else is run: scripts/test.sh --test suite accounts::
# With --install it stops once everything that it needs is installed.
#
# If CI is set, failing tests are retried once; tests that needed it are listed at the end.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/testenv.sh
source "$(dirname "$0")/testenv.sh"
cd "$ROOT"

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
PROFILE=default
if [ -n "${CI:-}" ]; then
    PROFILE=ci
    # Each build there is the first, and no debugger reads it: failed assertions say where they are by themselves.
    export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
fi
JUNIT=$ROOT/target/nextest/$PROFILE/junit.xml
# The benchmark program is left out: it would link the whole service once more. scripts/checks.sh runs its tests.
WHAT=(--workspace --exclude innkeeper-bench --all-features --locked)
CHECKS=''

step "Packages" scripts/install.sh test
enter_group "$0" "$@"
testenv_lock

# Final cleanup, however the script ends (testenv_end).
last_words() {
    if [ -n "$CHECKS" ]; then kill -- "-$CHECKS" 2>/dev/null; fi
    python3 "$ROOT/scripts/flaky.py" "$JUNIT"
}
rm -f "$JUNIT"

# Builds and records what was built, so that the run needs no cargo, which would wait for the builds alongside it.
build() {
    cargo metadata --format-version 1 --all-features --locked >"$TARGET/nextest/cargo.json" || return 1
    cargo nextest list "${WHAT[@]}" --list-type binaries-only --message-format json >"$TARGET/nextest/binaries.json"
}

# At low priority, and with its output kept until it has ended. Where the kernel schedules by session (autogroup), nice
# counts only within one, so the session's own priority is lowered too.
checks_begin() {
    # shellcheck disable=SC2016
    setsid nice -n 15 bash -c '{ echo 15 >/proc/$$/autogroup; } 2>/dev/null; exec scripts/checks.sh' \
        </dev/null >"$TARGET/checks.log" 2>&1 &
    CHECKS=$!
}
checks_end() {
    local code=0
    wait "$CHECKS" || code=$?
    CHECKS=''
    if [ $code = 0 ]; then grep -E '^ +[0-9]+s +ok ' "$TARGET/checks.log" >&2; else cat "$TARGET/checks.log" >&2; fi
    return $code
}

unset DATABASE_URL
export SQLX_OFFLINE=true
mkdir -p "$TARGET/nextest"
step "PostgreSQL" testenv_postgres --throwaway
step "Small disk" testenv_small_disk
step "Incus" testenv_incus
step "Image" testenv_image
step "Node modules" node_modules tests/js
step "fakepve" scripts/fakepve.sh
step "Mail server" scripts/smtpd.sh
step "OpenAPI tools" scripts/openapi.sh
step "promtool" scripts/promtool.sh
step "Console page, dashboard" scripts/web.sh
[ "${1:-}" != --install ] || exit 0
# Most tests wait for hosts more than they work.
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$(($(nproc) * 2))}
if [ $# -gt 0 ]; then
    step "Tests" cargo nextest run "${WHAT[@]}" --profile "$PROFILE" "$@"
    exit
fi
step "Format" cargo fmt --all --check
step "Build" build
checks_begin
failed=0
step "Tests" cargo nextest run --profile "$PROFILE" --cargo-metadata "$TARGET/nextest/cargo.json" \
    --binaries-metadata "$TARGET/nextest/binaries.json" || failed=1
step "Lint, documentation" checks_end || failed=1
[ $failed = 0 ]
step "Fuzzing" env INNKEEPER_BIN="$TARGET/debug/innkeeper" FUZZ_PHASES=fuzzing scripts/fuzz.sh 5
