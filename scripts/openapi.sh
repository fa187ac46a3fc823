#!/usr/bin/env bash
# Installs the tools with which tests check the OpenAPI document: Redocly's linter and the two most common client
# generators, into tests/openapi/node_modules and target/openapi-python-client.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

node_modules tests/openapi
scripts/venv.sh openapi-python-client openapi-python-client==0.29.1
