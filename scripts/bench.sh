#!/usr/bin/env bash
# make bench: compares Innkeeper with similar programs, in one run on this machine. Prints a table, writes
# target/bench.json. PostgreSQL keeps its durability (fsync on), for both sides alike. Arguments go to the benchmark
# program.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/testenv.sh
source "$(dirname "$0")/testenv.sh"
cd "$ROOT"

step "Packages" scripts/install.sh bench
enter_group "$0" "$@"
testenv_lock

# Thousands of sockets per side.
ulimit -n "$(ulimit -Hn)"
unset DATABASE_URL
export SQLX_OFFLINE=true
PGBENCH=$(printf '%s\n' /usr/lib/postgresql/*/bin/pgbench | sort -t/ -k5 -n | tail -n 1)
export PGBENCH
step "Console page, dashboard" scripts/web.sh
step "Exporter" scripts/venv.sh pve-exporter prometheus-pve-exporter==3.10.2
step "Node modules" node_modules bench/js
step "Building" cargo build --release --locked -p innkeeper -p innkeeper-fleet -p innkeeper-bench
step "PostgreSQL" testenv_postgres
step "Incus" testenv_incus
step "Image" testenv_image
step "Benchmarks" cargo run --quiet --release --locked -p innkeeper-bench -- "$@"
