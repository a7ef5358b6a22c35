"""The scripts of install/: clean, honest about misuse, and what they build from the package cache is right.

Building needs the packages in the cache, as the network is out of reach here; tests/run.sh fills it beforehand.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

INSTALL = Path(__file__).resolve().parent.parent / "install"
SCRIPTS = ["debian.sh", "boot/fetch_boot_files.sh", "initram/create_initramfs.gz.sh", "rootfs/create_rootfs.sh"]


def load(path: str) -> ModuleType:
    """Import one of the programs beside the scripts; they are no package, as a script runs them by their path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, INSTALL / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


apt_sources = load("apt_sources.py")
pack = load("initram/pack_initramfs.py")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, **environment},
    )


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("PIMAN_CACHE") or f"{base}/piman")


# Scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_clean(script: str) -> None:
    assert run("bash", "-n", INSTALL / script).stderr == ""
    checked = run("shellcheck", "-x", INSTALL / script)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_help_and_misuse(script: str) -> None:
    shown = run(INSTALL / script, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith(Path(script).name)
    assert "#" not in shown.stdout.splitlines()[0]
    assert run(INSTALL / script, "--frobnicate").returncode == 2
    assert run(INSTALL / script, "--output").returncode in (1, 2)


def test_create_rootfs_wants_a_way_to_log_in(tmp_path: Path) -> None:
    script = INSTALL / "rootfs/create_rootfs.sh"
    refused = run(script, "--output", tmp_path / "out")
    assert refused.returncode == 2
    assert "--password" in refused.stderr
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    refused = run(script, "--ssh-key", tmp_path / "key", "--output", tmp_path / "out")
    assert refused.returncode == 1
    assert "no public key" in refused.stderr
    assert run(script, "--password", "two\nlines", "--output", tmp_path / "out").returncode == 1


# Templates


def test_cmdline_is_one_line_with_known_placeholders() -> None:
    text = (INSTALL / "boot/cmdline.txt").read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert set(re.findall(r"\{([^}]*)\}", text)) <= {"server_address", "hostname", "address", "mac"}
    assert "master={server_address}" in text.split()
    assert "ttyAMA0" not in text


def test_config_txt_is_short_and_loads_what_is_fetched() -> None:
    data = (INSTALL / "boot/config.txt").read_bytes()
    assert len(data) < 4096
    lines = [line for line in data.decode("ascii").splitlines() if line and not line.startswith("#")]
    assert {"arm_64bit=1", "kernel=kernel8.img", "initramfs initramfs.gz followkernel"} <= set(lines)
    assert not any(line.startswith(("device_tree", "dtoverlay")) for line in lines)


# apt_sources.py

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://mirror.example/other
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/extra
Suites: bookworm
Components: contrib

Types: deb-src
URIs: http://mirror.example/source
Suites: bookworm
Components: main
"""


def test_deb822_keeps_keys_and_drops_what_is_not_debian() -> None:
    assert apt_sources.rewrite_deb822(DEB822, "bookworm") == [
        (
            "types: deb\nuris: http://mirror.example/debian\nsuites: bookworm bookworm-updates\n"
            "components: main non-free-firmware\n"
            "signed-by: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
        )
    ]


@pytest.mark.parametrize(
    ("line", "stanza"),
    [
        (
            "deb http://m/debian bookworm main",
            "types: deb\nuris: http://m/debian\nsuites: bookworm\ncomponents: main non-free-firmware\n",
        ),
        (
            "deb [ arch=amd64 signed-by=/k/a.gpg,/k/b.gpg trusted=no ] http://m/d stable-security main contrib # note",
            (
                "types: deb\nuris: http://m/d\nsuites: stable-security\ncomponents: main non-free-firmware\n"
                "signed-by: /k/a.gpg /k/b.gpg\ntrusted: no\n"
            ),
        ),
        ("# deb http://m/debian bookworm main", None),
        ("deb-src http://m/debian bookworm main", None),
        ("deb http://m/debian bookworm contrib", None),
        ("deb http://m/debian bookworm-backports main", None),
        ("deb http://m/debian trixie main", None),
        ("deb http://m/cloud cloud-sdk-bookworm main", None),
        ("deb http://m/flat ./", None),
        ("deb cdrom:[Debian 12]/ bookworm main", None),
        ("", None),
    ],
)
def test_one_line_sources(line: str, stanza: str | None) -> None:
    assert apt_sources.rewrite_one_line(line, "bookworm") == ([stanza] if stanza else [])


def test_rewrite_takes_both_forms_each_entry_once(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("deb http://m/debian bookworm main\ndeb http://m/debian bookworm main contrib\n")
    (tmp_path / "b.sources").write_text(DEB822)
    text = apt_sources.rewrite([tmp_path / "none", tmp_path / "a.list", tmp_path / "b.sources"], "bookworm")
    assert text.count("types: deb\n") == 2
    assert text.count("\n\n") == 1


@given(st.text())
def test_any_text_is_no_error(text: str) -> None:
    for parse in (apt_sources.rewrite_deb822, apt_sources.rewrite_one_line):
        for stanza in parse(text, "bookworm"):
            assert "components: main non-free-firmware\n" in stanza


# pack_initramfs.py


def test_applets_come_from_busyboxs_own_table() -> None:
    table = b"junk\0[\0[[\0ash\0sh\0switch_root\0zcat\0\0more"
    assert pack.busybox_applets(table) == ["[", "[[", "ash", "sh", "switch_root", "zcat"]
    for wrong in (b"", b"\0[\0[[\0ash\0\0", b"\0[\0[[\0sh\0switch_root"):
        with pytest.raises(pack.PackError, match="busybox"):
            pack.busybox_applets(wrong)


def test_mke2fs_conf_gets_our_defaults_and_keeps_the_types() -> None:
    text = "[defaults]\n\tblocksize = 4096\n\tdiscard = 1\n[fs_types]\n\text4 = {\n\t\tinode_size = 256\n\t}\n"
    assert pack.edit_mke2fs_conf(text) == (
        "[defaults]\n\tdiscard = 0\n\tlazy_itable_init = 1\n\tlazy_journal_init = 1\n\tblocksize = 4096\n"
        "[fs_types]\n\text4 = {\n\t\tinode_size = 256\n\t}\n"
    )
    with pytest.raises(pack.PackError, match="defaults"):
        pack.edit_mke2fs_conf("[fs_types]\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    base = tmp_path / "kernel/lib/modules/6.1.0-0-arm64"
    (base / "kernel/deep").mkdir(parents=True)
    (base / "modules.builtin").write_text("kernel/drivers/mmc_block.ko\nkernel/fs/nls-base.ko\n")
    for name, needs in {"a-top": b"b_mid,nls_base", "b-mid": b"c_low", "c_low": b"", "d_bad": b"missing"}.items():
        (base / f"kernel/deep/{name}.ko").write_bytes(b"\x7fELF\0alias=x\0depends=" + needs + b"\0name=x\0")
    return tmp_path / "kernel"


def test_modules_come_after_what_they_depend_on(kernel: Path) -> None:
    order = pack.Modules(kernel).in_load_order(["mmc_block", "a_top", "?no-such", "c_low"])
    base = "lib/modules/6.1.0-0-arm64/"
    assert [path for path, _ in order] == [base + "c_low.ko", base + "b_mid.ko", base + "a_top.ko"]


def test_compressed_modules_are_stored_uncompressed(kernel: Path) -> None:
    import lzma

    path = kernel / "lib/modules/6.1.0-0-arm64/kernel/deep/c_low.ko"
    plain = path.read_bytes()
    path.with_suffix(".ko.xz").write_bytes(lzma.compress(plain))
    path.unlink()
    assert pack.Modules(kernel).in_load_order(["c-low"]) == [("lib/modules/6.1.0-0-arm64/c_low.ko", plain)]


def test_a_missing_module_is_named_with_who_needs_it(kernel: Path) -> None:
    with pytest.raises(pack.PackError, match=r"no module missing \(needed by d_bad\)"):
        pack.Modules(kernel).in_load_order(["d_bad"])
    with pytest.raises(pack.PackError, match="one kernel version"):
        pack.Modules(kernel / "lib")


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda data: b"\x7fELF\x02\x01" + data),
        # a program header of each kind that is looked at, with numbers near the file's own size
        st.tuples(st.integers(1, 3), *[st.integers(0, 400)] * 4, st.binary(max_size=200)).map(
            lambda values: (
                (b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64)).ljust(54, b"\0")
                + struct.pack("<HH6x", 56, 1)
                + struct.pack("<IIQQQQ16x", values[0], 0, *values[1:5])
                + values[5]
            )
        ),
    )
)
def test_any_bytes_are_an_elf_file_or_a_pack_error(data: bytes) -> None:
    try:
        libraries, loader = pack.needed_libraries(data)
    except pack.PackError:
        return
    assert all(isinstance(name, str) for name in [*libraries, loader])


def test_packing_from_an_empty_folder_says_what_is_missing(
    tmp_path: Path, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.gz"
    arguments = ["--arch", "arm64", "--tree", str(tmp_path / "none"), "--kernel", str(kernel), "--output", str(output)]
    assert pack.main(arguments) == 1
    assert "mke2fs" in capsys.readouterr().err
    assert not output.exists()


# The real thing, from the cache


@dataclass(frozen=True)
class Record:
    mode: int
    mtime: int
    owner: tuple[int, int]
    device: tuple[int, int]
    data: bytes


def read_newc(archive: bytes) -> dict[str, Record]:
    """Read a newc archive, in its order, independently of the program that wrote it."""
    records: dict[str, Record] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = numbers
        name = archive[at + 110 : at + 109 + name_size].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return records
        assert name not in records
        records[name] = Record(mode, mtime, (uid, gid), (major, minor), archive[start : start + size])
        at = (start + size + 3) & ~3


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of install/ with an init and a protocol script of the test's own."""
    folder = tmp_path_factory.mktemp("workshop")
    for path in [*SCRIPTS, "apt_sources.py", "need.sh", "initram/pack_initramfs.py"]:
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copy2(INSTALL / path, folder / path)
    (folder / "initram/init").write_text("#!/bin/sh\necho init\n")
    (folder / "initram/hello_protocol.sh").write_text("#!/bin/sh\necho hello\n")
    return folder


@pytest.fixture(scope="module")
def initramfs(workshop: Path) -> Path:
    output = workshop / "out" / "initramfs.gz"
    built = run(workshop / "initram/create_initramfs.gz.sh", "arm64", "--output", output, SOURCE_DATE_EPOCH="86400")
    assert built.returncode == 0, built.stderr
    return output


@pytest.fixture(scope="module")
def records(initramfs: Path) -> dict[str, Record]:
    return read_newc(gzip.decompress(initramfs.read_bytes()))


def test_initramfs_is_reproducible(workshop: Path, initramfs: Path) -> None:
    again = workshop / "out" / "again.gz"
    for script in ("init", "hello_protocol.sh"):
        os.utime(workshop / "initram" / script, (1, 1))
    assert (
        run(workshop / "initram/create_initramfs.gz.sh", "--output", again, SOURCE_DATE_EPOCH="86400").returncode == 0
    )
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (initramfs, again))
    assert first == second
    assert initramfs.read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # no name and no time, as gzip -n
    assert sorted(path.name for path in initramfs.parent.iterdir()) == ["again.gz", "initramfs.gz"]


