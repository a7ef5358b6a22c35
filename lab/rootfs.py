"""Builds the lab's root file system: busybox and an init that answers on the network, 1 MB. No root needed.

With Debian's Python in it (8 MB) the real node agent runs in place of the script that stands in for it.

A virtual Pi installs this in seconds where a Debian takes a minute. What it does after the installer's switch_root:
DHCP once more (as any operating system would), a web page on port 80 that tells hostname, MAC and number of boots,
the agent's /events on port 3000, and a line `PIMAN-READY hostname address` on the console.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from collections.abc import Collection
from pathlib import Path

_AGENT = Path(__file__).resolve().parent.parent / "monitoring" / "monitoring_server.py"
_FOLDERS = "bin dev etc etc/init.d mnt opt opt/piman proc root run sbin sys tmp usr usr/bin usr/sbin var var/log www"
_APPLETS = """ash awk basename cat chmod cp cut date dd df dirname dmesg echo env expr false find free getty grep
gunzip gzip halt head hostname httpd id ifconfig insmod ip kill killall less ln login ls lsmod mkdir mknod mount mv nc
netstat pidof ping poweroff printf ps pwd reboot rm rmdir route sed sh sha256sum sleep sort stat stty sync tail tar tee
telnet test touch tr true tty udhcpc umount uname uptime vi wc wget which xargs"""

# 2020-01-01: tar complains about files from 1970, and a clock that was never set is nearer to this than to today.
_LONG_AGO = "1577836800"

_INITTAB = """::sysinit:/etc/init.d/rcS
::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
::shutdown:/bin/umount -a -r
"""

_RCS = """#!/bin/sh
# Brings the system up: file systems, network, the two small services.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mountpoint() { grep -q " $1 " /proc/mounts 2>/dev/null; }
[ -e /proc/mounts ] || mount -t proc proc /proc
mountpoint /sys || mount -t sysfs sysfs /sys
mountpoint /dev || mount -t devtmpfs dev /dev
mount -o remount,rw / 2>/dev/null
mount -t tmpfs tmpfs /run
hostname -F /etc/hostname
boots=$(($(cat /etc/boots 2>/dev/null || echo 0) + 1))
echo "$boots" >/etc/boots.new && mv /etc/boots.new /etc/boots && sync
interface=
tries=0
while [ -z "$interface" ] && [ $tries -lt 100 ]; do
    interface=$(ls /sys/class/net | grep -E '^(eth|en|usb)' | head -n 1)
    [ -n "$interface" ] || sleep 0.1
    tries=$((tries + 1))
done
ip link set lo up
httpd -p 80 -h /www
if [ -x /usr/bin/python3 ]; then
    # What QEMU has not, heat and a supply, is read from files below this folder; tests write them by the shell.
    PIMAN_AGENT_ROOT=/run/agent python3 /opt/piman/monitoring_server.py >/dev/console 2>&1 &
    nc -ll -p 3001 -e /bin/sh &
else
    nc -ll -p 3000 -e /etc/events.sh &
fi
ip link set "$interface" up
# The installer has left an address; this system asks for its own. No vendor class of ours: any Linux says `udhcp ...`.
# It goes to the background with the first lease, and renews from there.
udhcpc -i "$interface" -b -t 30 -T 1 -A 1 -s /etc/udhcpc.sh >/dev/null 2>&1
"""

_READY = """#!/bin/sh
# ready.sh INTERFACE: it has an address: writes the web page, and the first time says so on the console.
address=$(ip -4 -o addr show dev "$1" | awk '{ sub("/.*", "", $4); print $4; exit }')
[ -n "$address" ] || exit 0
name=$(hostname)
page="hostname=$name mac=$(cat "/sys/class/net/$1/address") address=$address boots=$(cat /etc/boots)"
echo "$page" >/www/index.html.new && mv /www/index.html.new /www/index.html
[ -e /run/ready ] && exit 0
touch /run/ready
echo "PIMAN-READY $name $address" >/dev/console
"""

_UDHCPC = """#!/bin/sh
# Called by udhcpc with what the server answered in the environment.
case $1 in
    deconfig)
        ip addr flush dev "$interface"
        ip link set "$interface" up
        ;;
    bound | renew)
        ip addr show dev "$interface" | grep -q "inet $ip/$mask " || {
            ip addr flush dev "$interface"
            ip addr add "$ip/$mask" dev "$interface"
        }
        if [ -n "$router" ]; then ip route replace default via "${router%% *}" dev "$interface"; fi
        : >/etc/resolv.conf.new
        for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf.new; done
        mv /etc/resolv.conf.new /etc/resolv.conf
        if [ -n "$hostname" ]; then hostname "$hostname"; fi
        /etc/ready.sh "$interface"
        ;;
esac
"""

# The five fields of monitoring_server.py, read from /proc; the processor's share is that of the last fifth of a second.
_EVENTS = """#!/bin/sh
# One HTTP request on stdin, one answer on stdout.
answer() {
    printf 'HTTP/1.0 %s\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%s' "$1" ${#2} "$2"
}
read -r method path rest
while read -r line && [ "${line%?}" ]; do :; done
case "$method $path" in
    "GET /events" | "GET /events/" | "GET /events?"*) ;;
    *)
        answer "404 Not Found" '{"error": "only /events is here"}'
        exit
        ;;
