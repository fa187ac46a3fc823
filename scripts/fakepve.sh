#!/usr/bin/env bash
# Installs fakepve, which stands in for Proxmox VE in tests, into target/fakepve. It is a program of its own there;
# nothing of it becomes part of ours.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

VERSION=0.5.0
folder=target/fakepve stamp=target/fakepve/.version

[ "$(cat "$stamp" 2>/dev/null)" != "$VERSION" ] || exit 0
mkdir -p target
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "fakepve[crypto]==$VERSION"
echo "$VERSION" >"$stamp"
