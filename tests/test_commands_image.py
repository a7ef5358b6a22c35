"""piman image: what is listed, what import tells and refuses, what use leaves behind."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commands.image import image
from commands.session import Session
from monitoring.store import Store
from tests.test_images import file_system, tarball

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches: []
boot_dir: boot
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / ".env").touch()
    (tmp_path / "boot").mkdir()
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(image, words, obj=Session(folder / "config.yaml", None, folder / ".env", logging.INFO))


def test_import_list_and_use(folder: Path) -> None:
    assert "there is none in" in run(folder, "list").output
    source = str(tarball(folder / "bookworm.tar.gz", "./sbin/init"))
    said = run(folder, "import", source)
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[1] == "`piman image use bookworm` lets new installations have it"
    (shown,) = json.loads(run(folder, "list", "--json").output)
    assert shown.keys() == {"name", "id", "sha256", "size", "when", "path", "in_use"}
    assert (shown["name"], shown["id"], shown["in_use"]) == ("bookworm", f"bookworm-{shown['sha256'][:12]}", False)
    Store(folder / "state" / "piman.db").close()
    assert run(folder, "use", "book").output == f"new installations get {shown['id']}\n"
    said = run(folder, "import", source, "--name", "other", "--use")
    assert said.output.splitlines()[-1].startswith("new installations get other-")
    lines = run(folder, "list").output.splitlines()
    assert [line[:10] for line in lines] == ["  bookworm", "* other   "]
    assert lines[0].endswith(shown["id"])
    with Store(folder / "state" / "piman.db", read_only=True) as store:
        assert store.latest_events()[0].text.startswith("new installations get bookworm, chosen by ")


def test_a_card_with_a_key(folder: Path) -> None:
    (folder / "card.img").write_bytes(file_system(folder))
    key = folder / "key.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    said = run(folder, "import", str(folder / "card.img"), "--ssh-key", str(key))
    assert said.exit_code == 0, said.output
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    said = run(folder, "import", str(folder / "card.img"), "--name", "x", "--ssh-key", str(key))
    assert (said.exit_code, "is no public key of ssh" in said.output) == (1, True)
    key.write_bytes(b"\xff")
    assert (
        "can't decode" in run(folder, "import", str(folder / "card.img"), "--name", "x", "--ssh-key", str(key)).output
    )


def test_what_does_not_work(folder: Path) -> None:
    (folder / "text").write_text("no image")
    said = run(folder, "import", str(folder / "text"))
    assert (said.exit_code, said.output) == (
        1, f"Error: {folder / 'text'}: text is neither a tarball nor an image of a card\n",
    )  # fmt: skip
    assert run(folder, "import", str(folder / "none")).exit_code == 2
    assert "there is no image 'x'" in run(folder, "use", "x").output
    (folder / "boot" / "images").rmdir()
    (folder / "boot" / "images").write_text("a file in its place")
    said = run(folder, "import", str(tarball(folder / "a.tgz", "sbin/init")))
    assert (said.exit_code, "File exists" in said.output) == (1, True)
