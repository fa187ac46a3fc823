#!/usr/bin/env bash
# make web: builds the console's page from web/console into web/console/dist, which is embedded when the program is
# compiled. Needs node and npm; skipped if it is already built from these sources.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT/web/console"

built=node_modules/.built-from
node_modules . >&2
sources=$(cat package-lock.json build.mjs src/* | sha256sum)
[ -e dist/index.html ] && [ "$(cat "$built" 2>/dev/null)" = "$sources" ] && exit
npm run --silent build
echo "$sources" >"$built"
