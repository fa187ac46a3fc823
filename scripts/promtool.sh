#!/usr/bin/env bash
# Installs promtool, with which tests check /metrics, into target/promtool. It has its own package since Debian 13;
# before that it comes with Prometheus, whose package would start a server: so the package is unpacked and not
# installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"
cd "$ROOT"

tool=target/promtool
"$tool" --version >/dev/null 2>&1 && exit 0
mkdir -p target
parts=$(mktemp -d "$PWD/target/promtool.XXXXXX")
trap 'rm -rf "$parts"' EXIT
if installed=$(command -v promtool); then
    cp "$installed" "$parts/promtool"
else
    [ -n "$(candidate prometheus)" ] || apt_update
    package=prometheus
    [ -z "$(candidate promtool)" ] || package=promtool
    fetch() { (cd "$parts" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2); }
    # The lists may have a version that the mirror no longer does.
    fetch || { apt_update && fetch; } || die "apt-get could not download the package $package, which contains promtool"
    dpkg-deb --fsys-tarfile "$parts"/*.deb | tar -xO ./usr/bin/promtool >"$parts/promtool"
    chmod 755 "$parts/promtool"
fi
"$parts/promtool" --version >/dev/null
mv "$parts/promtool" "$tool"
