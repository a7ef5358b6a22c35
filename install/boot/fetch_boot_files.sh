#!/bin/bash
# fetch_boot_files.sh [--output DIR] [--no-firmware] [--refresh]
# Fetches what a Pi downloads before our installer runs, from Debian's packages: the kernel (kernel8.img), the device
# trees, and the firmware of Pi 3 and 4. Does nothing when all is there; --refresh asks Debian for newer packages.
# --output: another folder than this script's; the templates config.txt and cmdline.txt are copied there if it has none.
# --no-firmware: kernel and device trees only (enough for a virtual Pi in QEMU, and for a Pi 5).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../debian.sh
. "$HERE/../debian.sh"

output=$HERE
firmware=yes
while [ $# != 0 ]; do
    case $1 in
        --output) [ $# -ge 2 ] || die "--output needs a folder"; output=$2; shift ;;
        --no-firmware) firmware=no ;;
        --refresh) export PIMAN_REFRESH=1 ;;
        -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) say "usage: $(basename "$0") [--output DIR] [--no-firmware] [--refresh]"; exit 2 ;;
    esac
    shift
done
stamp=$output/.boot_files # a line firmware=yes|no, then the files of the last complete run

# is_complete: the last run fetched what is wanted now, and nobody has removed a file since.
is_complete() {
    local name
    [ -s "$stamp" ] || return 1
    [ "$firmware" = no ] || grep -qx firmware=yes "$stamp" || return 1
    while read -r name; do [ -s "$output/$name" ] || return 1; done < <(tail -n +2 "$stamp")
}

# put FILE NAME: copies it into the folder at one stroke; a Pi may be asking for it now.
put() {
    cp -- "$1" "$output/.$2.new"
    chmod 644 "$output/.$2.new"
    mv -f -- "$output/.$2.new" "$output/$2"
    names+=("$2")
}

# copy_templates: a boot folder elsewhere needs them too; one that is there may have been edited, and stays.
copy_templates() {
    local name
    mkdir -p "$output"
    for name in config.txt cmdline.txt; do
        [ -e "$output/$name" ] || cp -- "$HERE/$name" "$output/$name"
    done
}

fetch_kernel() {
    local kernel dtb name
    kernel=$(debian_kernel arm64) || exit 1
    # A third of the bytes over TFTP; 64-bit kernels may be compressed.
    gzip -6 -n -c "$kernel"/boot/vmlinuz-* >"$work/kernel8.img"
    put "$work/kernel8.img" kernel8.img
    for dtb in "$kernel"/usr/lib/linux-image-*/broadcom/bcm2{837,711,712}*.dtb; do
        [ -e "$dtb" ] || continue
        name=$(basename "$dtb")
        put "$dtb" "$name"
        # The firmware asks for Raspberry Pi's own names; upstream Linux calls the same boards otherwise.
        case $name in
            bcm2837-rpi-cm3-io3.dtb) put "$dtb" bcm2710-rpi-cm3.dtb ;;
            bcm2837-*) put "$dtb" "bcm2710-${name#bcm2837-}" ;;
        esac
    done
}

fetch_firmware() {
    local deb file
    if ! deb=$(debian_packages arm64 download raspi-firmware); then
        say "The firmware of Pi 3 and 4 could not be had: package raspi-firmware, component non-free-firmware of Debian."
        say "Kernel and device trees are in $output. For the firmware, copy bootcode.bin, start*.elf and fixup*.dat"
        say "from the first partition of a Raspberry Pi OS card into that folder, then run with --no-firmware."
        exit 1
    fi
    unpack_debs "$work/firmware" "$deb"
    for file in "$work"/firmware/usr/lib/raspi-firmware/{bootcode.bin,start*.elf,fixup*.dat}; do
        put "$file" "$(basename "$file")"
    done
}

fetch() {
    local -a names=()
    fetch_kernel
    [ "$firmware" = no ] || fetch_firmware
    { printf 'firmware=%s\n' "$firmware"; printf '%s\n' "${names[@]}"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "$output: ${#names[@]} boot files"
    # Modules load only into the kernel they were built for.
    [ -z "${PIMAN_REFRESH:-}" ] || say "Now build the initramfs again: install/initram/create_initramfs.gz.sh"
}

copy_templates
if [ -z "${PIMAN_REFRESH:-}" ] && is_complete; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
with_cache fetch
