#!/usr/bin/env bash
# The dashboard's own tests. They measure what scripts/web.sh has built.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/dashboard.sh
source "$(dirname "$0")/dashboard.sh"

"$ROOT/scripts/web.sh"
dashboard
npm test --silent
