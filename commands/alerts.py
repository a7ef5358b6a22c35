"""The alerts: what is wrong, who knows of it, what is not to be told, and whether the channels work."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from commands.session import Failure, Session, finish, whoami

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitoring.alerts import Alert, Silence
    from monitoring.store import Notice, Store


@click.group(invoke_without_command=True)
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=100, show_default=True, help="With --all.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_context
def alerts(context: click.Context, every: bool, number: int, as_json: bool) -> None:
    """Show what is wrong now; acknowledge, silence, test the channels."""
    if context.invoked_subcommand is None:
        show(context.obj, every, number, as_json)


def show(session: Session, every: bool, number: int, as_json: bool) -> None:
    """The list of alerts."""
    from monitoring.channels import alert_json
    from utility.service import server_runs

    config = session.config()
    with session.store(config) as store:
        found = store.alerts(open_only=not every, limit=number if every else 10_000)
        silences = store.silences(time.time())
        waiting = [each for each in store.latest_notices(2000) if not each.sent_at]
    if as_json:
        body = {
            "alerts": [alert_json(each) for each in found],
            "silences": [silence_json(each) for each in silences],
            "waiting": [notice_json(each) for each in waiting],
        }
        click.echo(json.dumps(body, indent=2))
        return
    for line in table(found, time.time()):
        click.echo(line)
    if not found:
        click.echo("nothing is wrong" if not every else "nothing was ever wrong")
    for each in silences:
        click.echo(f"silence {each.id}: {silence_text(each)}")
    for channel in sorted({each.channel for each in waiting if each.error}):
        last = next(each for each in reversed(waiting) if each.channel == channel and each.error)
        click.echo(f"channel {channel} has not been told of everything: {last.error}")
    if not server_runs(config.state_dir):
        click.echo("no server runs: this is what was known when it stopped")


def table(found: Sequence[Alert], now: float) -> list[str]:
    """A line for each alert, aligned."""
    from monitoring.diagnosis import duration

    rows = []
    for each in found:
        end = each.resolved_at or now
        notes = each.ended or each.suppressed or each.silenced or (each.acknowledged and f"by {each.acknowledged}")
        state = str(each.state) + (f" ({notes})" if notes else "")
        rows.append((str(each.id), str(each.severity), each.name, each.text, duration(end - each.since), state))
    rows.insert(0, ("ID", "SEVERITY", "WHO", "WHAT", "FOR", "STATE"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    return lines if found else []


def silence_json(silence: Silence) -> dict[str, object]:
    names = ("id", "subject", "rule", "until", "by", "why")
    return {name: getattr(silence, name) for name in names}


def silence_text(silence: Silence) -> str:
    until = datetime.fromtimestamp(silence.until).astimezone().strftime("%Y-%m-%d %H:%M")
    why = f": {silence.why}" if silence.why else ""
    return f"{silence.subject}, rule {silence.rule}, until {until}, by {silence.by}{why}"


def notice_json(notice: Notice) -> dict[str, object]:
    return {
        "channel": notice.channel,
        "alert": notice.alert.id,
        "event": "over" if notice.over else "raised",
        "queued_at": notice.queued_at,
        "tries": notice.tries,
        "error": notice.error,
    }


def choose(store: Store, words: Sequence[str]) -> list[Alert]:
    """Open alerts by their numbers, or all of a Pi (or a switch) by its name, address or MAC."""
    found = {each.id: each for each in store.alerts()}
    chosen: dict[int, Alert] = {}
    for word in words:
        if word.isdecimal() and int(word) in found:
            chosen[int(word)] = found[int(word)]
            continue
        low = word.lower()
        names = {
            each.id: {each.name.lower(), each.subject, each.subject.removeprefix("switch:")} for each in found.values()
        }
        of_it = {number: found[number] for number, known in names.items() if low in known or f"switch {low}" in known}
        if not of_it:
            raise Failure(f"no alert {word!r} is open, and none of a Pi or switch of that name; see `piman alerts`")
        chosen |= of_it
    return list(chosen.values())


@alerts.command()
@click.argument("which", nargs=-1, required=True, metavar="ID... | PI...")
@click.option("--undo", is_flag=True, help="Take it back.")
@click.pass_obj
def ack(session: Session, which: tuple[str, ...], undo: bool) -> None:
    """Say that you know of alerts: nobody is told of them again until they are over."""
    with session.store(session.config(), read_only=False) as store:
        for each in choose(store, which):
            store.acknowledge_alert(each.id, "" if undo else whoami())
            click.echo(f"{each.id}: {each.name}: {each.text}: {'open again' if undo else 'acknowledged'}")


@alerts.command()
@click.argument("who", required=False, default="*", metavar="[PI]")
@click.option("--rule", default="*", show_default=True, help="A rule's name, or a pattern of names.")
@click.option("--for", "duration", default="2h", show_default=True, help="How long: 30m, 2h, 1d.")
@click.option("--why", default="", help="For those who wonder.")
@click.option("--end", "number", type=int, help="End silence NUMBER now.", metavar="NUMBER")
@click.pass_obj
def silence(session: Session, who: str, rule: str, duration: str, why: str, number: int | None) -> None:
    """Let nobody be told of a Pi (or all that match, like 'lab-*') for a while. Its alerts are still shown."""
    from utility.rules import RuleError, matches, parse_time, suggest

    config = session.config()
    known = [each.name for each in config.monitoring.rules]
    if not any(matches(rule, name) for name in known):
        raise Failure(f"there is no rule {rule!r}; {suggest(rule, known)}")
    try:
        seconds = parse_time(duration)
    except RuleError as error:
        raise click.UsageError(f"--for: {error}") from None
    with session.store(config, read_only=False) as store:
        now = time.time()
        if number is not None:
            if not store.end_silence(number, now):
                raise Failure(f"no silence {number} is in force")
            click.echo(f"silence {number} has ended")
            return
        number = store.add_silence(who, rule, now + seconds, whoami(), why)
        click.echo(f"silence {number}: {silence_text(next(each for each in store.silences(now) if each.id == number))}")


@alerts.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def rules(session: Session, as_json: bool) -> None:
    """Show every rule, and where it was written."""
    from utility.rules import rule_json

    found = session.config().monitoring.rules
    if as_json:
        click.echo(json.dumps([rule_json(each) for each in found], indent=2))
        return
    rows = [
        (each.name, each.expression, str(each.severity) if each.enabled else "off", " ".join(each.only), each.source)
        for each in found
    ]
    rows.insert(0, ("NAME", "RULE", "SEVERITY", "ONLY", "FROM"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        click.echo("  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[4]]))


@alerts.command()
@click.argument("channel", required=False)
@click.pass_obj
def test(session: Session, channel: str | None) -> None:
    """Send a test message to CHANNEL, or to all, and tell what came of it."""
    from monitoring.channels import ChannelError, Message, deliver
    from monitoring.watching import site_of

    config = session.config()
    channels = config.monitoring.channels
    if not channels:
        raise Failure("config.yaml names no channels; see `monitoring: channels:` in README, or PIMAN_SLACK_WEBHOOK")
    chosen = [each for each in channels if channel in (None, each.name)]
    if not chosen:
        raise Failure(f"there is no channel {channel!r}; known: {', '.join(each.name for each in channels)}")
    failed = 0
    for each in chosen:
        now = time.time()
        try:
            deliver(each, Message(f"test-{now:.0f}", site_of(config), now, ()))
        except ChannelError as error:
            failed += 1
            click.echo(f"{each.name}: failed: {error}", err=True)
        else:
            click.echo(f"{each.name}: sent")
    finish(len(chosen), failed, "channels did not take it")
