#!/usr/bin/env bash
# make upgrade-test: runs another version alongside this one on one database, with operations in progress and both
# killed in turn. If its schema is of an earlier generation it can't run alongside: then this version migrates its
# database, and it must refuse to start. For releases; not part of `make test`.
#
#   scripts/upgrade-test.sh [COMMIT]     the version to upgrade from; default: the last tag (or OLD=<commit>)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

OLD=${1:-${OLD:-$(git describe --tags --abbrev=0 2>/dev/null || true)}}
[ -n "$OLD" ] || die "there is no tag to upgrade from: give a commit, as in make upgrade-test OLD=<commit>"
OLD=$(git rev-parse --verify --quiet "$OLD^{commit}") || die "there is no commit $OLD in this repository"

generation() { sed -n 's/^const GENERATION: i32 = \([0-9]*\);$/\1/p'; }
new=$(generation <crates/kernel/src/schema.rs)
old=$({ git show "$OLD:crates/kernel/src/schema.rs" || git show "$OLD:src/schema.rs"; } 2>/dev/null |
    generation || true)
[ -n "$old" ] || die "version ${OLD:0:12} is from before schema generations (see docs/upgrade.md)"
[ "$old" -le "$new" ] || die "version ${OLD:0:12} has a later schema generation, $old: run its own upgrade test"
if [ "$old" -eq "$new" ]; then
    TEST=two_versions_side_by_side_lose_and_duplicate_nothing
    say "Version ${OLD:0:12} has this one's schema generation, $new: it runs alongside."
else
    TEST=an_earlier_generation_s_program_refuses_the_migrated_schema
    say "Version ${OLD:0:12} has schema generation $old, this one $new: it can't run alongside, and must say so."
fi

DIR=$ROOT/target/upgrade
SOURCE=$DIR/source

end() {
    local code=$?
    trap - EXIT
    git worktree remove --force "$SOURCE" 2>/dev/null || true
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$DIR"
git worktree remove --force "$SOURCE" 2>/dev/null || true
git worktree prune
git worktree add --quiet --detach "$SOURCE" "$OLD"
build() {
    (cd "$SOURCE" && SQLX_OFFLINE=true CARGO_TARGET_DIR="$DIR/build" cargo build --locked --bin innkeeper)
}
step "The version of ${OLD:0:12}" build
INNKEEPER_TEST_OLD_PROGRAM=$DIR/build/debug/innkeeper scripts/test.sh --run-ignored only -E "test(/^upgrade::$TEST\$/)"
