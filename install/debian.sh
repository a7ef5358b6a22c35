# shellcheck shell=bash
# debian.sh: Debian packages as files, for any architecture, without root and without touching /etc or the machine's
# own package lists. To be sourced. What it downloads stays in a cache, so that a second run downloads nothing and
# works with no network; PIMAN_REFRESH=1 asks the archive again.

INSTALL_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PIMAN_RUN=$$-$EPOCHREALTIME # names this run, also in the subshells below
PIMAN_CACHE_DIR=${PIMAN_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/piman}

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# with_cache COMMAND...: runs it alone in the cache. Two builds at once would unpack over one another.
with_cache() {
    mkdir -p "$PIMAN_CACHE_DIR" || die "cannot write $PIMAN_CACHE_DIR (set PIMAN_CACHE to a folder that can be written)"
    (flock 9 && "$@") 9>"$PIMAN_CACHE_DIR/lock"
}

# debian_release: the machine's release, such as bookworm; the private tree takes packages of the same one.
debian_release() {
    # shellcheck source=/dev/null
    (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}")
}

# private_tree ARCH: prints the folder of the private apt tree of that architecture.
private_tree() { printf '%s\n' "$PIMAN_CACHE_DIR/debian/$(debian_release)-$1"; }

# write_private_tree ARCH: makes the tree from the machine's own apt sources and settings (proxies, keys, passwords).
write_private_tree() {
    local tree list parts
    tree=$(private_tree "$1")
    mkdir -p "$tree"/{lists/partial,archives/partial,sources,none/partial,sets}
    list=$(apt-config shell FILE Dir::Etc::sourcelist/f | sed -n "s/^FILE='\(.*\)'$/\1/p")
    parts=$(apt-config shell DIR Dir::Etc::sourceparts/d | sed -n "s/^DIR='\(.*\)'$/\1/p")
    python3 "$INSTALL_DIR/apt_sources.py" "$(debian_release)" "$list" "$parts"/*.list "$parts"/*.sources \
        >"$tree/sources/machine.sources"
    [ -s "$tree/sources/machine.sources" ] ||
        die "no apt source of Debian $(debian_release) with component main found in $list or $parts"
    # The machine's hooks after an update or an install are about its own state, so they are left out.
    {
        apt-config dump | grep -Ev '^(APT::Architectures?|APT::Update|APT::Never|DPkg|Acquire::Languages)\b' || true
        cat <<CONF
APT::Architecture "$1";
APT::Architectures { "$1"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages { "none"; };
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$tree/sources";
Dir::State::lists "$tree/lists";
Dir::State::status "$tree/status";
Dir::State::extended_states "$tree/extended_states";
Dir::Cache::archives "$tree/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
    } >"$tree/apt.conf"
    : >"$tree/status" # nothing is installed: every dependency counts
}

# update_private_tree ARCH: fetches the package lists, once per run of a script.
update_private_tree() {
    local tree log
    tree=$(private_tree "$1")
    [ "$(cat "$tree/updated-by" 2>/dev/null)" != "$PIMAN_RUN" ] || return 0
    write_private_tree "$1"
    log=$tree/update.log
    say "Reading the package lists of Debian $(debian_release) for $1 ..."
    APT_CONFIG=$tree/apt.conf apt-get -q update >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; die "apt could not read the package lists; nothing was changed"; }
    printf '%s\n' "$PIMAN_RUN" >"$tree/updated-by"
}

# resolve_set ARCH VERB LIST PACKAGE...: downloads what is missing, and writes LIST (sha256sum form) when all is there.
resolve_set() {
    local arch=$1 verb=$2 list=$3 tree name
    local -a names=()
    shift 3
    tree=$(private_tree "$arch")
    update_private_tree "$arch"
    export APT_CONFIG=$tree/apt.conf
    local -a packages=("$@")
    if [ "$verb" = kernel ]; then
        # The package with the plain name holds nothing but a dependency on the newest kernel, whose number moves.
        mapfile -t packages < <(apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ ${#packages[@]} = 1 ] || die "package $1 names no kernel"
        verb=download
    fi
    apt-get -qq -y -o Dir::Cache::archives="$tree/none" --print-uris "$verb" "${packages[@]}" >"$tree/uris" 2>"$tree/uris.log" ||
        { say "apt knows no such package for $arch: ${packages[*]}"; tail -n 3 "$tree/uris.log" >&2; return 1; }
    mapfile -t names < <(awk '{ print $2 }' "$tree/uris" | sort)
    [ ${#names[@]} != 0 ] || die "apt named no file for ${packages[*]}"
    local missing=0
    for name in "${names[@]}"; do [ -s "$tree/archives/$name" ] || missing=$((missing + 1)); done
    if [ "$missing" != 0 ]; then
        say "Downloading $missing Debian packages for $arch ..."
        if [ "$verb" = install ]; then
            apt-get -qq -y --download-only install "${packages[@]}" >"$tree/download.log" 2>&1
        else
            (cd "$tree/archives" && apt-get -qq download "${packages[@]}") >"$tree/download.log" 2>&1
        fi || { tail -n 3 "$tree/download.log" >&2; return 1; }
    fi
    (cd "$tree/archives" && sha256sum -- "${names[@]}") >"$list.new" || return 1
    mv "$list.new" "$list"
}

# debian_packages ARCH VERB PACKAGE...: prints the paths of .deb files, one a line. VERB is `install` (with all they depend
# on, counted from nothing), `download` (just these) or `kernel` (the kernel that this package stands for).
# Returns 1, with the reason on stderr, when the archive has no such package.
debian_packages() {
    local arch=$1 verb=$2 tree list
    shift 2
    tree=$(private_tree "$arch")
    list=$tree/sets/$(printf '%s ' "$verb" "$@" | tr -c 'a-z0-9.+\n' '_' | cut -c1-150).sha256
    if [ -n "${PIMAN_REFRESH:-}" ] || [ ! -s "$list" ] ||
        ! (cd "$tree/archives" && sha256sum --status -c "$list") 2>/dev/null; then
        # A file that was cut short must not be taken for the package.
        [ ! -s "$list" ] || (cd "$tree/archives" && LC_ALL=C sha256sum -c "$list" 2>/dev/null |
            sed -n 's/: FAILED.*//p' | xargs -r rm -f --) || true
        mkdir -p "$tree/sets"
        (resolve_set "$arch" "$verb" "$list" "$@") || return 1
    fi
    sed "s|^[0-9a-f]*  |$tree/archives/|" "$list"
}

