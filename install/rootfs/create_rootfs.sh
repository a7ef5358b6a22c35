#!/bin/bash
# create_rootfs.sh (--password WORD | --ssh-key FILE) [--kernel] [--output FILE] [--refresh]
# Builds a minimal Debian for the Pi's card, arm64 (install/boot/rootfs.tgz): systemd, network by DHCP, the time from the
# manager, ssh with host keys of its own, the node agent on port 3000, and a user `pi` who may use sudo.
#   --password WORD  the password of pi          --ssh-key FILE  a public key that may log in as pi (both: both)
#   --kernel         with all modules of Debian's kernel, for wireless, sound and what is plugged in (+90 MB)
#   --refresh        build again, from newer packages; otherwise a file made with the same options is kept
# Takes 2 to 5 minutes on a PC, where the Pi's programs run in QEMU; needs root, or user namespaces.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../debian.sh
. "$HERE/../debian.sh"

PACKAGES=(systemd-sysv udev dbus systemd-timesyncd systemd-resolved openssh-server sudo python3 python3-psutil
    iproute2 iputils-ping kmod less)
AGENT=$HERE/../../monitoring/monitoring_server.py
BINFMT=/proc/sys/fs/binfmt_misc

output=$HERE/../boot/rootfs.tgz
password='' ssh_key='' kernel=no
while [ $# != 0 ]; do
    case $1 in
        --password | --ssh-key | --output)
            [ -n "${2:-}" ] || { say "$1 needs a value"; exit 2; }
            case $1 in --password) password=$2 ;; --ssh-key) ssh_key=$2 ;; *) output=$2 ;; esac
            shift
            ;;
        --kernel) kernel=yes ;;
        --refresh) export PIMAN_REFRESH=1 ;;
        -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) say "unknown: $1 (see $(basename "$0") --help)"; exit 2 ;;
    esac
    shift
done
[ -n "$password$ssh_key" ] || { say "say how to log in: --password WORD or --ssh-key FILE"; exit 2; }
[ -z "$ssh_key" ] || ssh_key_text=$(grep -E '^(ssh-|ecdsa-|sk-)' -- "$ssh_key") || die "$ssh_key holds no public key"
case $password in *$'\n'*) die "a password has one line" ;; esac

# options_hash: what the file depends on, so that the second run knows that it is done. Kept in the cache and not beside
# the file, as that folder is open to the network and a short password could be guessed from it.
options_hash() {
    { printf '%s\n' "$kernel" "$password" "${ssh_key_text:-}" "${PACKAGES[@]}"; cat "$0" "$AGENT" "$HERE/piman-agent.service"; } | sha256sum | cut -d' ' -f1
}

# write_overlay FOLDER: the files that make this Debian a Pi of ours.
write_overlay() {
    mkdir -p "$1"/etc/{systemd/network,systemd/system,sudoers.d,ssh/sshd_config.d} "$1/opt/piman"
    printf 'LABEL=rootfs / ext4 defaults,noatime 0 1\n' >"$1/etc/fstab"
    cat >"$1/etc/systemd/network/20-wired.network" <<'UNIT'
[Match]
Name=en* eth*

[Network]
DHCP=ipv4

[DHCPv4]
# The same identifier as the boot ROM and the installer use, so that all three get one lease.
ClientIdentifier=mac
# DHCP option 42: the manager is the clock, as a Pi has none.
UseNTP=yes
UseDomains=yes
# The name comes with systemd.hostname= on the kernel's command line.
UseHostname=no
UNIT
    cp "$HERE/piman-agent.service" "$1/etc/systemd/system/piman-agent.service"
    cat >"$1/etc/systemd/system/piman-ssh-keys.service" <<'UNIT'
[Unit]
Description=Host keys of ssh, made on the first boot
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
ExecStartPost=/bin/sync

[Install]
WantedBy=multi-user.target
UNIT
    cp "$AGENT" "$1/opt/piman/monitoring_server.py"
    # Without a password, sudo has nothing to ask for.
    [ -n "$password" ] || printf 'pi ALL=(ALL) NOPASSWD: ALL\n' >"$1/etc/sudoers.d/pi"
    [ -z "$ssh_key" ] || printf '%s\n' "$ssh_key_text" >"$1/opt/piman/authorized_keys"
    chmod -R u=rwX,go=rX "$1"
}

