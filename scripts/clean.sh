#!/usr/bin/env bash
# make clean-demo: removes what `make run` made: the demo's guests, its project, pool and bridge in Incus, and the
# data folder with its database. Asks first on a terminal (YES=1 doesn't). Packages and built programs stay.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"
# shellcheck source=scripts/demo.sh
source "$(dirname "$0")/demo.sh"

if [ -t 0 ] && [ "${YES:-}" != 1 ]; then
    say "This removes, for good: every server of the demo, its database, and $INNKEEPER_DATA"
    read -r -p "Type yes to go on: " answer
    [ "$answer" = yes ] || die "nothing was removed"
fi
enter_group "$0" "$@"

"$ROOT/scripts/stop.sh" --but-incus
if command -v incus >/dev/null; then "$ROOT/scripts/incus.sh" down "$DEMO_PROJECT" "$DEMO_BRIDGE"; fi
"$ROOT/scripts/postgres.sh" remove "$INNKEEPER_DATA/postgres"
# A folder that doesn't have our settings in it was not made by us, whatever INNKEEPER_DATA says.
if [ -s "$INNKEEPER_DATA/service.env" ]; then
    case $INNKEEPER_DATA in / | "$HOME" | "$ROOT") die "$INNKEEPER_DATA is not a folder to remove; see to it by hand" ;; esac
    rm -rf "$INNKEEPER_DATA"
fi
say "Removed. What stays: the packages that were installed, target/, the image in the cache, and the raised
fs.inotify.max_user_instances, which others may rely on by now."
