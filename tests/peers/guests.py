"""The tests' small Linux guests, from Debian's packages: a bridge with tc's netem, a system with systemd-networkd.

`python -m tests.peers.guests` fetches and packs them, which has to be done before the tests' world without a network
begins. A guest is Debian's arm64 kernel, the one that the virtual Pis boot too, and an initramfs with busybox and the
programs it is for; its init takes a command a line on the console.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from lab.rack import cache_directory

_INSTALL = Path(__file__).resolve().parents[2] / "install"

# Prints the kernel's folder, then the packages; the third word is the folder to unpack them to, if any.
_FETCH = """
set -euo pipefail
. "$1/debian.sh"
fetch() {
    local list
    local -a debs
    debian_kernel arm64 || exit 1
    list=$(debian_packages arm64 install busybox-static iproute2 systemd) || exit 1
    printf '%s\\n' "$list"
    mapfile -t debs <<<"$list"
    [ -z "$tree" ] || unpack_debs "$tree" "${debs[@]}"
}
tree=$2
with_cache fetch
"""

_INIT = """#!/bin/busybox sh
# What is typed is not echoed; the end of each command is told.
/bin/busybox mount -t proc proc /proc
export PATH=/sbin:/bin
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
stty -echo
while read -r module; do insmod "$module"; done </etc/modload
ip link set lo up
echo GUEST-READY
while read -r line; do
    eval "$line"
    echo "GUEST-ENDED $?"
done
poweroff -f
"""

_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nsystemd-network:x:998:998::/:/bin/false\n",
    "etc/group": "root:x:0:\nsystemd-network:x:998:\n",
    "etc/machine-id": "",
}


@dataclass(frozen=True, slots=True)
class Guest:
    """What is packed into one initramfs; `programs` are paths in the packages."""

    name: str
    programs: tuple[str, ...]
    modules: str

    @property
    def kernel(self) -> Path:
        return _folder() / "kernel"

    @property
    def initramfs(self) -> Path:
        return _folder() / f"{self.name}.cpio"


NETEM = Guest("netem", ("sbin/tc", "bin/ip"), "virtio_pci virtio_net bridge sch_netem")
NETWORKD = Guest("networkd", ("lib/systemd/systemd-networkd", "bin/networkctl", "bin/ip"), "virtio_pci virtio_net")
GUESTS = (NETEM, NETWORKD)


def _folder() -> Path:
    return cache_directory() / "guests"


def _packer() -> ModuleType:
    """install/initram/pack_initramfs.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("pack_initramfs", _INSTALL / "initram" / "pack_initramfs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _fetch(tree: str = "") -> list[str]:
    words = ["bash", "-c", _FETCH, "guests.py", str(_INSTALL), tree]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit("the packages of the tests' guests could not be had (see above)")
    return done.stdout.split()


def _pack(pack: ModuleType, guest: Guest, tree: Path, kernel: Path) -> bytes:
    archive = pack.Archive()
    for folder in pack.FOLDERS:
        archive.folder(folder)
    todo: list[str] = []
    for program in guest.programs:
        data = pack.find_file(tree, program).read_bytes()
        archive.file(f"sbin/{Path(program).name}", data, 0o755)
        libraries, loader = pack.needed_libraries(data)
        archive.file(loader.lstrip("/"), pack.find_library(tree, Path(loader).name).read_bytes(), 0o755)
        todo += libraries
    while todo:
        name = todo.pop()
        if f"lib/{name}" not in archive.entries:
            data = pack.find_library(tree, name).read_bytes()
            archive.file(f"lib/{name}", data, 0o755)
            todo += pack.needed_libraries(data)[0]
    pack.add_busybox(archive, tree)
    modules = pack.Modules(kernel).in_load_order(guest.modules.split())
    for path, data in modules:
        archive.file(path, data)
    archive.file("etc/modload", "".join(f"/{path}\n" for path, _ in modules).encode())
    for path, text in _FILES.items():
        archive.file(path, text.encode())
    archive.put("dev/console", pack.Entry(0o20600, device=(5, 1)))
    archive.file("init", _INIT.encode(), 0o755)
    packed: bytes = archive.encode(0)
    return packed


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def prepare() -> None:
    """Fetch and pack what is missing or old. The second time there is nothing to do."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    kernel, *packages = _fetch()
    key = "\n".join([kernel, *packages, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()])
    stamp = folder / ".stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return
    stamp.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as work:
        _fetch(work)
        pack = _packer()
        for guest in GUESTS:
            # Not compressed: unpacking is what an emulated processor would spend most of its start on.
            _replace(guest.initramfs, _pack(pack, guest, Path(work), Path(kernel)))
    (image,) = (Path(kernel) / "boot").glob("vmlinuz-*")
    _replace(NETEM.kernel, image.read_bytes())
    stamp.write_text(key, encoding="utf-8")


if __name__ == "__main__":
    prepare()
