"""Questions that take a moment: on which port a MAC is, which images there are. No Flask."""

from __future__ import annotations

from monitoring.operations import OperationError, look_for
from utility.config import Config
from utility.findport import Sighting
from utility.hosts import Host
from utility.images import StoredImage, stored_images
from web.views import Json


def find(config: Config, mac: str, host: Host | None) -> Json:
    """Ask every switch for a MAC; OperationError says why it is nowhere."""
    search = look_for(config.switches, mac, host, [each for each in (config.private_number,) if each])
    edge = search.edge
    if edge is None:
        raise OperationError(search.why_not)
    return {"where": edge.where, **_sighting(edge), "failed": [str(each) for each in search.failed.values()]}


def _sighting(seen: Sighting) -> Json:
    return {
        "switch": seen.switch.index,
        "port": seen.port or None,
        "interface": seen.if_name,
        "watts": round(seen.face.milliwatts / 1000, 1) if seen.face and seen.face.milliwatts is not None else None,
    }


def image_views(config: Config) -> list[Json]:
    """The root file systems that new installs could get, by name."""
    return [image_view(each) for each in stored_images(config.image)]


def image_view(image: StoredImage) -> Json:
    return {"name": image.name, "size": image.size, "when": image.when, "in_use": image.in_use}
