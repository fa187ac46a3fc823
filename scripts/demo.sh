# Demo settings shared by run.sh, stop.sh and clean.sh. Source it after lib.sh.
# shellcheck shell=bash

load_env "$ROOT/.env"
INNKEEPER_DATA=$(realpath -m "${INNKEEPER_DATA:-$ROOT/data}")
export INNKEEPER_DATA
export INNKEEPER_LISTEN=${INNKEEPER_LISTEN:-127.0.0.1:5000}

DEMO_PROJECT=${INNKEEPER_DEMO_PROJECT:-innkeeper-demo}
DEMO_BRIDGE=${INNKEEPER_DEMO_BRIDGE:-inkdemo0}
PID_FILE=$INNKEEPER_DATA/innkeeper.pid
export DEMO_PROJECT DEMO_BRIDGE PID_FILE

demo_url() {
    local address=$INNKEEPER_LISTEN
    address=${address/#0.0.0.0:/127.0.0.1:}
    echo "http://${address/#\[::\]:/[::1]:}"
}

export INNKEEPER_PUBLIC_URL=${INNKEEPER_PUBLIC_URL:-$(demo_url)}
