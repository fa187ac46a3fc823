#!/usr/bin/env bash
# Installs aiosmtpd, the mail server that tests hand mails to, into target/smtpd. It is a program of its own there;
# nothing of it becomes part of ours.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

VERSION=1.4.6
folder=target/smtpd stamp=target/smtpd/.version

[ "$(cat "$stamp" 2>/dev/null)" != "$VERSION" ] || exit 0
mkdir -p target
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "aiosmtpd==$VERSION"
echo "$VERSION" >"$stamp"
