"""Packs an initramfs (a gzipped newc archive) from unpacked Debian packages; it downloads nothing and needs no root.

It writes the archive itself, because cpio(1) is not on every machine and cannot make device nodes without root. The
same inputs give the same bytes: names are sorted, owners are 0, times are SOURCE_DATE_EPOCH (or 0).
Libraries and modules are found by reading the ELF files, so that neither readelf, ldd nor depmod is needed, and a
foreign architecture is no different from the machine's own.
"""

from __future__ import annotations

import argparse
import gzip
import io
import lzma
import os
import re
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("bin", "dev", "etc", "lib", "m", "mnt", "new_root", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin")
# Ours take precedence over the busybox applets of the same name, which know fewer options or none at all.
TOOLS = {
    "sbin/mke2fs": ("mke2fs", "mkfs.ext4"),
    "sbin/e2fsck": ("e2fsck", "fsck.ext4"),
    "sbin/sfdisk": ("sfdisk",),
    "sbin/mkfs.fat": ("mkfs.fat", "mkfs.vfat"),
}
# One question mark: kernels differ in whether they have it, or have it built in under another name.
MODULES = {
    # the file systems; ext4 asks for the crc32c algorithm by name, not as a symbol
    "common": "crc32c_generic ext4 vfat nls_cp437 nls_ascii nls_utf8 nls_iso8859-1 mmc_block",
    # QEMU's virt and q35 machines
    "virtual": "virtio_pci virtio_net sdhci-pci",
    "arm64": " ".join(
        [
            "phy-generic raspberrypi-power bcm2835-dma bcm2835 sdhci-iproc",  # Pi 3: USB power, card
            "dwc2 usbnet cdc_ether smsc microchip smsc95xx lan78xx",  # Pi 3 and 3+: network behind USB; QEMU's raspi3b
            "gpio-regulator broadcom mdio-bcm-unimac genet",  # Pi 4: the card's voltage, network
            "?macb ?bcm2835_wdt",  # Pi 5: network; all: the watchdog is what restarts a Pi
        ]
    ),
    "amd64": "",
}
MKE2FS_DEFAULTS = {
    "discard": "0",  # erasing a whole card first takes minutes, and gains nothing
    "lazy_itable_init": "1",
    "lazy_journal_init": "1",
}


class PackError(Exception):
    """The packages do not hold what an initramfs needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: the mode holds its kind, data its content or the target of a link."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


class Archive:
    """Files by path (without a leading slash); the folders above a file come by themselves."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def folder(self, path: str) -> None:
        while path and path not in self.entries:
            self.entries[path] = Entry(stat.S_IFDIR | 0o755)
            path = path.rpartition("/")[0]

    def put(self, path: str, entry: Entry) -> None:
        self.folder(path.rpartition("/")[0])
        self.entries[path] = entry

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.put(path, Entry(stat.S_IFREG | mode, data))

    def link(self, path: str, target: str) -> None:
        self.put(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def encode(self, mtime: int) -> bytes:
        """Return the newc archive; sorted, so a folder always precedes what is in it."""
        out = bytearray()
        records = [*sorted(self.entries.items()), ("TRAILER!!!", Entry(0))]
        for inode, (path, entry) in enumerate(records, start=1):
            name = path.encode() + b"\0"
            links = 2 if stat.S_ISDIR(entry.mode) else 1
            numbers = (inode, entry.mode, 0, 0, links, mtime, len(entry.data), 0, 0, *entry.device, len(name), 0)
            out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
            out += b"\0" * (-len(out) % 4)
            out += entry.data
            out += b"\0" * (-len(out) % 4)
        return bytes(out)


def needed_libraries(elf: bytes) -> tuple[list[str], str]:
    """Return the libraries a 64-bit little-endian ELF file names (DT_NEEDED), and its loader's path ("": static)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise PackError("not a 64-bit little-endian ELF file")
    try:
        return _read_dynamic(elf)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise PackError(f"a broken ELF file ({error})") from error


def _read_dynamic(elf: bytes) -> tuple[list[str], str]:
    (offset,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    loads, dynamic, loader = [], b"", ""
    for index in range(count):
        kind, _, start, address, _, length = struct.unpack_from("<IIQQQQ", elf, offset + index * size)
        if kind == 1:  # PT_LOAD
            loads.append((address, start, length))
        elif kind == 2:  # PT_DYNAMIC
            dynamic = elf[start : start + length]
        elif kind == 3:  # PT_INTERP
            loader = elf[start : start + length].rstrip(b"\0").decode()
    tags = list(struct.iter_unpack("<QQ", dynamic))
    table = next((value for tag, value in tags if tag == 5), 0)  # DT_STRTAB, an address
    strings = next((s + table - a for a, s, length in loads if a <= table < a + length), 0)
    names = [strings + value for tag, value in tags if tag == 1]  # DT_NEEDED
    return [elf[at : elf.index(b"\0", at)].decode() for at in names], loader


def busybox_applets(busybox: bytes) -> list[str]:
    """Return the applet names from busybox's own table, which cannot be asked of a foreign binary by running it."""
    start = busybox.find(b"\0[\0[[\0") + 1
    end = busybox.find(b"\0\0", start)
    names = busybox[start:end].decode("ascii", "replace").split("\0") if start and end > 0 else []
    if "sh" not in names or "switch_root" not in names:
        raise PackError("this busybox has no table of applets, or lacks sh or switch_root")
    return names


class Modules:
    """The modules of one unpacked kernel package, by their names with `_` for `-`."""

    def __init__(self, kernel: Path) -> None:
        versions = sorted((kernel / "lib/modules").iterdir()) if (kernel / "lib/modules").is_dir() else []
        if not versions:
            versions = sorted((kernel / "usr/lib/modules").glob("*"))
        if len(versions) != 1:
            raise PackError(f"{kernel}: expected one kernel version below lib/modules, found {len(versions)}")
        self.version = versions[0].name
        self.files = {self._name(path.name): path for path in versions[0].rglob("*.ko*")}
        builtin = versions[0] / "modules.builtin"
        self.builtin = {self._name(Path(line).name) for line in builtin.read_text().split()}

    @staticmethod
    def _name(file: str) -> str:
        return file.partition(".ko")[0].replace("-", "_")

    def read(self, name: str) -> bytes:
        path = self.files[name]
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data

    def in_load_order(self, wanted: list[str]) -> list[tuple[str, bytes]]:
        """Return (path in the archive, content) so that each comes after what it depends on."""
        order: dict[str, bytes] = {}

        def add(name: str, needed_by: str) -> None:
            optional = name.startswith("?")
            name = name.lstrip("?").replace("-", "_")
            if name in order or name in self.builtin:
                return
            if name not in self.files:
                if optional:
                    return
                raise PackError(f"kernel {self.version} has no module {name} (needed by {needed_by})")
            data = self.read(name)
            found = re.search(rb"\0depends=([^\0]*)\0", data)
            for dependency in found[1].decode().split(",") if found and found[1] else []:
                add(dependency, name)
            order[name] = data

        for name in wanted:
            add(name, "the list of modules")
        return [(f"lib/modules/{self.version}/{name}.ko", data) for name, data in order.items()]


def find_file(tree: Path, path: str) -> Path:
    """Find a path of an unpacked package, before or after the merge of / and /usr."""
    for candidate in (tree / path, tree / "usr" / path):
        if candidate.exists():
            return candidate
    raise PackError(f"the packages hold no {path}")


def find_library(tree: Path, name: str) -> Path:
    for path in sorted(tree.glob(f"**/{name}")):
        if "gconv" not in path.parts:
            return path
    raise PackError(f"the packages hold no library {name}")


def edit_mke2fs_conf(text: str) -> str:
    """Put our defaults first in [defaults]; the [fs_types] stay Debian's, as `mkfs.ext4` means nothing without."""
    lines = [line for line in text.splitlines() if line.split("=")[0].strip() not in MKE2FS_DEFAULTS]
    if "[defaults]" not in lines:
        raise PackError("mke2fs.conf has no section [defaults]")
    at = lines.index("[defaults]") + 1
    return "\n".join(
        [*lines[:at], *(f"\t{name} = {value}" for name, value in MKE2FS_DEFAULTS.items()), *lines[at:], ""]
    )


def add_tools(archive: Archive, tree: Path) -> None:
    """Put the formatting tools in, with every library they need; the loader goes where the tools expect it."""
    todo: list[str] = []
    for source, (name, *links) in TOOLS.items():
        data = find_file(tree, source).read_bytes()
        archive.file(f"sbin/{name}", data, 0o755)
        for link in links:
            archive.link(f"sbin/{link}", name)
        libraries, loader = needed_libraries(data)
        todo += libraries
        loader_file = find_library(tree, Path(loader).name)
        archive.file(loader.lstrip("/"), loader_file.read_bytes(), 0o755)
    while todo:
        name = todo.pop()
        if f"lib/{name}" not in archive.entries:
            data = find_library(tree, name).read_bytes()
            archive.file(f"lib/{name}", data, 0o755)
            todo += needed_libraries(data)[0]


def add_busybox(archive: Archive, tree: Path) -> None:
    data = find_file(tree, "bin/busybox").read_bytes()
    archive.file("bin/busybox", data, 0o755)
    ours = {path.rpartition("/")[2] for path in archive.entries}
    for name in busybox_applets(data):
        if name not in ours and name != "busybox":
            archive.link(f"bin/{name}", "busybox")


def build(arch: str, tree: Path, kernel: Path, files: dict[str, Path]) -> Archive:
    """Return the whole archive: tools, busybox, modules and our own scripts (archive path -> file)."""
    archive = Archive()
    for folder in FOLDERS:
        archive.folder(folder)
    # Most kernels carry a console in an archive of their own, but not all; without one, init is mute.
    archive.put("dev/console", Entry(stat.S_IFCHR | 0o600, device=(5, 1)))
    archive.put("dev/null", Entry(stat.S_IFCHR | 0o666, device=(1, 3)))
    add_tools(archive, tree)
    add_busybox(archive, tree)
    conf = find_file(tree, "etc/mke2fs.conf").read_text(encoding="utf-8")
    archive.file("etc/mke2fs.conf", edit_mke2fs_conf(conf).encode())
    wanted = f"{MODULES['common']} {MODULES['virtual']} {MODULES[arch]}".split()
    modules = Modules(kernel).in_load_order(wanted)
    for path, data in modules:
        archive.file(path, data)
    archive.file("etc/modload", "".join(f"/{path}\n" for path, _ in modules).encode())
    for path, file in files.items():
        archive.file(path, file.read_bytes(), 0o755)
    return archive


def write_gzip(data: bytes, output: Path) -> int:
    """Write it as `gzip -6 -n` would, by way of a temporary file: a TFTP client must never see half of it."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=packed, mtime=0) as stream:
        stream.write(data)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.write_bytes(packed.getvalue())
    temporary.replace(output)
    return len(packed.getvalue())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(";")[0] if __doc__ else None)
    parser.add_argument("--arch", required=True, choices=["arm64", "amd64"])
    parser.add_argument("--tree", required=True, type=Path, help="unpacked packages: busybox-static, e2fsprogs, ...")
    parser.add_argument("--kernel", required=True, type=Path, help="an unpacked kernel package")
    parser.add_argument("--file", action="append", default=[], metavar="FILE=PATH", help="an executable of ours")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args(arguments)
    files = {path.lstrip("/"): Path(file) for file, _, path in (pair.rpartition("=") for pair in options.file)}
    try:
        archive = build(options.arch, options.tree, options.kernel, files)
        mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
        size = write_gzip(archive.encode(mtime), options.output)
    except (PackError, OSError) as error:
        sys.stderr.write(f"cannot pack the initramfs: {error}\n")
        return 1
    modules = sum(path.endswith(".ko") for path in archive.entries)
    sys.stderr.write(f"{options.output}: {size} bytes, {modules} modules\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
