"""The image file: hashed once, remembered, and never mistaken for another."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tcp.image import ImageError, ImageFile, image_id, image_stem


class Counted:
    """hashlib.file_digest, counted, with something to happen during the first hash."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.meanwhile: Callable[[], None] = lambda: None
        self._real = hashlib.file_digest
        monkeypatch.setattr(hashlib, "file_digest", self)

    def __call__(self, file: object, name: str) -> object:
        self.calls += 1
        self.meanwhile()
        return self._real(file, name)  # type: ignore[arg-type]


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def an_image(folder: Path, data: bytes = b"content", name: str = "rootfs.tgz") -> ImageFile:
    (folder / name).write_bytes(data)
    return ImageFile(folder / name, folder / "cache")


def test_an_image_is_named_after_its_file_and_content(tmp_path: Path) -> None:
    image = an_image(tmp_path).load()
    expected = hashlib.sha256(b"content").hexdigest()
    assert (image.id, image.size, image.sha256) == (f"rootfs-{expected[:12]}", 7, expected)
    assert image.path == tmp_path / "rootfs.tgz"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("rootfs.tgz", "rootfs"),
        ("pi os 12.tar.gz", "pi_os_12"),
        ("a.b.tar", "a.b"),
        ("plain", "plain"),
        (".tgz", "image"),
        ("ü" * 100 + ".gz", "_" * 64),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert image_stem(Path(name)) == stem
    assert image_id(Path(name), "f" * 64) == f"{stem}-ffffffffffff"


def test_it_is_hashed_once(tmp_path: Path, hashes: Counted) -> None:
    file = an_image(tmp_path)
    first = file.load()
    assert file.load() is first
    assert ImageFile(file.path, file.cache_dir).load() == first  # after a restart
    assert hashes.calls == 1


def test_another_content_is_hashed_again(tmp_path: Path, hashes: Counted) -> None:
    file = an_image(tmp_path)
    first = file.load()
    (tmp_path / "new").write_bytes(b"CONTENT")
    (tmp_path / "new").replace(file.path)
    assert file.load().sha256 == hashlib.sha256(b"CONTENT").hexdigest() != first.sha256
    assert hashes.calls == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"inode": 1}', "\xff"])
def test_a_damaged_sidecar_costs_a_hash(tmp_path: Path, hashes: Counted, damage: str) -> None:
    file = an_image(tmp_path)
    first = file.load()
    file.sidecar.write_text(damage, "latin-1")
    assert ImageFile(file.path, file.cache_dir).load() == first
    assert hashes.calls == 2


def test_a_sidecar_that_holds_no_hash(tmp_path: Path, hashes: Counted) -> None:
    file = an_image(tmp_path)
    first = file.load()
    kept = json.loads(file.sidecar.read_text())
    file.sidecar.write_text(json.dumps(kept | {"sha256": "no hash"}))
    assert ImageFile(file.path, file.cache_dir).load() == first
    assert hashes.calls == 2


def test_the_sidecar_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = an_image(tmp_path)
    assert file.load().size == 7
    assert list(file.cache_dir.iterdir()) == []


def test_namesakes_do_not_share_a_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (ImageFile(tmp_path / folder / "rootfs.tgz", tmp_path / "cache") for folder in "ab")
    assert one.sidecar != other.sidecar


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert an_image(tmp_path).load().size == 7


def test_an_image_that_changes_while_it_is_read(tmp_path: Path, hashes: Counted) -> None:
    file = an_image(tmp_path)
    times = iter(range(1, 100))
    hashes.meanwhile = lambda: os.utime(file.path, (0, next(times)))
    with pytest.raises(ImageError, match="being written"):
        file.load()
    hashes.meanwhile = lambda: None
    assert file.load().size == 7


def test_no_image_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    file = ImageFile(tmp_path / "rootfs.tgz", tmp_path / "cache")
    assert (file.current(), file.current()) == (None, None)
    file.path.touch()
    assert (file.current(), file.current()) == (None, None)
    file.path.write_bytes(b"x")
    found = file.current()
    assert found is not None
    file.path.unlink()
    assert file.current() is None
    assert [record.message.split(": ")[-1].split()[-1] for record in caplog.records] == [
        "directory",
        "empty",
        "directory",
    ]
