#!/usr/bin/env bash
# Installs, with apt where it can be and only where it is missing, what Innkeeper is built from and runs on.
#
#   scripts/install.sh run|test|bench     test and bench need all that run needs, and a little more
#
# Nothing that is installed is removed, no service is started that wasn't asked for. Root is asked for
# only when something is missing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

what=${1:-run}
case $what in run | test | bench) ;; *) die "usage: $0 run|test|bench" ;; esac
command -v apt-get >/dev/null || die "only Debian and Ubuntu are known to these scripts (no apt-get here)"

# The package would make a cluster and start it on port 5432. Ours is a private one, so the package is told
# not to, for as long as its installation takes.
install_postgresql() {
    local conf=/etc/postgresql-common/createcluster.conf saved=/etc/postgresql-common/createcluster.conf.innkeeper
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return
    apt_install postgresql-common
    # A copy that is still there comes from a run that was cut off: it is the original.
    as_root test -e "$saved" || as_root cp -p "$conf" "$saved"
    trap 'as_root mv "$saved" "$conf"; trap - RETURN EXIT' RETURN EXIT
    echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    apt_install postgresql
}

# Incus is in Debian since 13 and in Ubuntu since 24.04. On Debian 12 it is in backports.
install_incus() {
    local packages suite
    command -v incus >/dev/null && [ -x "$(incusd_path)" ] && return
    [ -n "$(candidate incus)" ] || apt_update
    if [ -z "$(candidate incus)" ]; then
        suite=$(backports) || die "there is no package incus here, and no apt source to find this release's backports by"
        [ -n "$(candidate incus)" ] || die "there is no package incus, nor is there one in $suite"
    fi
    # Containers are all that is needed; the package named incus brings QEMU with it.
    packages=(incus-base incus-client)
    [ -n "$(candidate incus-base)" ] || packages=(incus)
    # What Incus needs comes from where Incus comes from.
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
        # rustup's package takes the place of cargo's and rustc's; it is not ours to remove those.
        if [ -n "$(candidate rustup)" ] && ! has_package cargo && ! has_package rustc; then apt_install rustup; fi
    fi
    if command -v rustup >/dev/null; then
        say "Installing the stable Rust toolchain"
        rustup toolchain install stable --profile minimal -c rustfmt -c clippy >&2 && rustup default stable >&2
        hash -r
        rust_fits && return
    fi
    have=$(cargo --version 2>/dev/null || echo 'no cargo')
    die "Rust $wanted or newer is needed (found: $have). This line installs it; then run make again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
}
rust_fits() {
    have=$(cd "$ROOT" && cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [ -n "$have" ] && version_at_least "$have" "$wanted"
}

install_node() {
    local version
    version=$(node --version 2>/dev/null | tr -d v) || version=0
    version_at_least "${version:-0}" 18 && command -v npm >/dev/null && return
    apt_install nodejs npm
}

# For fakepve, which stands in for Proxmox VE, and schemathesis: Debian keeps apart what makes a virtual environment.
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
# A browser for the console's page, a real screen to show in it, what the Proxmox VE double runs on, what runs tests.
test)
    apt_install chromium qemu-system-x86
    install_python
    "$ROOT/scripts/nextest.sh"
    ;;
bench) compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null || apt_install postgresql-contrib ;;
esac