def test_initramfs_holds_the_tools(records: dict[str, Record]) -> None:
    assert records["init"].data == b"#!/bin/sh\necho init\n"
    assert records["hello_protocol.sh"].data == b"#!/bin/sh\necho hello\n"
    for name in (
        "init",
        "hello_protocol.sh",
        "bin/busybox",
        "sbin/mke2fs",
        "sbin/e2fsck",
        "sbin/sfdisk",
        "sbin/mkfs.fat",
    ):
        assert records[name].mode == stat.S_IFREG | 0o755, name
    links = {name: record.data.decode() for name, record in records.items() if stat.S_ISLNK(record.mode)}
    assert links["sbin/mkfs.ext4"] == "mke2fs"
    assert links["sbin/fsck.ext4"] == "e2fsck"
    assert links["sbin/mkfs.vfat"] == "mkfs.fat"
    for applet in ("sh", "nc", "udhcpc", "switch_root", "insmod", "tar", "sha256sum", "tee", "mkfifo", "wget", "date"):
        assert links[f"bin/{applet}"] == "busybox"
    assert "bin/mke2fs" not in records
    assert records["dev/console"].device == (5, 1)
    assert stat.S_ISCHR(records["dev/console"].mode)
    assert {"new_root", "m", "proc", "sys", "tmp", "run", "mnt", "root"} <= set(records)
    conf = records["etc/mke2fs.conf"].data.decode()
    assert "\tdiscard = 0\n" in conf
    assert "ext4 = {" in conf


