#!/usr/bin/env bash
# make fresh: tests the scripts on bare machines. Each is a debootstrapped system in its own namespaces (mounts,
# processes, network), on which a newcomer installs, runs the demo to its first order, stops it, removes it, and
# installs what the tests need. Prints one line per step; the details are in target/fresh/.
#
#   scripts/fresh.sh [MACHINE...]     debian-12:root, debian-12:user, debian-13:root, debian-13:user; all by default
#
# The first of each runs as root, the second as a user with sudo. debian-12:root already has qemu-utils from backports,
# as some machines do. Not fresh are: Rust, which is lent from this machine (~/.cargo, ~/.rustup; nothing is written
# there); the kernel with its modules and limits; and the program, which is lent by INNKEEPER_BIN, or else built by the
# first machine for all of them: whether it builds as a user, or on Debian 13, only shows if that machine is run alone.
# Packages come from this machine's own mirror (or FRESH_MIRROR) and are cached across runs. Nothing is shared with this
# machine's Incus, and everything is removed in the end, however it ends.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

[ "$(id -u)" = 0 ] || exec sudo --preserve-env=HOME,INNKEEPER_BIN,INNKEEPER_CACHE,FRESH_MIRROR -- "$0" "$@"
machines=("$@")
[ $# -gt 0 ] || machines=(debian-{12,13}:{root,user})
for machine in "${machines[@]}"; do
    [[ $machine =~ ^debian-1[23]:(root|user)$ ]] || die "unknown machine $machine; see $0"
done
lock fresh || die "another \`make fresh\` is running"
cache=${INNKEEPER_CACHE:-$HOME/.cache/innkeeper}/fresh
logs=$ROOT/target/fresh
network=innkeeper-fresh
work=''
processes=()

# mirror main|security: Debian's archive as configured in apt here. A mirror has all releases.
mirror() {
    # shellcheck disable=SC2016 # these are apt's variables
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v security="$([ "$1" = main ] && echo 0 || echo 1)" \
            '$3 == "main" && $4 == "Debian" && ($2 ~ "-security$") == security && !n++ { print $1 }'
}

# tidy: ends the processes in the namespaces that we started, then removes everything else.
tidy() {
    local pid folder
    for pid in "${processes[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    processes=()
    ip netns delete "$network" 2>/dev/null || true
    # The cgroups of guests that were killed with everything else.
    find /sys/fs/cgroup -depth -type d -path "*/lxc.*$network*" -exec rmdir {} + 2>/dev/null || true
    for folder in "$work"/*:*/; do
        [ ! -d "$folder" ] || remove_tree "${folder%/}"
    done
}
end() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    tidy
    [ -z "$work" ] || remove_tree "$work"
    [ $code = 0 ] || say "FAILED (exit code $code)"
    exit $code
}

# system CODENAME FOLDER: creates a minimal system of that release.
system() {
    local codename=$1 root=$2 main security
    main=${FRESH_MIRROR:-$(mirror main)} security=$(mirror security)
    [ -n "$main" ] || die "no apt source here names a Debian mirror: name one in FRESH_MIRROR"
    mkdir -p "$cache/$codename"
    debootstrap --cache-dir="$cache/$codename" --variant=minbase --include=sudo,ca-certificates \
        "$codename" "$root" "$main"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\n' "$main" "$codename" "$codename"
        printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
        [ -z "$security" ] || printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\n%s\n' "$security" \
            "$codename" 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg'
    } >"$root/etc/apt/sources.list.d/debian.sources"
    rm -f "$root/etc/apt/sources.list"
    # Durability is not needed, and packages are unpacked in half the time.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
    printf '127.0.0.1 localhost fresh\n::1 localhost\n' >"$root/etc/hosts"
    echo fresh >"$root/etc/hostname"
    # slirp4netns provides DNS there.
    rm -f "$root/etc/resolv.conf"
    echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
}

# lend FOLDER: puts what the machine is lent, and the project, below the system's /opt.
lend() {
    local opt=$1/opt name certificates registries
    mkdir -p "$opt/project"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
        tar -C "$ROOT" --null -T - --ignore-failed-read -c 2>/dev/null | tar -C "$opt/project" -x
    if [ -x "$work/innkeeper" ]; then install -m 0755 "$work/innkeeper" "$opt/innkeeper"; fi
    # A proxy and trusted certificates: settings of this machine's network, not of the project.
    certificates='SSL_CERT_FILE|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|PIP_CERT|NODE_EXTRA_CA_CERTS'
    registries='PIP_INDEX_URL|npm_config_registry'
    for name in $(compgen -e | grep -iE "^((https?|no)_proxy|$certificates|$registries)\$"); do
        if [ -f "${!name}" ]; then
            cp -L "${!name}" "$opt/${!name##*/}"
            echo "$name=/opt/${!name##*/}"
        else
            echo "$name=${!name}"
        fi
    done >"$opt/environment"
}

# machine NAME: runs a whole visit in namespaces that end with it.
machine() {
    local name=$1 root=$work/$1 log=$logs/$1.log codename=bookworm
    [ "${name%:*}" != debian-13 ] || codename=trixie
    say "${name%:*}, ${name#*:}"
    : >"$log"
    timed "$log" 'bootstrap' system "$codename" "$root" || return 1
    lend "$root"
    ip netns add "$network" || return 1
    (
        close_locks
        exec slirp4netns --netns-type=path --configure --mtu=65520 --disable-host-loopback "/run/netns/$network" tap0
    ) </dev/null >>"$log" 2>&1 &
    processes+=($!)
    nsenter --net="/run/netns/$network" unshare --mount --propagation private --pid --fork --kill-child --uts --ipc -- \
        "$ROOT/scripts/fresh-machine.sh" "$root" "${name#*:}" "$codename" "$cache/$codename" "$HOME" "$log" </dev/null &
    processes+=($!)
    wait $! || return 1
    # If the machine has built a program, lend it to the next one.
    if [ ! -x "$work/innkeeper" ] && [ -x "$root/opt/built" ]; then cp "$root/opt/built" "$work/innkeeper"; fi
}

apt_install debootstrap slirp4netns iproute2 util-linux
for tool in cargo rustup; do [ -d "$HOME/.$tool" ] || die "$HOME/.$tool does not exist: install Rust first"; done
mkdir -p "$cache" "$logs"
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
work=$(mktemp -d /var/tmp/innkeeper-fresh.XXXXXX)
chmod 755 "$work"
if [ -n "${INNKEEPER_BIN:-}" ]; then install -m 0755 "$INNKEEPER_BIN" "$work/innkeeper"; fi
failed=()
for machine in "${machines[@]}"; do
    machine "$machine" || failed+=("$machine")
    tidy
done
[ ${#failed[@]} = 0 ] || die "failed on: ${failed[*]}; see $logs"
say "All succeeded. The logs are in $logs"
