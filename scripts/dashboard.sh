# The dashboard's folder, for one script at a time. Source it after lib.sh.
# shellcheck shell=bash

# dashboard: goes there, with its packages installed. Its build, checks and tests all write src/i18n/texts, so whoever
# comes second waits until the first one's script has ended.
dashboard() {
    cd "$ROOT/dashboard" || return
    exec {dashboard_lock}<package.json
    flock "$dashboard_lock"
    node_modules . >&2
}
