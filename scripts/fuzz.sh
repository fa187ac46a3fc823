#!/usr/bin/env bash
# make fuzz: runs schemathesis with the service's OpenAPI document against a running service, on a throwaway database
# with a dozen of everything and an unreachable host. Checks that there is no 5xx of our own, and nothing undocumented.
#
#   scripts/fuzz.sh [EXAMPLES] [SEED]     examples per operation and role (200: over 10,000 cases in total)
#
# FUZZ_PHASES=fuzzing skips the phases that test each operation's limits, which take half a minute. The same seed on the
# same code gives the same cases. A cluster is started unless INNKEEPER_TEST_DATABASE_URL is set, and the program is
# built unless INNKEEPER_BIN is set.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

EXAMPLES=${1:-200}
SEED=${2:-$RANDOM$RANDOM}
DIR=${CARGO_TARGET_DIR:-$ROOT/target}/fuzz
VENV=$ROOT/target/schemathesis
VERSION=4.32.5
CHECKS=status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
CHECKS=$CHECKS,unsupported_method,ignored_auth,never_our_fault
PASSWORD=$(head -c 18 /dev/urandom | base64)
DATABASE=innkeeper_fuzz_$$
SERVICE=''

end() {
    local code=$?
    trap - EXIT
    if [ -n "$SERVICE" ] && kill "$SERVICE"; then wait "$SERVICE" || true; fi
    if [ -n "${OWN_CLUSTER:-}" ]; then
        scripts/postgres.sh remove "$DIR/postgres"
    elif [ -n "${CLUSTER:-}" ]; then
        psql -X -q "$CLUSTER" -c "drop database if exists $DATABASE with (force)"
    fi
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

database() {
    CLUSTER=${INNKEEPER_TEST_DATABASE_URL:-}
    if [ -z "$CLUSTER" ]; then
        OWN_CLUSTER=1
        CLUSTER=$(scripts/postgres.sh start "$DIR/postgres" --throwaway) || return 1
    fi
    psql -X -q "$CLUSTER" -c "create database $DATABASE" || return 1
    export DATABASE_URL=${CLUSTER%/*}/$DATABASE
}

# Use these settings only, and not the .env here: it runs in its own folder.
innkeeper() { (cd "$DIR" && exec "$PROGRAM" "$@"); }

service() {
    PROGRAM=$(realpath "${INNKEEPER_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/innkeeper}")
    INNKEEPER_SECRET_KEY=$(head -c 32 /dev/urandom | base64)
    INNKEEPER_LISTEN=127.0.0.1:$(free_port)
    export INNKEEPER_SECRET_KEY INNKEEPER_LISTEN INNKEEPER_DATA=$DIR/data INNKEEPER_LOG=warn INNKEEPER_REGISTRATION=true
    export INNKEEPER_ACCESS_TOKEN_MINUTES=1440
    export INNKEEPER_LOGIN_LIMIT_ACCOUNT=1000000 INNKEEPER_LOGIN_LIMIT_ADDRESS=1000000
    export INNKEEPER_RATE_LIMIT_TOKEN=100000000 INNKEEPER_RATE_LIMIT_ACCOUNT=100000000
    export INNKEEPER_RATE_LIMIT_ADDRESS=100000000
    # Operations that wait for the host keep their servers locked all the time.
    export INNKEEPER_OPERATION_DEADLINE_SECONDS=86400 INNKEEPER_CREATE_DEADLINE_SECONDS=86400
    innkeeper migrate >&2 || return 1
    innkeeper user add --email provider@example.com --staff admin --password-stdin <<<"$PASSWORD" >&2 || return 1
    innkeeper user add --email customer@example.com --password-stdin <<<"$PASSWORD" >&2 || return 1
    innkeeper host add --name nowhere --socket /nowhere/incus.socket --force >&2 || return 1
    psql -X -q -v ON_ERROR_STOP=1 -v provider=1 -v customer=2 -f scripts/fuzz/seed.sql "$DATABASE_URL" || return 1
    (cd "$DIR" && exec "$PROGRAM" serve) >"$DIR/service.log" 2>&1 &
    SERVICE=$!
    URL=http://$INNKEEPER_LISTEN
    curl -fs --retry 100 --retry-connrefused --retry-delay 1 --retry-max-time 60 "$URL/health/ready" >/dev/null
}

token() {
    curl -fsS "$URL/api/auth/login" -H 'Content-Type: application/json' \
        -d "{\"email\": \"$1@example.com\", \"password\": \"$PASSWORD\"}" | sed 's/.*"accessToken":"\([^"]*\)".*/\1/'
}

# Fuzzes as a role. Logging out would end the run, so it is excluded. Examples that name a possibly existing socket are
# removed.
fuzz() {
    curl -fsS "$URL/api/openapi.json" | "$VENV/bin/python" -c '
import json, sys
def harmless(value):
    if isinstance(value, dict):
        return {k: harmless(v) for k, v in value.items() if not (k == "example" and "socket" in str(v))}
    return [harmless(v) for v in value] if isinstance(value, list) else value
json.dump(harmless(json.load(sys.stdin)), sys.stdout)' >"$DIR/openapi.json"
    FUZZ_OPERATION=$(psql -X -q -A -t -c "select id from operations limit 1" "$DATABASE_URL")
    export FUZZ_OPERATION SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$ROOT/scripts/fuzz PYTHONDONTWRITEBYTECODE=1
    (cd "$DIR" && "$VENV/bin/schemathesis" run openapi.json \
        --url "$URL" --header "Authorization: Bearer $(token "$1")" \
        --checks "$CHECKS" --phases "${FUZZ_PHASES:-examples,coverage,fuzzing,stateful}" \
        --max-examples "$2" --seed "$SEED" --workers 2 --request-timeout 60 --suppress-health-check all \
        --generation-database none --exclude-path /api/auth/logout --exclude-path /metrics \
        --warnings off --continue-on-failure \
        --report ndjson --report-ndjson-path "report-$1.ndjson" --no-color)
}

mkdir -p "$DIR"
step "schemathesis $VERSION" scripts/venv.sh schemathesis "schemathesis==$VERSION"
if [ -z "${INNKEEPER_BIN:-}" ]; then step "Building" env SQLX_OFFLINE=true cargo build --locked -p innkeeper; fi
step "Database" database
step "Service" service
say "seed: $SEED (scripts/fuzz.sh $EXAMPLES $SEED repeats this run)"
step "As the provider" fuzz provider "$EXAMPLES"
step "As a customer" fuzz customer $(((EXAMPLES + 3) / 4))
kill -0 "$SERVICE"
if grep -E 'panicked|"INTERNAL"' "$DIR/service.log"; then die "the service's log has internal errors"; fi
steps_summary
