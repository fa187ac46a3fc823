#!/usr/bin/env bash
# make test: everything that must hold before a change is taken, from a clean machine on. Lint, every test against
# real PostgreSQL and real containers, documentation. Leaves nothing running that it started.
#
# Arguments go to cargo test: scripts/test.sh --test servers
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/testenv.sh
source "$(dirname "$0")/testenv.sh"
cd "$ROOT"

step "Packages" scripts/install.sh test
enter_group "$0" "$@"
testenv_lock

unset DATABASE_URL
export SQLX_OFFLINE=true
step "PostgreSQL" testenv_postgres --throwaway
step "Incus" testenv_incus
step "Image" testenv_image
step "Node modules" node_modules tests/js
step "fakepve" scripts/fakepve.sh
step "Mail server" scripts/smtpd.sh
step "OpenAPI tools" scripts/openapi.sh
step "promtool" scripts/promtool.sh
step "Console page" scripts/web.sh
step "Lint" scripts/lint.sh
# Most tests wait for hosts more than they work.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
step "Tests" cargo test --workspace --all-features --locked "$@"
step "Fuzzing" env FUZZ_PHASES=fuzzing scripts/fuzz.sh 5
step "Documentation" env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
