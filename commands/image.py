"""The commands about what is installed on the cards: image list, import, use. The files are utility/images.py's."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.session import Failure, Session, whoami

if TYPE_CHECKING:
    from utility.config import Config
    from utility.images import StoredImage


@click.group()
def image() -> None:
    """The root file systems that Pis can be installed with: list, import, choose."""


@image.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def list_images(session: Session, as_json: bool) -> None:
    """List them; * marks the one that new installations get."""
    from utility.images import folder_of, stored_images

    config = session.config()
    images = stored_images(config.image)
    shown = [describe(config, each) for each in images]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    if not images:
        click.echo(f"there is none in {folder_of(config.image)}; `piman image import FILE` makes one")
        return
    width = max(len(each.name) for each in images)
    for each, fields in zip(images, shown, strict=True):
        when = datetime.fromtimestamp(each.when).astimezone().strftime("%Y-%m-%d")
        mark = "*" if each.in_use else " "
        click.echo(f"{mark} {each.name:<{width}}  {each.size / 1e6:>8.1f} MB  {when}  {fields['id']}")


def describe(config: Config, stored: StoredImage) -> dict[str, object]:
    """The keys of --json; id and hash are those that the server sends, and are computed once for a file."""
    from tcp.image import ImageError, ImageFile

    identity, sha256 = None, None
    with contextlib.suppress(ImageError):
        found = ImageFile(stored.path, config.state_dir).load()
        identity, sha256 = found.id, found.sha256
    return {
        "name": stored.name,
        "id": identity,
        "sha256": sha256,
        "size": stored.size,
        "when": stored.when,
        "path": str(stored.path),
        "in_use": stored.in_use,
    }


@image.command(name="import")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="Of the new image.  [default: from the file's name]")
@click.option(
    "--ssh-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A public key that may log in as root; for card images, which let nobody in by themselves.",
)
@click.option("--agent/--no-agent", default=True, help="Put the node agent into a card image.", show_default=True)
@click.option("--use", "chosen", is_flag=True, help="Choose it at once.")
@click.pass_obj
def import_(session: Session, source: Path, name: str, ssh_key: Path | None, agent: bool, chosen: bool) -> None:
    """Make an image of a Raspberry Pi OS card image (.img, .img.xz) or of a tarball of a root file system.

    A card image's second partition is taken, with owners and modes, and its fstab replaced: it needs no root. It also
    gets the agent that tells how its Pi is.
    """
    from utility.images import Additions, ImportFailedError, agent_files, import_image

    config = session.config()
    additions = Additions(public_key(ssh_key), agent_files() if agent else None)
    try:
        made = import_image(source, config.image, name, additions, Meter())
    except ImportFailedError as error:
        raise Failure(f"{source}: {error}") from None
    except OSError as error:
        raise Failure(f"{error.filename or source}: {error.strerror or error}") from None
    click.echo(f"{made.name}: {made.size / 1e6:.1f} MB, {describe(config, made)['id']}")
    if chosen:
        choose(config, made.name)
    else:
        click.echo(f"`piman image use {made.name}` lets new installations have it")


def public_key(path: Path | None) -> str:
    """The text of a public key's file; a private one must not get into an image."""
    from utility.images import ImportFailedError, check_public_key

    if path is None:
        return ""
    try:
        return check_public_key(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ImportFailedError) as error:
        raise Failure(f"{path}: {error}") from None


class Meter:
    """Tells how far it is, on a terminal, once a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, what: str, done: int) -> None:
        if time.monotonic() < self._next or not sys.stderr.isatty():
            return
        self._next = time.monotonic() + 1.0
        click.echo(f"\r{what}: {done / 1e6:.0f} MB\x1b[K\r", nl=False, err=True)


@image.command()
@click.argument("name")
@click.pass_obj
def use(session: Session, name: str) -> None:
    """Let new installations have this image (or the only one whose name begins so); running ones end as they began."""
    choose(session.config(), name)


def choose(config: Config, name: str) -> None:
    from monitoring.operations import OperationError, choose_image

    try:
        chosen = choose_image(config, name, whoami())
    except OperationError as error:
        raise Failure(str(error)) from None
    click.echo(f"new installations get {describe(config, chosen)['id']}")
