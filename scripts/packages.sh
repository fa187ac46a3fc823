# apt packages: what is installed, what is available and from where, and installing them. Source it after lib.sh.
# shellcheck shell=bash

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

APT_UPDATED=${APT_UPDATED:-}
apt_update() {
    [ -z "$APT_UPDATED" ] || return 0
    say "Refreshing the package lists"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq -o DPkg::Lock::Timeout=300 >&2 ||
        warn "the package lists could not be refreshed; continuing with the existing ones"
    APT_UPDATED=1
}

candidate() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

# suite_of PACKAGE VERSION: the suite with that version, or with the next newer one.
suite_of() {
    local version where suite=''
    # apt lists the newest first.
    while IFS='|' read -r _ version where; do
        read -r version <<<"$version"
        dpkg --compare-versions "$version" ge "$2" || break
        suite=$(awk '$3 != "Sources" { sub("/.*", "", $2); print $2 }' <<<"$where")
    done < <(apt-cache madison "$1" 2>/dev/null)
    echo "$suite"
}

# sources_of PACKAGE: each version that apt knows of it, as VERSION SOURCE SOURCE-VERSION. The two versions can differ:
# postgresql 15+248 is built from postgresql-common 248.
sources_of() {
    apt-cache show "$1" 2>/dev/null | awk '
        function flush() { if (version != "") print version, source == "" ? package : source, of == "" ? version : of
            version = source = of = "" }
        $1 == "Package:" { flush(); package = $2 }
        $1 == "Version:" { version = $2 }
        $1 == "Source:" { source = $2; of = $3; gsub("[()]", "", of) }
        END { flush() }'
}

# companions_suite PACKAGE: packages of one source must match. If one is installed in a newer version than this package
# would be, prints the suite that has this package in that version; otherwise nothing.
companions_suite() {
    local source have newest='' version suite
    read -r source have < <(sources_of "$1" | awk -v v="$(candidate "$1")" '$1 == v { print $2, $3; exit }') || return 0
    while read -r version; do
        if [ -z "$newest" ] || dpkg --compare-versions "$version" gt "$newest"; then newest=$version; fi
    done < <(dpkg-query -W -f '${db:Status-Status} ${source:Package} ${source:Version}\n' |
        awk -v source="$source" '$1 == "installed" && $2 == source { print $3 }')
    if [ -z "$newest" ] || dpkg --compare-versions "$newest" le "$have"; then return; fi
    suite=$(suite_with "$1" "$newest")
    if [ -z "$suite" ] && backports >/dev/null; then suite=$(suite_with "$1" "$newest"); fi
    [ -n "$suite" ] || warn "$1 must match installed packages of version $newest, but no apt source has that version"
    echo "$suite"
}

# suite_with PACKAGE SOURCE-VERSION: the suite with a package built from that version, or from the next newer one.
suite_with() {
    local version of oldest=''
    while read -r version _ of; do
        dpkg --compare-versions "$of" ge "$2" || continue
        if [ -z "$oldest" ] || dpkg --compare-versions "$version" lt "$oldest"; then oldest=$version; fi
    done < <(sources_of "$1")
    [ -z "$oldest" ] || suite_of "$1" "$oldest"
}

# backports: the suite with this release's backports, using the same mirror and key as this machine's sources. Nothing
# comes from it unless requested. Fails if no source of this release is known.
backports() {
    local codename uri source=/etc/apt/sources.list.d/innkeeper-backports.sources
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # these are apt's variables
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx -- "$codename-backports"; then
        # shellcheck disable=SC2016 # these are apt's variables
        uri=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
            awk -F'|' -v r="$codename" '$2 == r && $3 == "main" && !found++ { print $1 }')
        [ -n "$uri" ] || return 1
        say "Adding $codename-backports from this machine's mirror"
        {
            printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$uri" "$codename"
            signed_by "${uri%/}"
        } | as_root tee "$source" >/dev/null
        APT_UPDATED=''
        apt_update
    fi
    echo "$codename-backports"
}

# signed_by URI: the Signed-By field of the source with this mirror, in either of apt's two formats.
signed_by() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        awk -v uri="$1" '
            function flush() { if (hit && key != "") { printf "%s", key; exit } hit = 0; key = ""; inkey = 0 }
            /^[[:space:]]*$/ { flush(); next }
            /^[^[:space:]#]/ { inkey = tolower($1) == "signed-by:" }
            inkey { key = key $0 "\n" }
            tolower($1) == "uris:" { for (i = 2; i <= NF; i++) { u = $i; sub("/$", "", u); if (u == uri) hit = 1 } }
            END { if (hit) printf "%s", key }' "$file"
    done | awk 'NR == 1 || /^[[:space:]]/ { print; next } { exit }'
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        grep -E "^deb .*$1/? " "$file" | sed -n 's/.*signed-by=\([^] ]*\).*/Signed-By: \1/p' || true
    done | head -n 1
}

# apt_install [-t SUITE] PACKAGE...: installs those that are missing; silent if there are none.
apt_install() {
    local suite='' missing=() package own
    if [ "$1" = -t ]; then
        suite=$2
        shift 2
    fi
    for package in "$@"; do has_package "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    apt_update
    if [ -n "$suite" ]; then
        apt_get "$suite" "${missing[@]}"
        return
    fi
    local plain=()
    for package in "${missing[@]}"; do
        own=$(companions_suite "$package")
        if [ -n "$own" ]; then apt_get "$own" "$package"; else plain+=("$package"); fi
    done
    [ ${#plain[@]} = 0 ] || apt_get '' "${plain[@]}"
}

# apt_get SUITE PACKAGE...: from that suite, or from apt's preferred one if SUITE is empty.
apt_get() {
    local options=() log
    [ -z "$1" ] || options=(-t "$1")
    shift
    say "Installing $*"
    log=$(mktemp)
    # apt reports its progress on a separate descriptor, which it makes non-blocking: packages' scripts would fail if
    # they had to write to it.
    # shellcheck disable=SC2016 # the inner shell expands it
    if as_root sh -c 'exec "$@" 3>&1 1>&2' sh env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install -qq -y --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o APT::Status-Fd=3 \
        -o Dpkg::Options::=--force-confold "${options[@]}" "$@" </dev/null 2>"$log" | apt_progress; then
        rm -f "$log"
    else
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*"
    fi
}

apt_progress() {
    local kind package percent rest
    while IFS=: read -r kind package percent rest; do
        case $kind in
        dlstatus) progress "$((${percent%%.*} / 2))" "${rest}" ;;
        pmstatus) progress "$((50 + ${percent%%.*} / 2))" "${rest}" ;;
        esac
    done
    progress 100 ready
}
