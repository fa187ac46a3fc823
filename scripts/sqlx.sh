#!/usr/bin/env bash
# make sqlx: checks all queries against a fresh database with all migrations, and writes the results to .sqlx/, so that
# building needs no database. Run it after changing a query or a migration, and commit .sqlx/ with the change.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

dir=${CARGO_TARGET_DIR:-$ROOT/target}/sqlx-postgres
trap '"$ROOT/scripts/postgres.sh" remove "$dir"; rm -rf "$ROOT/.sqlx-tmp"' EXIT
trap 'exit 130' INT TERM HUP
DATABASE_URL=$("$ROOT/scripts/postgres.sh" start "$dir" --throwaway)
export DATABASE_URL
for file in migrations/*.sql; do
    psql -X -q -v ON_ERROR_STOP=1 --single-transaction -f "$file" "$DATABASE_URL"
done
rm -rf .sqlx-tmp
mkdir .sqlx-tmp
# The macros write the results when they are expanded; up-to-date crates are not expanded again.
git ls-files -z '*/lib.rs' '*/main.rs' 'tests/*.rs' | xargs -0 touch -c
env -u SQLX_OFFLINE SQLX_OFFLINE_DIR="$ROOT/.sqlx-tmp" \
    cargo check --workspace --all-targets --all-features --locked
mkdir -p .sqlx
find .sqlx -name 'query-*.json' -delete
find .sqlx-tmp -name 'query-*.json' -exec mv -t .sqlx {} +
say "$(find .sqlx -name 'query-*.json' | wc -l) queries in .sqlx/"
