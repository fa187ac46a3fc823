#!/usr/bin/env bash
# The part of make test that needs neither hosts nor a database: lint, documentation with its examples, and the
# dashboard's and the benchmarks' own tests. It runs alongside the other tests, which wait more than they work.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
unset DATABASE_URL
export SQLX_OFFLINE=true

# The examples in the documentation, which cargo nextest does not run. Only of crates that have any: rustdoc takes its
# time to find none.
examples() {
    local manifest folder packages=()
    while IFS= read -r manifest; do
        folder=$(dirname "$manifest")
        if [ -d "$folder/src" ] && grep -rqE '^ *//[/!] ```' "$folder/src"; then
            packages+=(-p "$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -n 1)")
        fi
    done < <(git ls-files '*Cargo.toml')
    [ ${#packages[@]} -gt 0 ] || return 0
    cargo test "${packages[@]}" --all-features --locked --doc
}

trap steps_summary EXIT
step "Lint" scripts/lint.sh
step "Dashboard" scripts/dashboard-test.sh
step "Documentation" env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked
step "Examples" examples
step "Benchmark tests" cargo test --workspace --all-features --locked --bin innkeeper-bench
