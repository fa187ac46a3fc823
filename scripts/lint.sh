#!/usr/bin/env bash
# make lint: formatting and clippy, with warnings as errors; the dashboard's linter, formatting and types; shellcheck
# and cargo-deny if installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/dashboard.sh
source "$(dirname "$0")/dashboard.sh"
cd "$ROOT"
unset DATABASE_URL
export SQLX_OFFLINE=true

cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
if command -v shellcheck >/dev/null; then shellcheck -x scripts/*.sh .ci/run; fi
if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; fi
dashboard
for check in lint format:check check; do npm run --silent "$check"; done
