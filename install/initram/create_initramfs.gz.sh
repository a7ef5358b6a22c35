#!/bin/bash
# create_initramfs.gz.sh [arm64|amd64] [--output FILE] [--refresh]
# Builds the installer that a Pi boots into (install/boot/initramfs.gz): busybox, mkfs.ext4, sfdisk and the kernel modules
# from Debian's packages, with our init and hello_protocol.sh. The same packages and scripts give the same bytes.
# --refresh asks Debian for newer packages; otherwise what an earlier run downloaded is used, and no network is needed.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../debian.sh
. "$HERE/../debian.sh"

arch=arm64
output=$HERE/../boot/initramfs.gz
while [ $# != 0 ]; do
    case $1 in
        arm64 | amd64) arch=$1 ;;
        --output) [ $# -ge 2 ] || die "--output needs a file"; output=$2; shift ;;
        --refresh) export PIMAN_REFRESH=1 ;;
        -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) say "usage: $(basename "$0") [arm64|amd64] [--output FILE] [--refresh]"; exit 2 ;;
    esac
    shift
done

build() {
    local kernel list
    local -a debs
    list=$(debian_packages "$arch" install busybox-static e2fsprogs fdisk dosfstools) || exit 1
    mapfile -t debs <<<"$list"
    kernel=$(debian_kernel "$arch") || exit 1
    unpack_debs "$work" "${debs[@]}"
    python3 "$HERE/pack_initramfs.py" --arch "$arch" --tree "$work" --kernel "$kernel" \
        --file "$HERE/init=/init" --file "$HERE/hello_protocol.sh=/hello_protocol.sh" --output "$output"
}

for script in init hello_protocol.sh; do [ -s "$HERE/$script" ] || die "$HERE/$script is missing"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
with_cache build
