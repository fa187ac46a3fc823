#!/usr/bin/env bash
# The part of make test that needs neither hosts nor a database: lint, documentation with its examples, and the
# dashboard's and the benchmarks' own tests. It runs alongside the other tests, which wait more than they work.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
unset DATABASE_URL
export SQLX_OFFLINE=true

trap steps_summary EXIT
step "Lint" scripts/lint.sh
step "Dashboard" scripts/dashboard-test.sh
step "Documentation" env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
# cargo nextest does not run these.
step "Examples" cargo test --workspace --exclude innkeeper-bench --all-features --locked --doc
step "Benchmark tests" cargo test --workspace --all-features --locked --bin innkeeper-bench
