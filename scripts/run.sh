#!/usr/bin/env bash
# make run: installs what is missing, prepares everything that the service needs, and serves in the foreground. The
# first run takes minutes, later ones seconds; existing things are neither recreated nor lost.
#
# Settings come from the environment, then .env, then service.env in the data folder (INNKEEPER_DATA, ./data).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/demo.sh
source "$(dirname "$0")/demo.sh"
cd "$ROOT"
scripts=$ROOT/scripts

if pid=$(noted_pid "$PID_FILE"); then
    say "Innkeeper is already running: $(demo_url) (process $pid); \`make stop\` stops it"
    exit 0
fi

step "Packages" "$scripts/install.sh" run
enter_group "$0" "$@"

mkdir -p "$INNKEEPER_DATA"
lock "run-$(printf %s "$INNKEEPER_DATA" | sha256sum | cut -c1-16)" ||
    die "another \`make run\` is starting up right now"
note_pid "$PID_FILE" $$
trap 'rm -f "$PID_FILE"' EXIT

build() {
    # INNKEEPER_BIN is an already built program.
    [ -z "${INNKEEPER_BIN:-}" ] || return 0
    "$scripts/web.sh" || return 1
    env -u DATABASE_URL SQLX_OFFLINE=true cargo build --release --locked -p innkeeper
}

database() {
    [ -z "${DATABASE_URL:-}" ] || return 0
    DATABASE_URL=$("$scripts/postgres.sh" start "$INNKEEPER_DATA/postgres") || return 1
    export DATABASE_URL
}

guests_home() {
    local answer
    answer=$(INNKEEPER_HOLDER=$$ "$scripts/incus.sh" up "$DEMO_PROJECT" "$DEMO_BRIDGE") && set_values "$answer"
}

guests_image() {
    local answer
    answer=$("$scripts/image.sh" "$DEMO_PROJECT") && set_values "$answer"
}

settings() {
    local file=$INNKEEPER_DATA/service.env
    if [ ! -s "$file" ]; then
        (
            umask 077
            printf 'INNKEEPER_SECRET_KEY=%s\n' "${INNKEEPER_SECRET_KEY:-$(openssl rand -base64 32)}" >"$file.new"
        ) && mv "$file.new" "$file" || return 1
    fi
    load_env "$file"
}

seed() {
    local net=${INCUS_IPV4%.*} net6=${INCUS_IPV6%/64} ipv6=()
    [ "$net6" = none ] || ipv6=(--ipv6-cidr "${net6%::1}::/64" --ipv6-gateway "$net6")
    "$innkeeper" migrate && "$innkeeper" demo --env-file "$INNKEEPER_DATA/demo.env" --incus-socket "$INCUS_SOCKET" \
        --incus-project "$INCUS_PROJECT" --incus-pool "$INCUS_POOL" --bridge "$INCUS_BRIDGE" \
        --image-source "$IMAGE_ALIAS" --image-name "$IMAGE_NAME" \
        --ipv4-cidr "$net.0/24" --ipv4-gateway "$net.1" --ipv4-first "$net.10" --ipv4-last "$net.250" "${ipv6[@]}" ||
        return 1
    # Accounts from an earlier run may have been created with another address.
    sed -i "s|^INNKEEPER_URL=.*|INNKEEPER_URL=${INNKEEPER_PUBLIC_URL%/}|" "$INNKEEPER_DATA/demo.env"
}

innkeeper=${INNKEEPER_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/innkeeper}
step "Building" build
step "PostgreSQL" database
step "Incus" guests_home
step "Image" guests_image
step "Settings" settings
step "Demo data" seed
say "==> Serving on $(demo_url); Ctrl-C stops the service, \`make stop\` also everything started with it"
trap - EXIT
close_locks
"$scripts/incus.sh" count "$DEMO_PROJECT" </dev/null &
exec "$innkeeper" serve
