"""`piman grafana FOLDER`: what Prometheus and Grafana need to know of this manager, as files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.session import HOME, USAGE, Failure, Session

if TYPE_CHECKING:
    from monitoring.prometheus_files import Manager
    from utility.config import Config


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--manager",
    "managers",
    multiple=True,
    metavar="[https://]HOST[:PORT]",
    help="How Prometheus reaches this manager; again for others, whose config.yaml should have another `site`.",
)
@click.option(
    "--token-file",
    "tokens",
    multiple=True,
    metavar="FILE",
    help="On Prometheus' machine, the file with a token of `piman token add`; one for each manager, in their order.",
)
@click.option("--prometheus", default="http://localhost:9090", show_default=True, help="How Grafana reaches it.")
@click.option("--force", is_flag=True, help="Overwrite files of other content.")
@click.pass_obj
def grafana(
    session: Session, folder: Path, managers: tuple[str, ...], tokens: tuple[str, ...], prometheus: str, force: bool
) -> None:
    """Write prometheus.yml, alert rules, a dashboard and its data source to FOLDER, with this manager filled in."""
    from monitoring import prometheus_files

    config = session.config()
    own = own_address(config)
    found = [_named(each, own, config.ports.web) for each in managers] or [own]
    if len(tokens) not in (0, len(found)):
        raise Failure(f"{len(tokens)} token files for {len(found)} managers; give one for each, in their order", USAGE)
    if tokens:
        found = [dataclasses.replace(each, token_file=token) for each, token in zip(found, tokens, strict=True)]
    dashboard = (HOME / "monitoring" / "grafana" / "piman.json").read_text(encoding="utf-8")
    files = {
        "prometheus.yml": prometheus_files.prometheus_config(found),
        "piman.rules.yml": prometheus_files.rules_file(config.monitoring.rules),
        "datasource.yml": prometheus_files.data_source(prometheus),
        "dashboards.yml": prometheus_files.dashboard_provider(str(folder.resolve() / "dashboards")),
        "dashboards/piman.json": dashboard,
    }
    for name, text in files.items():
        write(folder / name, text, force)
    click.echo(f"Prometheus: prometheus --config.file={folder / 'prometheus.yml'}")
    click.echo(f"Grafana: {folder / 'datasource.yml'} into /etc/grafana/provisioning/datasources/,")
    click.echo(f"         {folder / 'dashboards.yml'} into /etc/grafana/provisioning/dashboards/")


def own_address(config: Config) -> Manager:
    """How this manager's web page is reached, as far as config.yaml says."""
    from monitoring.prometheus_files import Manager

    first = config.web.addresses[0]
    host = str(config.server_address) if first in ("0.0.0.0", "::") else first
    tls = config.web.tls == "on" or (config.web.tls == "auto" and not config.web.is_local)
    return Manager(_with_port(f"[{host}]" if ":" in host else host, config.ports.web), tls)


def _named(text: str, own: Manager, port: int) -> Manager:
    """A manager as a user names it; https or not as ours, where that is not said."""
    found = re.fullmatch(r"(?:(https?)://)?([^/@\s]+)/?", text)
    if found is None:
        raise Failure(f"--manager: found {text!r}; expected HOST, HOST:PORT or https://HOST:PORT", USAGE)
    tls = own.tls if found[1] is None else found[1] == "https"
    return dataclasses.replace(own, address=_with_port(found[2], port), tls=tls)


def _with_port(address: str, port: int) -> str:
    has_port = address.rpartition(":")[2].isdecimal() and not address.endswith("]")
    return address if has_port else f"{address}:{port}"


def write(path: Path, text: str, force: bool) -> None:
    """Write a file; Failure where another is in its place, or where it cannot be written."""
    try:
        if path.exists() and not force and path.read_text(encoding="utf-8", errors="replace") != text:
            raise Failure(f"{path} is there with other content; move it away, or use --force")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
    click.echo(path)
