#!/usr/bin/env bash
# Installs what is missing to build and run Innkeeper, with apt if possible.
#
#   scripts/install.sh run|test|bench     test and bench include everything that run needs
#
# Nothing that is installed is removed, and no service is started that wasn't requested. Root is only required if
# something is missing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

what=${1:-run}
case $what in run | test | bench) ;; *) die "usage: $0 run|test|bench" ;; esac
command -v apt-get >/dev/null || die "these scripts only support Debian and Ubuntu (apt-get not found)"

# The package would create a cluster and start it on port 5432. Ours is private, so this is disabled during the
# installation.
install_postgresql() {
    local conf=/etc/postgresql-common/createcluster.conf saved=/etc/postgresql-common/createcluster.conf.innkeeper
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return
    apt_install postgresql-common
    # An existing copy is from an interrupted run: it is the original.
    as_root test -e "$saved" || as_root cp -p "$conf" "$saved"
    trap 'as_root mv "$saved" "$conf"; trap - RETURN EXIT' RETURN EXIT
    echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    apt_install postgresql
}

# Debian has Incus since 13, Ubuntu since 24.04. Debian 12 has it in backports.
install_incus() {
    local packages suite
    command -v incus >/dev/null && [ -x "$(incusd_path)" ] && return
    [ -n "$(candidate incus)" ] || apt_update
    if [ -z "$(candidate incus)" ]; then
        suite=$(backports) || die "the package incus is not available, and no apt source has this release's backports"
        [ -n "$(candidate incus)" ] || die "the package incus is not available, not even in $suite"
    fi
    # Only containers are needed; the package named incus also installs QEMU.
    packages=(incus-base incus-client)
    [ -n "$(candidate incus-base)" ] || packages=(incus)
    # Dependencies of Incus must come from the same suite.
    suite=$(suite_of incus "$(candidate incus)")
    case $suite in
    *-backports) apt_install -t "$suite" "${packages[@]}" ;;
    *) apt_install "${packages[@]}" ;;
    esac
}

version_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

install_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
    rust_fits && return
    if ! command -v rustup >/dev/null; then
        [ -n "$(candidate rustup)" ] || apt_update
        # rustup's package replaces those of cargo and rustc; we must not remove them.
        if [ -n "$(candidate rustup)" ] && ! has_package cargo && ! has_package rustc; then apt_install rustup; fi
    fi
    if command -v rustup >/dev/null; then
        say "Installing the stable Rust toolchain"
        rustup toolchain install stable --profile minimal -c rustfmt -c clippy >&2 && rustup default stable >&2
        hash -r
        rust_fits && return
    fi
    have=$(cargo --version 2>/dev/null || echo 'no cargo')
    die "Rust $wanted or newer is needed (found: $have). Install it with this command, then run make again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
}
rust_fits() {
    have=$(cd "$ROOT" && cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [ -n "$have" ] && version_at_least "$have" "$wanted"
}

# The dashboard's build needs a newer Node than Debian 12 and Ubuntu 24.04 have. There their npm installs one for these
# scripts only, with an npm that fits; the package's own stays what it is for everything else.
install_node() {
    node_fits && return
    apt_install nodejs npm
    hash -r
    node_fits && return
    say "Installing Node into $TOOLS/node: the machine's is $(node --version 2>/dev/null || echo missing)"
    mkdir -p "$TOOLS/node/bin"
    cp "$ROOT"/scripts/node/{package.json,package-lock.json,.npmrc} "$TOOLS/node/"
    npm ci --prefix "$TOOLS/node" >&2
    ln -sf "$TOOLS"/node/node_modules/node-linux-*/bin/node "$TOOLS"/node/node_modules/.bin/np[mx] "$TOOLS/node/bin/"
    hash -r
    node_fits || die "Node 20.19 or newer is needed, with npm: there is no build of it for $(uname -m), so install it"
}
node_fits() {
    local version
    version=$(node --version 2>/dev/null | tr -d v) || return 1
    version_at_least "$version" 20.19 && command -v npm >/dev/null
}

# For fakepve (the Proxmox VE fake) and schemathesis: Debian has virtual environments in a separate package.
install_python() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
}

exec {install_lock}<"$ROOT/Cargo.toml"
flock "$install_lock"

apt_install gcc libc6-dev pkg-config make git curl ca-certificates openssl openssh-client jq \
    iproute2 procps psmisc debootstrap squashfs-tools btrfs-progs uidmap lxcfs dnsmasq-base nftables
install_postgresql
install_incus
install_rust
install_node
case $what in
# A browser for the pages, a real display to show in it, fakepve's runtime, and the test runner.
test)
    apt_install chromium qemu-system-x86
    install_python
    "$ROOT/scripts/nextest.sh"
    ;;
bench) compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null || apt_install postgresql-contrib ;;
esac
