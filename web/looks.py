"""Questions that take a moment: what the doctor says, on which port a MAC is, which images there are. No Flask."""

from __future__ import annotations

from monitoring import doctor as judge
from monitoring.inspection import ask_switches
from monitoring.operations import OperationError, look_for
from utility.config import Config
from utility.findport import Sighting
from utility.hosts import Host, Hosts
from utility.images import ImportFailedError, stored_images, use_image
from web.starting import check_views, checks_before
from web.views import Json


def examine(config: Config, hosts: Hosts) -> list[Json]:
    """As `piman doctor`: files, this machine, boot files, image, and each switch, all asked at once."""
    checks = judge.check_files(config, {host.address: host.name for host in hosts.all()})
    checks += checks_before(config)
    for switch, facts in zip(config.switches, ask_switches(config.switches), strict=True):
        checks += judge.check_switch(switch, facts)
    return check_views(checks)


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
    return [
        {"name": each.name, "size": each.size, "when": each.when, "in_use": each.in_use}
        for each in stored_images(config.image)
    ]


def choose_image(config: Config, name: str) -> Json:
    """Let new installs get it; OperationError."""
    try:
        chosen = use_image(config.image, name)
    except ImportFailedError as error:
        raise OperationError(str(error)) from None
    except OSError as error:
        raise OperationError(f"{error.filename or config.image}: {error.strerror or error}") from None
    return {"name": chosen.name, "size": chosen.size, "when": chosen.when, "in_use": chosen.in_use}
