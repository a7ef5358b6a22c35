#!/bin/sh
# The Pi's side of the hello protocol, version 2 (tcp/README.md): asks the manager what to do with the SD card, and does
# it. Run by init as `nc MANAGER 3333 -e /hello_protocol.sh`: standard input and output are the connection, standard
# error is the console. Busybox sh; it does only the four things it knows, and never runs a text that it was sent.
#
# It ends with a word in $RUN/hello.result for init: `boot` (the card is mounted on $NEW_ROOT) or `reboot SECONDS`.
# No file: the connection broke; init connects again. Power may fail at any byte: a card counts as installed only with
# the marker file, which is the last thing written, after the hash matched and everything else was on the card.
#
# From init: master (the manager's address). The paths below can be set for tests; so can PIMAN_LIBRARY, to take the
# functions without running anything.

set -u -f # -f: words that were sent must not become file names
export LC_ALL=C
CARD=${CARD:-/dev/mmcblk0}
RUN=${RUN:-/run}
MOUNT=${MOUNT:-/m}
NEW_ROOT=${NEW_ROOT:-/new_root}
SYS=${SYS:-/sys}
DEVICE_TREE=${DEVICE_TREE:-/proc/device-tree}
master=${master:-}
WORK=$RUN/hello
START=$RUN/hello.start # the beginning of what is looked at
DISK_ID=0x50494d4e # "PIMN": tells our partition table from a stranger's
DISK_ID_BYTES=4e4d4950
STALL=60 # seconds without a byte of the image

note() { echo "piman: $*" >&2; }

say() {
    # A manager that is gone is noticed here: SIGPIPE is ignored, so that the unpacking is never left running alone.
    printf '%s\n' "$*" 2>/dev/null || lost
}

lost() {
    note "the connection to the manager broke"
    clean
    exit 1
}

result() { echo "$*" >"$RUN/hello.result"; }

give_up() { # STEP WORDS...: tell the manager and start over
    note "failed: $*"
    clean
    result reboot 10
    say "ERROR $*"
    exit 0
}

clean() { # stop what still unpacks, let go of the card
    for each in nc tee tar sum count; do
        if [ -s "$WORK/$each.pid" ]; then
            read -r pid <"$WORK/$each.pid"
            kill "$pid" 2>/dev/null
        fi
    done
    rm -rf "$WORK"
    let_go "$MOUNT"
    let_go "$NEW_ROOT"
}

let_go() { # unmount, waiting for what was just killed; nothing where nothing is mounted
    tries=30
    until umount "$1" 2>/dev/null || [ $tries -eq 0 ] || ! grep -q " $1 " /proc/mounts; do
        tries=$((tries - 1))
        sleep 0.1
    done
}

# --- values that came over the wire or from the card --------------------------------------------------------------------

