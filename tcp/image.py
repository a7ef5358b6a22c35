"""The image file: hashed once, and remembered across restarts. Holds no protocol.

A root file system is hundreds of megabytes, so its SHA-256 is kept in memory and in a small sidecar file, valid for
exactly the inode, mtime and size it was computed of.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
import threading
from pathlib import Path

from tcp.packet import Image

__all__ = ["Image", "ImageError", "ImageFile", "image_id", "image_stem"]

log = logging.getLogger("piman.tcp.image")

_SUFFIX = re.compile(r"(\.tar)?\.(tgz|gz|tar|xz|zst|bz2)$")
_TRIES = 3


class ImageError(Exception):
    """There is no image to send; `str()` says why, in words for an operator."""


class ImageFile:
    """The image at `path`, whatever file is there when asked. Any thread; `_lock` is held while it is hashed, so that
    a rack that is powered on at once waits for one hash and does not make sixty."""

    def __init__(self, path: Path, cache_dir: Path) -> None:
        self.path = path
        self.cache_dir = cache_dir
        self._lock = threading.Lock()
        self._image: Image | None = None
        self._said = ""

    def load(self) -> Image:
        """The image as it is now; may take the time of reading it once. ImageError where there is none."""
        with self._lock:
            try:
                for _ in range(_TRIES):
                    image = self._load()
                    if image:
                        self._image = image
                        return image
            except OSError as error:
                raise ImageError(f"image {self.path}: {error.strerror or error}") from error
            raise ImageError(f"image {self.path} is being written: it changed while it was read")

    def current(self) -> Image | None:
        """`load`, or None; why there is none is logged once, not each time a Pi asks."""
        try:
            image = self.load()
        except ImageError as error:
            if self._said != str(error):
                self._said = str(error)
                log.warning("%s", error)
            return None
        self._said = ""
        return image

    def _load(self) -> Image | None:
        """One try; None: the file changed meanwhile."""
        with self.path.open("rb") as file:
            before = os.fstat(file.fileno())
            key = (before.st_ino, before.st_mtime_ns, before.st_size)
            if not before.st_size:
                raise ImageError(f"image {self.path} is empty")
            known = self._image
            if known and (known.inode, known.mtime_ns, known.size) == key:
                return known
            sha256 = self._remembered(key)
            if not sha256:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                after = os.fstat(file.fileno())
                if (after.st_ino, after.st_mtime_ns, after.st_size) != key:
                    return None
                self._remember(key, sha256)
        # The file's own name, where `path` is a link to the one in use.
        return Image(
            image_id(self.path.resolve(), sha256), self.path, before.st_size, sha256, before.st_ino, before.st_mtime_ns
        )

    @property
    def sidecar(self) -> Path:
        """Where the hash is remembered: named after the file, and told apart from its namesakes elsewhere."""
        where = hashlib.sha256(os.fsencode(self.path.absolute())).hexdigest()[:8]
        return self.cache_dir / f"{image_stem(self.path)}-{where}.json"

    def _remembered(self, key: tuple[int, int, int]) -> str:
        try:
            found = json.loads(self.sidecar.read_text())
            same = (found["inode"], found["mtime_ns"], found["size"]) == key
            return str(found["sha256"]) if same and re.fullmatch("[0-9a-f]{64}", str(found["sha256"])) else ""
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: the image is hashed again
            return ""

    def _remember(self, key: tuple[int, int, int], sha256: str) -> None:
        text = json.dumps({"inode": key[0], "mtime_ns": key[1], "size": key[2], "sha256": sha256})
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.cache_dir, prefix=".image-", delete=False) as file:
                temporary = Path(file.name)
                try:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                    temporary.replace(self.sidecar)
                except OSError:
                    temporary.unlink(missing_ok=True)
                    raise
        except OSError as error:  # a full disk costs the next start a hash, no more
            log.debug("the hash of %s could not be kept: %s", self.path, error)


def image_stem(path: Path) -> str:
    """`rootfs` of `rootfs.tar.gz`, in letters that may stand in a message."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", _SUFFIX.sub("", path.name))[:64] or "image"


def image_id(path: Path, sha256: str) -> str:
    """What the image is called: two files of one name and different content have different ids."""
    return f"{image_stem(path)}-{sha256[:12]}"