def test_initramfs_is_whole_and_anonymous(records: dict[str, Record]) -> None:
    seen: set[str] = set()
    for name, record in records.items():
        parent = name.rpartition("/")[0]
        assert not parent or parent in seen, f"{name} precedes its folder"
        seen.add(name)
        assert record.owner == (0, 0)
        assert record.mtime == 86400
    assert list(records) == sorted(records)


def test_initramfs_holds_every_library_that_a_tool_needs(records: dict[str, Record]) -> None:
    programs = [record.data for name, record in records.items() if name.startswith(("sbin/", "lib/lib"))]
    elves = [data for data in programs if data[:4] == b"\x7fELF"]
    assert len(elves) > 10
    for data in elves:
        assert struct.unpack_from("<H", data, 18)[0] == 183  # EM_AARCH64
        libraries, loader = pack.needed_libraries(data)
        assert not loader or loader.lstrip("/") in records
        for library in libraries:
            assert f"lib/{library}" in records
    assert any(pack.needed_libraries(data)[0] for data in elves)


def test_initramfs_loads_modules_for_every_board_in_order(records: dict[str, Record]) -> None:
    order = records["etc/modload"].data.decode().splitlines()
    names = [Path(line).stem for line in order]
    boards = {
        "QEMU virt": {"virtio_pci", "virtio_net", "sdhci_pci"},
        "raspi3b": {"phy_generic", "dwc2", "usbnet", "cdc_ether", "bcm2835", "sdhci_iproc"},
        "Pi 3, 3+": {"smsc95xx", "lan78xx", "smsc", "microchip"},
        "Pi 4": {"genet", "broadcom", "mdio_bcm_unimac", "gpio_regulator"},
        "all": {"ext4", "crc32c_generic", "vfat", "nls_cp437"},
    }
    for board, wanted in boards.items():
        assert wanted <= set(names), board
    assert len(order) == len(set(order))
    for index, line in enumerate(order):
        found = re.search(rb"\0depends=([^\0]*)\0", records[line.lstrip("/")].data)
        needs = found[1].decode().split(",") if found and found[1] else []
        for need in needs:
            # What is not in the archive at all is built into the kernel: the packing has refused all else.
            assert need.replace("-", "_") not in names[index:], f"{line} precedes {need}"


