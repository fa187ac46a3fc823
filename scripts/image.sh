#!/usr/bin/env bash
# The image that guests are created from: this machine's own distribution, minimal, from this machine's own mirror.
#
#   scripts/image.sh PROJECT     builds it if it isn't cached, imports it into that Incus project if needed,
#                                and prints IMAGE_ALIAS and IMAGE_NAME as NAME=VALUE
#
# The cache is $INNKEEPER_CACHE, else innkeeper/ in the user's cache folder. INNKEEPER_IMAGE_REFRESH=1 forces a rebuild.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/incusd.sh
source "$(dirname "$0")/incusd.sh"

project=${1:?usage: $0 PROJECT}
enter_group "$0" "$@"
recipe=$ROOT/scripts/image-rootfs.sh
# shellcheck disable=SC1091
read -r id version codename name < <(. /etc/os-release && echo "$ID $VERSION_ID ${VERSION_CODENAME:-} $NAME")
[ -n "$codename" ] || die "this system's release has no codename, so no image of it can be built"
alias=innkeeper/$id-$version
title="${name%% *} $version"
key=$codename-$(dpkg --print-architecture)-$(sha256sum <"$recipe" | cut -c1-16)
cache=${INNKEEPER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/innkeeper}
built=$cache/image-$key

# debootstrap prints about this many lines here; the progress bar follows them.
EXPECTED_LINES=740

build() {
    local mirror
    # A killed build leaves its folder behind; the lock ensures that no other build is running.
    as_root find /var/tmp -maxdepth 1 -name 'innkeeper-image.*' -print0 |
        while IFS= read -r -d '' work; do remove_tree "$work"; done
    # shellcheck disable=SC2016 # these are apt's variables
    mapfile -t targets < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v r="$codename" '$3 == "main" && ($2 == r || $2 == r "-updates" || $2 == r "-security")')
    # A password in a mirror's URL is this machine's secret, and must not get into customers' guests.
    if printf '%s\n' "${targets[@]}" | grep -qE '^[a-z+]+://[^/ ]*@'; then
        die "apt's source of $codename has a password in its URL: move it to /etc/apt/auth.conf.d"
    fi
    mirror=$(printf '%s\n' "${targets[@]}" | awk -v r="$codename" '$2 == r && !n++ { print $1 }')
    [ -n "$mirror" ] || die "no apt source has the main archive of $codename, so the image can't be built"
    say "Building the image $title (once; about a minute)"
    mkdir -p "$cache"
    work=$(as_root mktemp -d /var/tmp/innkeeper-image.XXXXXX)
    trap 'remove_tree "$work"' EXIT
    trap 'exit 130' INT TERM HUP
    printf 'deb %s\n' "${targets[@]}" >"$cache/sources.list"
    if ! as_root "$recipe" "$work/rootfs" "$codename" "$mirror" "$cache/sources.list" 2>&1 </dev/null |
        tee "$cache/build.log" | lines_progress; then
        tail -n 20 "$cache/build.log" >&2
        die "the image could not be built; the full log is $cache/build.log"
    fi
    progress 92 'packing'
    as_root mksquashfs "$work/rootfs" "$work/rootfs.squashfs" -comp lz4 -noappend -quiet -no-progress >/dev/null 2>&1
    metadata >"$cache/metadata.yaml"
    rm -rf "$built.new"
    mkdir "$built.new"
    tar -C "$cache" --owner=0 --group=0 -cJf "$built.new/metadata.tar.xz" metadata.yaml
    as_root cat "$work/rootfs.squashfs" >"$built.new/rootfs.squashfs"
    cat "$built.new/metadata.tar.xz" "$built.new/rootfs.squashfs" | sha256sum | cut -d' ' -f1 >"$built.new/fingerprint"
    rm -rf "$built"
    mv "$built.new" "$built"
    find "$cache" -maxdepth 1 -name "image-$codename-*" ! -name "image-$key" -exec rm -rf {} +
    remove_tree "$work"
    trap - EXIT INT TERM HUP
    progress 100 "$(du -h "$built/rootfs.squashfs" | cut -f1) $built"
}

lines_progress() {
    local line count=0
    while read -r line; do
        count=$((count + 1))
        progress $((count * 90 / EXPECTED_LINES > 90 ? 90 : count * 90 / EXPECTED_LINES)) "${line#I: }"
    done
}

metadata() {
    cat <<END
architecture: $(uname -m)
creation_date: $(date +%s)
properties:
  description: $title
  os: $id
  release: $codename
  serial: $(date +%Y%m%d)
  name: $alias
  recipe: $key
END
}

# Prints the fingerprint behind our alias in the project, and the recipe that it was built with.
current() {
    incus query "/1.0/images/aliases/${alias//\//%2F}?project=$project" 2>/dev/null | jq -r .target 2>/dev/null
}
current_recipe() { incus query "/1.0/images/$1?project=$project" 2>/dev/null | jq -r .properties.recipe 2>/dev/null; }

import() {
    local fingerprint before
    fingerprint=$(cat "$built/fingerprint")
    before=$(current || true)
    [ "$before" != "$fingerprint" ] || return 0
    say "Importing the image $title into Incus"
    if ! incus --project "$project" image show "$fingerprint" >/dev/null 2>&1; then
        incus --project "$project" image import "$built/metadata.tar.xz" "$built/rootfs.squashfs" --quiet >&2
    fi
    [ -z "$before" ] || incus --project "$project" image alias delete "$alias" >&2
    incus --project "$project" image alias create "$alias" "$fingerprint" >/dev/null
    # Delete the previous image: guests created from it have their own disks.
    [ -z "$before" ] || incus --project "$project" image delete "$before" >&2 || true
}

lock image wait
work=''
# Another user's cache may have filled the project already, so the recipe decides.
if [ "${INNKEEPER_IMAGE_REFRESH:-}" = 1 ] || [ "$(current_recipe "$(current || true)" || true)" != "$key" ]; then
    if [ ! -s "$built/fingerprint" ] || [ "${INNKEEPER_IMAGE_REFRESH:-}" = 1 ]; then build; fi
    import
fi
printf 'IMAGE_ALIAS=%s\nIMAGE_NAME=%s\n' "$alias" "$title"