esac
ticks() { awk '/^cpu / { for (i = 2; i <= 9; i++) all += $i; print all, $5 + $6 }' /proc/stat; }
before=$(ticks)
sleep 0.2
cpu=$(echo "$before $(ticks)" | awk '{ d = $3 - $1; printf "%.1f", (d > 0) ? 100 * (d - ($4 - $2)) / d : 0 }')
memory=$(awk '/^MemTotal:/ { t = $2 } /^MemAvailable:/ { a = $2 }
    END { printf "%.1f", t ? 100 * (t - a) / t : 0 }' /proc/meminfo)
disk=$(df -P / | awk 'NR == 2 { printf "%.1f", ($3 + $4) ? 100 * $3 / ($3 + $4) : 0 }')
set -- /proc/[0-9]*
answer "200 OK" "$(printf '{"time": %s, "cpu_percent": %s, "memory_percent": %s, "disk_percent": %s, "num_pids": %s}' \\
    "$(date +%s)" "$cpu" "$memory" "$disk" $#)"
"""


class RootfsError(Exception):
    """The given file holds no busybox that could be used; the text says which file and why."""


def read_busybox(source: Path) -> bytes:
    """Return busybox from a file that is one, or from an initramfs.gz (gzipped newc archive) with /bin/busybox in it.

    Raises RootfsError where it is neither, OSError where it cannot be read.
    """
    data = source.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = _find_in_newc(gzip.decompress(data), b"bin/busybox")
        except (EOFError, ValueError, OSError) as error:
            raise RootfsError(f"{source}: not an initramfs with /bin/busybox ({error})") from error
    if data[:4] != b"\x7fELF":
        raise RootfsError(f"{source}: neither a busybox program nor an initramfs.gz")
    return data


def _find_in_newc(archive: bytes, wanted: bytes) -> bytes:
    """Return the content of one file of a newc archive; ValueError where it is not there or the archive is broken."""
    at = 0
    while archive[at : at + 6] == b"070701":
        size, name_size = int(archive[at + 54 : at + 62], 16), int(archive[at + 94 : at + 102], 16)
        start = at + 110 + name_size
        start += -start % 4
        if archive[at + 110 : at + 110 + name_size].rstrip(b"\0") == wanted:
            return archive[start : start + size]
        at = start + size
        at += -at % 4
    raise ValueError("no such file in it")


class _Tar:
    """A tar archive whose bytes depend on nothing but what is put in."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def _info(self, name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(f"./{name}")
        info.type, info.mode, info.uname, info.gname = kind, mode, "root", "root"
        info.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", _LONG_AGO))
        return info

    def folder(self, name: str, mode: int = 0o755) -> None:
        self._tar.addfile(self._info(name, tarfile.DIRTYPE, mode))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        info = self._info(name, tarfile.REGTYPE, mode)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def link(self, name: str, target: str) -> None:
        info = self._info(name, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._tar.addfile(info)

    def device(self, name: str, major: int, minor: int, mode: int) -> None:
        info = self._info(name, tarfile.CHRTYPE, mode)
        info.devmajor, info.devminor = major, minor
        self._tar.addfile(info)

    def tree(self, folder: Path, known: Collection[str]) -> None:
        """All that is below a folder; the folders `known` are there already."""
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                self.link(name, str(path.readlink()))
            elif path.is_dir():
                if name not in known:
                    self.folder(name)
            else:
                self.file(name, path.read_bytes(), path.stat().st_mode & 0o755)

    def gzipped(self) -> bytes:
        self._tar.close()
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=packed, mtime=0) as stream:
            stream.write(self._buffer.getvalue())
        return packed.getvalue()


def build_rootfs(
    busybox: Path, output: Path, name: str = "lab", python: Path | None = None, agent: Path = _AGENT
) -> None:
    """Write the root file system to `output` (.tgz), replaced at one stroke; the same inputs give the same bytes.

    `python` is a folder that python_tree.sh made; with it the agent is monitoring_server.py.

    `busybox` is a static busybox for the guest, or an initramfs.gz that holds one. `name` is the hostname for as long
    as DHCP gives no other, and makes two images differ. Raises RootfsError for a bad busybox or name, OSError where a
    file cannot be read or written.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise RootfsError(f"{name!r} is no hostname")
    program = read_busybox(busybox)
    tar = _Tar()
    for folder in _FOLDERS.split():
        tar.folder(folder, 0o1777 if folder == "tmp" else 0o755)
    # The installer moves its own /dev here; these are for a kernel that finds none.
    tar.device("dev/console", 5, 1, 0o600)
    tar.device("dev/null", 1, 3, 0o666)
    tar.file("bin/busybox", program, 0o755)
    for applet in _APPLETS.split():
        tar.link(f"bin/{applet}", "busybox")
    tar.link("sbin/init", "../bin/busybox")
    tar.link("sbin/reboot", "../bin/busybox")
    tar.file("etc/inittab", _INITTAB.encode())
    for path, script in {
        "etc/init.d/rcS": _RCS,
        "etc/ready.sh": _READY,
        "etc/udhcpc.sh": _UDHCPC,
        "etc/events.sh": _EVENTS,
    }.items():
        tar.file(path, script.encode(), 0o755)
    if python is not None:
        tar.tree(python, _FOLDERS.split())
        tar.file("opt/piman/monitoring_server.py", agent.read_bytes())
    tar.file("etc/hostname", f"{name}\n".encode())
    tar.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    tar.file("etc/group", b"root:x:0:\n")
    tar.file("www/index.html", b"starting\n")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.write_bytes(tar.gzipped())
    temporary.replace(output)
