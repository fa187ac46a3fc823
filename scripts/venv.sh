#!/usr/bin/env bash
# venv.sh NAME PACKAGE==VERSION: installs a Python program used by tests or benchmarks into target/NAME. It remains a
# separate program; nothing of it becomes part of ours.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

folder=target/$1 stamp=target/$1/.version

[ "$(cat "$stamp" 2>/dev/null)" != "$2" ] || exit 0
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "$2"
echo "$2" >"$stamp"