is_name() { case $1 in '' | *[!A-Za-z0-9._-]*) return 1 ;; esac; [ ${#1} -le 128 ]; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; [ ${#1} -le 15 ]; }
is_hash() { case $1 in '' | *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq 64 ]; }

one_word() { # a file's text as a value: blanks to _, printable ASCII, no NUL
    tr '\0' '\n' <"$1" 2>/dev/null | head -n 1 | tr ' ' '_' | tr -cd '!-~'
}

# --- who we are ---------------------------------------------------------------------------------------------------------

is_block() { [ -b "$1" ]; }
card_name() { echo "${CARD##*/}"; }

card_sectors() { # of 512 bytes; 0 without a card
    sectors=0
    [ -r "$SYS/block/$(card_name)/size" ] && read -r sectors <"$SYS/block/$(card_name)/size"
    is_number "$sectors" || sectors=0
    echo "$sectors"
}

our_mac() { # of the interface that init brought up, else of the first that there is
    for each in ${interface:-} eth0 $(ls "$SYS/class/net" 2>/dev/null); do
        [ "$each" != lo ] && [ -r "$SYS/class/net/$each/address" ] && cat "$SYS/class/net/$each/address" && return
    done
    return 1
}

hello() {
    serial= model=
    [ -r "$DEVICE_TREE/serial-number" ] && serial=$(one_word "$DEVICE_TREE/serial-number")
    [ -n "$serial" ] || serial=$(sed -n 's/^Serial[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1 | tr -cd '0-9a-f')
    [ ${#serial} -gt 8 ] && serial=${serial#"${serial%????????}"} # the eight digits that the boot ROM uses
    [ -r "$DEVICE_TREE/model" ] && model=$(one_word "$DEVICE_TREE/model")
    say "HELLO 2 mac=$(our_mac) serial=$serial model=$model sd=$(($(card_sectors) * 512))"
}

# --- what the card holds ------------------------------------------------------------------------------------------------

part() { echo "${CARD}p$1"; }

bytes_at() { # DEVICE OFFSET COUNT -> hex digits
    dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null | hexdump -v -e '1/1 "%02x"'
}

read_start() { # DEVICE: its first 68 KB to $START. Ends it all where they cannot be read: that must not pass for empty
    dd if="$1" of="$START" bs=4096 count=17 2>/dev/null && return
    sleep 1 # an error may pass
    dd if="$1" of="$START" bs=4096 count=17 2>/dev/null || give_up card "cannot be read"
}

has_our_id() { read_start "$CARD"; [ "$(bytes_at "$START" 440 4)" = $DISK_ID_BYTES ]; }
holds_ext() { read_start "$1"; [ "$(bytes_at "$START" 1080 2)" = 53ef ]; } # DEVICE: ext2, 3, 4

holds_linux() { # DEVICE: is there a file system (or a container of one) that somebody's Linux lives on?
    holds_ext "$1" && return 0
    [ "$(bytes_at "$START" 0 4)" = 58465342 ] && return 0            # XFS
    [ "$(bytes_at "$START" 65600 8)" = 5f42485266535f4d ] && return 0 # btrfs
    [ "$(bytes_at "$START" 1024 4)" = 1020f5f2 ] && return 0         # f2fs
    [ "$(bytes_at "$START" 0 6)" = 4c554b53babe ] && return 0        # LUKS
    [ "$(bytes_at "$START" 512 8)" = 4c4142454c4f4e45 ] && return 0  # LVM
    return 1
}

find_kind() { # sets kind: none, piman, foreign or blank
    kind=none
    is_block "$CARD" || return
    kind=piman
    has_our_id && return
    kind=foreign
    holds_linux "$CARD" && return
    for each in 1 2 3 4 5 6 7 8 9 10 11 12; do
        is_block "$(part $each)" && holds_linux "$(part $each)" && return
    done
    kind=blank
}

is_ours() { # our partition table, or, where the installed system gave it another id, our marker; changes nothing
    has_our_id && return 0
    mount -t ext4 -o ro,noload "$(part 2)" "$MOUNT" || return 1
    [ -f "$MOUNT/.piman" ]
    found=$?
    umount "$MOUNT"
    return $found
}

repair() { # DEVICE: replay the journal, mend what a power cut left; fails where it cannot be mended
    command -v e2fsck >/dev/null 2>&1 || return 0
    e2fsck -p "$1" >&2
    [ $? -lt 4 ] && return 0
    e2fsck -y "$1" >&2
    [ $? -lt 4 ]
}

has_init() { [ -x "$1/sbin/init" ] || [ -L "$1/sbin/init" ]; } # absolute links point outside of the mount

installed() { # sets image and order from the marker file; the card is not mounted afterwards
    image= order= sha256=
    is_block "$(part 2)" && holds_ext "$(part 2)" || return 1
    mkdir -p "$MOUNT"
    is_ours && repair "$(part 2)" || return 1 # a stranger's file system is not mended either
    mount -t ext4 -o ro "$(part 2)" "$MOUNT" || return 1
    if [ -f "$MOUNT/.piman" ] && ! [ -e "$MOUNT/.piman.unfinished" ] && has_init "$MOUNT"; then
        while IFS='=' read -r key value; do
            case $key in
                image) is_name "$value" && image=$value ;;
                order) is_name "$value" && order=$value ;;
                sha256) is_hash "$value" && sha256=$value ;;
            esac
        done <"$MOUNT/.piman"
    fi
    umount "$MOUNT"
    [ -n "$image" ] && [ -n "$sha256" ]
}

look_at_card() {
    # A card of ours is formatted without an order, so it gets a second look: a partition that is late, an e2fsck, a
    # mount or a marker that failed may do better. What is torn for good, by a power cut in mkfs say, is formatted.
    if installed || { is_block "$CARD" && has_our_id && sleep 1 && installed; }; then
        say "IS_INSTALLED image=$image order=$order"
    else
        find_kind
        say "IS_UNINSTALLED card=$kind"
    fi
}

# --- format -------------------------------------------------------------------------------------------------------------

partition() { # p1 for firmware, should the card ever boot by itself; p2 takes what is left
    sectors=$(card_sectors)
    [ "$sectors" -ge 131072 ] || give_up card "a card of $((sectors / 2048)) MB is too small"
    boot=256
    [ "$sectors" -ge 2097152 ] || boot=32
    printf 'label: dos\nlabel-id: %s\nsize=%sMiB, type=c\ntype=83\n' $DISK_ID $boot |
        sfdisk --quiet --wipe always --wipe-partitions always "$CARD" >&2 || give_up format "the card cannot be partitioned"
    tries=50
    until is_block "$(part 1)" && is_block "$(part 2)"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || give_up format "the new partitions do not appear"
        sleep 0.1
    done
}

make_file_systems() {
    # Whatever stood here, even an older install of ours with its marker, is gone from this write on.
    dd if=/dev/zero of="$(part 2)" bs=65536 count=16 conv=notrunc 2>/dev/null && sync || give_up format "the card cannot be written"
    command -v mkdosfs >/dev/null 2>&1 && { mkdosfs -n BOOT "$(part 1)" >&2 || note "partition 1 got no file system"; }
    # No discard: SD cards take minutes for it. The tables and the journal are initialised lazily; stale blocks of an
    # older journal are told apart by metadata_csum, whose seed is the new file system's UUID.
    mkfs.ext4 -q -F -L rootfs -O metadata_csum -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 "$(part 2)" >&2 ||
        give_up format "mkfs.ext4 failed"
    mkdir -p "$MOUNT"
    mount -t ext4 "$(part 2)" "$MOUNT" || give_up mount "the new file system does not mount"
    # An image made from a Pi that was installed by us brings that one's marker along, before all else is there.
    : >"$MOUNT/.piman.unfinished" || give_up mount "the new file system takes no file"
}

my_pid() { read -r pid rest </proc/self/stat; echo "$pid" >"$WORK/$1.pid"; } # of the subshell it is called in: no $$

unpack() { # PORT: image port -> $MOUNT, its hash in $WORK/sum, its length in $WORK/count
    (
        my_pid sum
        exec sha256sum <"$WORK/to_sum" >"$WORK/sum"
    ) &
    sum=$!
    (
        my_pid count
        exec wc -c <"$WORK/to_count" >"$WORK/count"
    ) &
    count=$!
    (
        # </dev/null: nc would take the manager's commands from the connection that is our standard input
        (my_pid nc && exec nc "$master" "$1" </dev/null) |
            (my_pid tee && exec tee "$WORK/to_sum" "$WORK/to_count") |
            (
                (my_pid tar && exec tar xzf - -C "$MOUNT") >&2 2>"$WORK/said"
                echo $? >"$WORK/status"
                cat >/dev/null # padding behind the archive belongs to the hash
            )
        : >"$WORK/received"
    ) </dev/null >/dev/null &
    receiving=$!
}

taken() { # bytes of the image that went through so far; nothing where the kernel does not count them
    [ -s "$WORK/tee.pid" ] || return
    read -r pid <"$WORK/tee.pid"
    while read -r key value; do
        [ "$key" = rchar: ] && echo "$value" && return
    done 2>/dev/null <"/proc/$pid/io"
}

watch() { # tell the progress once a second until the image is through, or nothing has come for a minute
    last= ticks=0 still=0
    until [ -e "$WORK/received" ]; do
        sleep 0.2
        ticks=$(((ticks + 1) % 5))
        [ $ticks -eq 0 ] || continue
        now=$(taken)
        if [ -n "$now" ] && [ "$now" != "$last" ]; then
            last=$now still=0
            say "PROGRESS $now"
        else
            still=$((still + 1))
            [ $still -lt $STALL ] || [ -z "$now" ] || give_up image "nothing came for $STALL seconds"
        fi
    done
    wait $receiving $sum $count
}

take_image() { # checks what came: first whether it was all, then whether it was right, then whether it fitted
    rm -rf "$WORK"
    mkdir -p "$WORK"
    mkfifo "$WORK/to_sum" "$WORK/to_count"
    unpack "$port"
    watch
    came=0 computed= rest= status=1
    read -r came <"$WORK/count"
    read -r computed rest <"$WORK/sum"
    read -r status <"$WORK/status"
    said=$(tail -n 1 "$WORK/said")
    rm -rf "$WORK" # with the numbers of processes that are gone
    [ "$came" = "$size" ] || give_up image "$came of $size bytes came"
    [ "$computed" = "$sha256" ] || give_up hash "the image's SHA-256 is $computed"
    [ "$status" = 0 ] || give_up unpack "${said:-tar failed}; is the card full or the image damaged?"
    has_init "$MOUNT" || give_up unpack "the image has no /sbin/init"
}

write_marker() { # all else first, the marker last, and only as a whole
    sync
    printf 'image=%s\nsha256=%s\norder=%s\n' "$1" "$2" "$3" >"$MOUNT/.piman.new" || return 1
    sync
    mv "$MOUNT/.piman.new" "$MOUNT/.piman" || return 1
    sync
    rm "$MOUNT/.piman.unfinished" || return 1
    sync
    umount "$MOUNT"
}

format() { # KEY=VALUE...
    image= size= sha256= port= order=
    for each in "$@"; do
        case $each in
            image=*) image=${each#*=} ;;
            size=*) size=${each#*=} ;;
            sha256=*) sha256=${each#*=} ;;
            port=*) port=${each#*=} ;;
            order=*) order=${each#*=} ;;
        esac
    done
    is_name "$image" && is_number "$size" && is_hash "$sha256" && is_number "$port" ||
        give_up format "the command is not complete"
    [ -z "$order" ] || is_name "$order" || give_up format "the order is malformed"
    say RECEIVED_FORMAT
    is_block "$CARD" || give_up card "there is no card"
    let_go "$MOUNT"
    say FORMATTING
    partition
    make_file_systems
    say FORMATTED
    note "takes image $image ($size bytes)"
    take_image
    say "IMAGE_OK sha256=$computed"
    wanted_image=$image wanted_order=$order
    write_marker "$image" "$computed" "$order" || give_up unpack "the marker cannot be written"
    # Read it all back from the card before saying so.
    installed && [ "$image" = "$wanted_image" ] && [ "$order" = "$wanted_order" ] ||
        give_up unpack "the card does not hold what was written"
    note "installed $image"
    say "IS_FORMATTED image=$image order=$order"
}

# --- the other commands -------------------------------------------------------------------------------------------------

set_date() { # YYYY-MM-DD HH:MM:SS, UTC
    case "$*" in
        [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]' '[0-9][0-9]:[0-9][0-9]:[0-9][0-9]) ;;
        *) note "not a date"; return ;;
    esac
    date -u -s "$*" >/dev/null || note "the clock cannot be set"
    say SET_DATE
    look_at_card
}