# unpack_debs FOLDER DEB...: unpacks them over one another; owners and modes of the packages do not matter here.
unpack_debs() {
    local folder=$1 deb
    shift
    mkdir -p "$folder"
    for deb in "$@"; do
        dpkg-deb --fsys-tarfile "$deb" | tar -C "$folder" -x --no-same-owner --exclude=./dev || die "cannot unpack $deb"
    done
}

# debian_kernel ARCH: prints the folder of the unpacked kernel package (boot/, lib/modules/, usr/lib/linux-image-*).
# Kept in the cache: unpacking takes longer than all else. What an installer has no use for is left out, to save space.
debian_kernel() {
    local deb folder
    deb=$(debian_packages "$1" kernel "linux-image-$1") || return 1
    folder=$(private_tree "$1")/kernels/$(basename "$deb" .deb)
    if [ ! -d "$folder" ]; then
        say "Unpacking $(basename "$deb") ..."
        rm -rf "$folder.new"
        mkdir -p "$folder.new"
        dpkg-deb --fsys-tarfile "$deb" | tar -C "$folder.new" -x --no-same-owner --wildcards \
            --exclude='*/kernel/drivers/'{gpu,media,infiniband,scsi,staging,iio,hwmon} --exclude='*/kernel/sound' \
            --exclude='*/drivers/net/wireless' || die "cannot unpack $deb"
        mv "$folder.new" "$folder"
    fi
    printf '%s\n' "$folder"
}
