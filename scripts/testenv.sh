# The environment of tests and benchmarks: a throwaway PostgreSQL and an Incus project of their own, exported as
# INNKEEPER_TEST_*, and cleanup, however the script ends. Source it after lib.sh.
# shellcheck shell=bash

TEST_PROJECT=${INNKEEPER_TEST_INCUS_PROJECT:-innkeeper-test}
TEST_BRIDGE=${INNKEEPER_TEST_INCUS_BRIDGE:-inktest0}
TEST_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/testenv
TEST_STARTED_INCUS=''
TEST_COUNTING=''

# One run at a time per machine: they share the Incus project, and would distort each other's measurements.
testenv_lock() {
    lock "test-$TEST_PROJECT" wait
    trap testenv_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

testenv_postgres() {
    # First remove leftovers of a killed run.
    "$ROOT/scripts/postgres.sh" remove "$TEST_DIR/postgres" || return 1
    INNKEEPER_TEST_DATABASE_URL=$("$ROOT/scripts/postgres.sh" start "$TEST_DIR/postgres" "$@") || return 1
    export INNKEEPER_TEST_DATABASE_URL
}

testenv_incus() {
    local answer before
    before=$(our_daemon || true)
    # Some tests have guests with unusual networks, from the ranges reserved for tests and documentation.
    answer=$(INNKEEPER_HOLDER=$$ INNKEEPER_BRIDGE_NETWORKS=198.18.0.0/15,2001:db8::/32 \
        "$ROOT/scripts/incus.sh" up "$TEST_PROJECT" "$TEST_BRIDGE") || return 1
    set_values "$answer"
    [ "$(our_daemon || true)" = "$before" ] || TEST_STARTED_INCUS=1
    "$ROOT/scripts/incus.sh" sweep "$TEST_PROJECT" || return 1
    "$ROOT/scripts/incus.sh" count "$TEST_PROJECT" </dev/null &
    TEST_COUNTING=$!
    export INNKEEPER_TEST_INCUS_SOCKET=$INCUS_SOCKET INNKEEPER_TEST_INCUS_PROJECT=$INCUS_PROJECT
    export INNKEEPER_TEST_INCUS_POOL=$INCUS_POOL INNKEEPER_TEST_INCUS_BRIDGE=$INCUS_BRIDGE
    export INNKEEPER_TEST_INCUS_SUBNET=$INCUS_IPV4 INNKEEPER_TEST_INCUS_SUBNET6=$INCUS_IPV6
}

# A disk for the test that fills one: a file system of its own, in memory.
testenv_small_disk() {
    testenv_remove_small_disk || return 1
    INNKEEPER_TEST_SMALL_DISK=$(mktemp -d /tmp/innkeeper-small-disk.XXXXXX) || return 1
    echo "$INNKEEPER_TEST_SMALL_DISK" >"$TEST_DIR/small-disk"
    as_root mount -t tmpfs -o size=256m,mode=1777,nosuid,nodev tmpfs "$INNKEEPER_TEST_SMALL_DISK" || return 1
    export INNKEEPER_TEST_SMALL_DISK
}
# Also one that a killed run left behind.
testenv_remove_small_disk() {
    local disk
    disk=$(cat "$TEST_DIR/small-disk" 2>/dev/null) || return 0
    if mountpoint -q "$disk"; then as_root umount "$disk" || return 1; fi
    if [ -d "$disk" ]; then rmdir "$disk" || return 1; fi
    rm "$TEST_DIR/small-disk"
}

testenv_image() {
    local answer
    answer=$("$ROOT/scripts/image.sh" "$TEST_PROJECT") || return 1
    set_values "$answer"
    export INNKEEPER_TEST_IMAGE=$IMAGE_ALIAS
}

testenv_end() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    say "==> Cleaning up"
    "$ROOT/scripts/postgres.sh" remove "$TEST_DIR/postgres"
    testenv_remove_small_disk
    [ -z "$TEST_COUNTING" ] || kill "$TEST_COUNTING" 2>/dev/null
    if command -v incus >/dev/null; then
        "$ROOT/scripts/incus.sh" sweep "$TEST_PROJECT"
        # The project, its bridge and the image are kept: they cost nothing, and the next run starts faster.
        if [ -n "$TEST_STARTED_INCUS" ]; then
            "$ROOT/scripts/incus.sh" stop "$TEST_PROJECT"
        else
            forget_user "$TEST_PROJECT"
        fi
    fi
    steps_summary
    [ "$code" = 0 ] || say "FAILED (exit code $code)"
    if declare -F last_words >/dev/null; then last_words; fi
    exit "$code"
}
