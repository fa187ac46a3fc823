# apt's packages: what is installed, what could be and from where, and installing it. Source it after lib.sh.
# shellcheck shell=bash

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

APT_UPDATED=${APT_UPDATED:-}
apt_update() {
    [ -z "$APT_UPDATED" ] || return 0
    say "Refreshing the package lists"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq -o DPkg::Lock::Timeout=300 >&2 ||
        warn "the package lists could not be refreshed; trying with those there are"
    APT_UPDATED=1
}

candidate() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

# suite_of PACKAGE VERSION: where that version comes from, or the next newer one that there is.
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

# sources_of PACKAGE: each version that apt knows of it, as VERSION SOURCE SOURCE-VERSION. The two versions differ for
# some: postgresql 15+248 is made from postgresql-common 248.
sources_of() {
    apt-cache show "$1" 2>/dev/null | awk '
        function flush() { if (version != "") print version, source == "" ? package : source, of == "" ? version : of
            version = source = of = "" }
        $1 == "Package:" { flush(); package = $2 }
        $1 == "Version:" { version = $2 }
        $1 == "Source:" { source = $2; of = $3; gsub("[()]", "", of) }
        END { flush() }'
}

# companions_suite PACKAGE: packages of one source go together. Where one is installed in a newer version than this
# package would come in, prints the suite that has this one in that version too; else nothing.
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
    [ -n "$suite" ] || warn "$1 goes with packages of $newest that are installed, and no apt source has it so new"
    echo "$suite"
}

# suite_with PACKAGE SOURCE-VERSION: where there is one that was made from that version, or the next newer one.
suite_with() {
    local version of oldest=''
    while read -r version _ of; do
        dpkg --compare-versions "$of" ge "$2" || continue
        if [ -z "$oldest" ] || dpkg --compare-versions "$version" lt "$oldest"; then oldest=$version; fi
    done < <(sources_of "$1")
    [ -z "$oldest" ] || suite_of "$1" "$oldest"
}

# backports: the suite with this release's backports, of the very mirror, with the very key, that this machine uses
# already. Nothing comes from there unless asked for. Fails where no source of this release is known.
backports() {
    local codename uri source=/etc/apt/sources.list.d/innkeeper-backports.sources
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # these are apt's variables
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx -- "$codename-backports"; then
        # shellcheck disable=SC2016 # these are apt's variables
        uri=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
            awk -F'|' -v r="$codename" '$2 == r && $3 == "main" && !found++ { print $1 }')
        [ -n "$uri" ] || return 1
        say "Adding $codename-backports of this machine's own mirror"
        {
            printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$uri" "$codename"
            signed_by "${uri%/}"
        } | as_root tee "$source" >/dev/null
        APT_UPDATED=''
        apt_update
    fi
    echo "$codename-backports"
}

# signed_by URI: the Signed-By field of the source that names this mirror, in either of apt's two styles.
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

# apt_install [-t SUITE] PACKAGE...: installs those that are missing, and says nothing when none is.
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

# apt_get SUITE PACKAGE...: from that suite, or from wherever apt prefers where SUITE is empty.
apt_get() {
    local options=() log
    [ -z "$1" ] || options=(-t "$1")
    shift
    say "Installing $*"
    log=$(mktemp)
    # apt tells its progress on a descriptor of its own, which it makes non-blocking: packages' scripts would fail
    # if they had to write there.
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
