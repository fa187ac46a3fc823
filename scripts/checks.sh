#!/usr/bin/env bash
# What of make test needs no hosts and no database: lint, documentation and the examples in it, the benchmarks' own
# tests. It is done beside the other tests, which wait more than they work.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
unset DATABASE_URL
export SQLX_OFFLINE=true

trap steps_summary EXIT
step "Lint" scripts/lint.sh
step "Documentation" env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
# cargo nextest runs none of these.
step "Examples" cargo test --workspace --exclude innkeeper-bench --all-features --locked --doc
step "Benchmarks' tests" cargo test --workspace --all-features --locked --bin innkeeper-bench