def test_initramfs_wants_init(tmp_path: Path, workshop: Path) -> None:
    shutil.copytree(workshop, tmp_path / "install")
    (tmp_path / "install/initram/init").unlink()
    built = run(tmp_path / "install/initram/create_initramfs.gz.sh", "--output", tmp_path / "out.gz")
    assert built.returncode == 1
    assert built.stderr.endswith("/init is missing\n")
    assert not (tmp_path / "out.gz").exists()


def test_boot_files_without_firmware_and_once_only(tmp_path: Path) -> None:
    script = INSTALL / "boot/fetch_boot_files.sh"
    fetched = run(script, "--no-firmware", "--output", tmp_path / "boot")
    assert fetched.returncode == 0, fetched.stderr
    files = {path.name: path for path in (tmp_path / "boot").iterdir()}
    assert "bootcode.bin" not in files
    for name in ("config.txt", "cmdline.txt"):
        assert files[name].read_bytes() == (INSTALL / "boot" / name).read_bytes()
    kernel = gzip.decompress(files["kernel8.img"].read_bytes())
    assert kernel[56:60] == b"ARM\x64"  # the mark of an arm64 kernel
    for ours, theirs in (("2710-rpi-3-b", "2837-rpi-3-b"), ("2710-rpi-3-b-plus", "2837-rpi-3-b-plus")):
        assert files[f"bcm{ours}.dtb"].read_bytes() == files[f"bcm{theirs}.dtb"].read_bytes()
    assert files["bcm2711-rpi-4-b.dtb"].read_bytes()[:4] == b"\xd0\x0d\xfe\xed"  # a flattened device tree
    before = files["kernel8.img"].stat()
    again = run(script, "--no-firmware", "--output", tmp_path / "boot")
    assert (again.returncode, again.stderr) == (0, "")
    assert files["kernel8.img"].stat().st_ino == before.st_ino
    files["bcm2711-rpi-4-b.dtb"].unlink()
    files["config.txt"].unlink()
    files["cmdline.txt"].write_text("edited")
    assert run(script, "--no-firmware", "--output", tmp_path / "boot").returncode == 0
    assert files["bcm2711-rpi-4-b.dtb"].exists()
    assert files["config.txt"].exists()
    assert files["cmdline.txt"].read_text() == "edited"