boot() {
    say RECEIVED_BOOT
    mkdir -p "$NEW_ROOT"
    mount -t ext4 "$(part 2)" "$NEW_ROOT" || give_up mount "partition 2 does not mount"
    has_init "$NEW_ROOT" || give_up mount "there is no /sbin/init on the card"
    result boot
    exit 0
}

refuse() {
    note "the manager refuses: $(printf '%s' "$*" | tr -cd ' -~' | head -c 200)"
    result reboot 30
    exit 0
}

next_command() { # sets command to the one line before EOM; fails at the end of the connection
    command= lines=0
    while IFS= read -r -t 180 line; do
        if [ "$line" = EOM ]; then
            [ $lines -eq 1 ] || command= # all our commands have one line
            return 0
        fi
        lines=$((lines + 1)) command=
        [ ${#line} -le 4096 ] && command=$line
    done
    return 1
}

main() {
    trap '' PIPE
    rm -f "$RUN/hello.result"
    clean
    hello
    while next_command; do
        set -- $command
        case ${1:-} in
            date) shift && set_date "$@" ;;
            format) shift && format "$@" ;;
            boot) [ $# -eq 1 ] && boot ;;
            refuse) shift && refuse "$@" ;;
        esac # anything else is not for us
    done
    lost
}

[ -n "${PIMAN_LIBRARY:-}" ] || main
