#!/usr/bin/env bash
# make web: builds what browsers get, which is embedded when the program is compiled: the console's page from
# web/console and the dashboard from dashboard/, each into its dist/. Needs node and npm; skips what is already built
# from its sources.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/dashboard.sh
source "$(dirname "$0")/dashboard.sh"

# build SOURCES: runs the build of the folder that we are in, unless dist/ is from these sources.
build() {
    local built=node_modules/.built-from
    [ -e dist/index.html ] && [ "$(cat "$built" 2>/dev/null)" = "$1" ] && return
    npm run --silent build >&2
    echo "$1" >"$built"
}

cd "$ROOT/web/console"
node_modules . >&2
build "$(cat package-lock.json build.mjs src/* | sha256sum)"

dashboard
# Without what the build writes itself. Names count as well: a file may have moved.
sources=$(find package-lock.json index.html ./*.ts ./*.js build messages project.inlang/settings.json src \
    -path src/i18n/texts -prune -o -type f -print | LC_ALL=C sort | xargs sha256sum | sha256sum)
build "$sources"