@pytest.fixture
def broken_apt(tmp_path: Path) -> str:
    """A PATH on which apt-get fails as it does with no network."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    (tmp_path / "bin/apt-get").chmod(0o755)
    return f"{tmp_path}/bin:{os.environ['PATH']}"


def test_no_network_and_no_cache_is_a_sentence(tmp_path: Path, workshop: Path, broken_apt: str) -> None:
    script = workshop / "initram/create_initramfs.gz.sh"
    built = run(script, "--output", tmp_path / "out.gz", PATH=broken_apt, PIMAN_CACHE=str(tmp_path / "cache"))
    assert built.returncode == 1
    assert "E: no network" in built.stderr
    assert "could not read the package lists" in built.stderr
    assert not (tmp_path / "out.gz").exists()


def test_firmware_that_cannot_be_had_is_a_sentence(tmp_path: Path, broken_apt: str) -> None:
    (real,) = (cache() / "debian").glob("*-arm64")
    tree = tmp_path / "cache/debian" / real.name
    (tree / "sets").mkdir(parents=True)
    for folder in ("archives", "kernels"):
        (tree / folder).symlink_to(real / folder)
    (known,) = (real / "sets").glob("kernel_*")
    shutil.copy2(known, tree / "sets")
    fetched = run(
        INSTALL / "boot/fetch_boot_files.sh",
        "--output",
        tmp_path / "boot",
        PATH=broken_apt,
        PIMAN_CACHE=str(tmp_path / "cache"),
    )
    assert fetched.returncode == 1
    assert "component non-free-firmware" in fetched.stderr
    assert "Raspberry Pi OS card" in fetched.stderr
    assert (tmp_path / "boot/kernel8.img").exists()


def test_a_package_cut_short_in_the_cache_is_not_used(tmp_path: Path, workshop: Path, broken_apt: str) -> None:
    (real,) = (cache() / "debian").glob("*-arm64")
    tree = tmp_path / "cache/debian" / real.name
    (tree / "archives").mkdir(parents=True)
    (tree / "kernels").symlink_to(real / "kernels")
    shutil.copytree(real / "sets", tree / "sets")
    for path in (real / "archives").glob("*.deb"):
        (tree / "archives" / path.name).symlink_to(path)
    (victim,) = (tree / "archives").glob("busybox-static_*")
    data = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(data[:-1])
    script = workshop / "initram/create_initramfs.gz.sh"
    built = run(script, "--output", tmp_path / "out.gz", PATH=broken_apt, PIMAN_CACHE=str(tmp_path / "cache"))
    assert built.returncode == 1  # it asked the archive for a new copy, which this apt cannot get
    assert not victim.exists()
    assert not (tmp_path / "out.gz").exists()
