#!/usr/bin/env bash
# make test: everything that must hold before a change is taken, from a clean machine on. Lint, every test against
# real PostgreSQL and real containers, documentation. Leaves nothing running that it started.
#
# Arguments go to cargo nextest run, and then nothing else is done: scripts/test.sh --test suite accounts::
# With --install it ends when all that it needs is there.
#
# Where CI is set, a test that fails gets a second try; those that needed it are named in the last lines.
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
if [ -n "${CI:-}" ]; then PROFILE=ci; fi
JUNIT=$ROOT/target/nextest/$PROFILE/junit.xml
# The benchmarks' program is left out: it would link the whole service once more. scripts/checks.sh runs its
# own tests.
WHAT=(--workspace --exclude innkeeper-bench --all-features --locked)
CHECKS=''

step "Packages" scripts/install.sh test
enter_group "$0" "$@"
testenv_lock

# What is done last, however it ends (testenv_end).
last_words() {
    if [ -n "$CHECKS" ]; then kill -- "-$CHECKS" 2>/dev/null; fi
    python3 "$ROOT/scripts/flaky.py" "$JUNIT"
}
rm -f "$JUNIT"

# Builds, and says what was built, so that the run needs no cargo: that would wait for what is built beside it.
build() {
    cargo metadata --format-version 1 --all-features --locked >"$TARGET/nextest/cargo.json" || return 1
    cargo nextest list "${WHAT[@]}" --list-type binaries-only --message-format json >"$TARGET/nextest/binaries.json"
}

# At a low priority, and with what it says kept until it has ended.
checks_begin() {
    setsid nice -n 15 scripts/checks.sh </dev/null >"$TARGET/checks.log" 2>&1 &
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
step "Incus" testenv_incus
step "Image" testenv_image
step "Node modules" node_modules tests/js
step "fakepve" scripts/fakepve.sh
step "Mail server" scripts/smtpd.sh
step "OpenAPI tools" scripts/openapi.sh
step "promtool" scripts/promtool.sh
step "Console page" scripts/web.sh
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