# write_hooks FOLDER: the scripts that mmdebstrap runs on the empty and on the finished tree, its path their argument.
write_hooks() {
    cat >"$1/setup" <<'HOOK'
#!/bin/sh
set -eu
mkdir -p "$1/var/cache/apt/archives/partial" "$1/var/lib/apt/lists/partial"
cp "$PIMAN_WORK"/archives/*.deb "$1/var/cache/apt/archives/"
cp "$PIMAN_WORK"/lists/* "$1/var/lib/apt/lists/"
HOOK
    cat >"$1/customize" <<'HOOK'
#!/bin/sh
set -eu
cp -r --no-preserve=ownership "$PIMAN_WORK/overlay/." "$1/"
# Keys made here would be the same on every Pi; so would the machine-id. An empty machine-id is filled at boot; a missing one
# would start the questions of a first boot, which nobody answers.
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1"/etc/.resolv.conf.systemd-resolved.bak
: >"$1/etc/machine-id"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$1/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
chroot "$1" useradd --create-home --shell /bin/bash --groups sudo,adm pi
if [ -n "$PIMAN_PASSWORD" ]; then printf 'pi:%s\n' "$PIMAN_PASSWORD" | chroot "$1" chpasswd; fi
if [ -e "$1/opt/piman/authorized_keys" ]; then
    chroot "$1" install -d -o pi -g pi -m 700 /home/pi/.ssh
    chroot "$1" install -o pi -g pi -m 600 /opt/piman/authorized_keys /home/pi/.ssh/authorized_keys
    rm "$1/opt/piman/authorized_keys"
fi
[ ! -e "$1/etc/sudoers.d/pi" ] || chmod 440 "$1/etc/sudoers.d/pi"
chroot "$1" systemctl enable -q systemd-networkd systemd-resolved systemd-timesyncd ssh piman-agent piman-ssh-keys
for version in "$1"/lib/modules/*; do
    if [ -d "$version" ]; then chroot "$1" depmod "${version##*/}"; fi
done
HOOK
    chmod 755 "$1/setup" "$1/customize"
}

# can_run_arm64: the kernel starts arm64 programs, by itself or through QEMU.
can_run_arm64() {
    [ "$(dpkg --print-architecture)" = arm64 ] || grep -qs '^enabled' "$BINFMT/qemu-aarch64"
}

# register_arm64: what binfmt-support would do, where it or systemd-binfmt is not at work; undone when the script ends.
register_arm64() {
    [ "$(id -u)" = 0 ] || die "this machine does not start arm64 programs; run: sudo systemctl restart systemd-binfmt"
    [ -e "$BINFMT/register" ] || { mount -t binfmt_misc binfmt_misc "$BINFMT" && mounted=yes; } ||
        die "cannot mount binfmt_misc, so arm64 programs cannot run here"
    # Flag F keeps the interpreter open, so that it is found inside the new tree too.
    printf '%s' ':qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:FPOC' \
        >"$BINFMT/register" || die "cannot register QEMU for arm64 programs"
    registered=yes
}

clean_up() {
    [ -z "${registered:-}" ] || echo -1 >"$BINFMT/qemu-aarch64" || true
    [ -z "${mounted:-}" ] || umount "$BINFMT" || true
    rm -rf -- "$work" "$output.new"
}

# prepare: all downloads, into the cache.
prepare() {
    local list deb
    # What mmdebstrap's variant minbase takes by itself, and ours.
    list=$(debian_packages arm64 install '?essential' '?priority(required)' apt "${PACKAGES[@]}") || exit 1
    mkdir -p "$work/archives" "$work/lists"
    xargs -d '\n' cp --reflink=auto -t "$work/archives" <<<"$list"
    cp "$(private_tree arm64)"/sources/machine.sources "$work/machine.sources"
    find "$(private_tree arm64)/lists" -maxdepth 1 -type f ! -name lock -exec cp -t "$work/lists" {} +
    if [ "$kernel" = yes ]; then
        deb=$(debian_packages arm64 kernel linux-image-arm64) || exit 1
        dpkg-deb --fsys-tarfile "$deb" | tar -C "$work/overlay" -x --no-same-owner ./lib/modules
        # A tree with merged /usr has a link in place of /lib.
        mkdir -p "$work/overlay/usr/lib" && mv "$work/overlay/lib/modules" "$work/overlay/usr/lib/" && rmdir "$work/overlay/lib"
    fi
}

bootstrap() {
    local mode=unshare
    [ "$(id -u)" != 0 ] || mode=root
    say "Building Debian $(debian_release) for arm64 (minutes) ..."
    # The package lists and packages are there already: apt has nothing to fetch.
    PIMAN_WORK=$work PIMAN_PASSWORD=$password mmdebstrap --quiet --mode="$mode" --architectures=arm64 --variant=minbase \
        --format=tar --include="$(IFS=,; printf '%s' "${PACKAGES[*]}")" --skip=update,check/empty \
        --setup-hook="$work/setup" --customize-hook="$work/customize" \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$(debian_release)" - "$work/machine.sources" | gzip -6 -n >"$output.new"
}

stamp=$PIMAN_CACHE_DIR/rootfs/$(realpath -m -- "$output" | tr / _)
if [ -z "${PIMAN_REFRESH:-}" ] && [ -s "$output" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(options_hash)" ]; then
    say "$output is there already, made with these options (--refresh builds it again)"
    exit 0
fi
"$HERE/../need.sh" mmdebstrap arch-test
[ "$(dpkg --print-architecture)" = arm64 ] || "$HERE/../need.sh" qemu-user-static
mkdir -p "$(dirname "$output")"
work=$(mktemp -d)
chmod 755 "$work" # without root, mmdebstrap reads it under another user id
trap clean_up EXIT
can_run_arm64 || register_arm64
write_overlay "$work/overlay"
write_hooks "$work"
with_cache prepare
bootstrap || die "mmdebstrap failed; nothing was changed"
mv "$output.new" "$output"
mkdir -p "$(dirname "$stamp")"
(umask 077 && options_hash >"$stamp")
say "$output: $(stat -c %s "$output") bytes"
