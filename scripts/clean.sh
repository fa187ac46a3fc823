#!/usr/bin/env bash
# make clean-demo: removes what `make run` created: the demo's guests, its project, pool and bridge in Incus, and the
# data folder with its database. Asks for confirmation on a terminal (unless YES=1). Packages and built programs are
# kept.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/demo.sh
source "$(dirname "$0")/demo.sh"

if [ -t 0 ] && [ "${YES:-}" != 1 ]; then
    say "This permanently removes all servers of the demo, its database, and $INNKEEPER_DATA"
    read -r -p "Type yes to continue: " answer
    [ "$answer" = yes ] || die "nothing was removed"
fi
enter_group "$0" "$@"

"$ROOT/scripts/stop.sh" --but-incus
if command -v incus >/dev/null; then "$ROOT/scripts/incus.sh" down "$DEMO_PROJECT" "$DEMO_BRIDGE"; fi
"$ROOT/scripts/postgres.sh" remove "$INNKEEPER_DATA/postgres"
# A folder without our settings was not created by us, whatever INNKEEPER_DATA says.
if [ -s "$INNKEEPER_DATA/service.env" ]; then
    case $INNKEEPER_DATA in / | "$HOME" | "$ROOT") die "$INNKEEPER_DATA is not removed; do it by hand" ;; esac
    rm -rf "$INNKEEPER_DATA"
fi
say "Removed. What stays: the packages that were installed, target/, the image in the cache, and the raised
fs.inotify.max_user_instances, which others may rely on by now."
