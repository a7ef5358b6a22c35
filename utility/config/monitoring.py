"""The section `monitoring` of config.yaml: rules, channels, healing, read from its sheet. No file here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from utility.config import kinds
from utility.config.keys import CHANNEL, HEALING, RULE
from utility.config.settings import Channel, Healing, Monitoring
from utility.config.sheet import Section, entries, readable, suggestion
from utility.rules import BUILT_IN, SHORT_NAMES, AlertSeverity, Rule, RuleError, merge, parse_rule, with_threshold

_CHANNEL_KEYS: Mapping[str, tuple[str, ...]] = {
    "slack": ("url",),
    "email": ("to", "from", "server", "security", "user"),
    "webhook": ("url",),
    "script": ("path",),
}


def _default_sender() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename) or "localhost"
    return f"piman@{host}"


def _slack_form(url: str) -> str:
    """Discord takes Slack's form at an address of its own."""
    is_discord = re.match(r"https://(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/", url)
    return f"{url.rstrip('/')}/slack" if is_discord and not url.rstrip("/").endswith("/slack") else url


def _channel(text: str) -> Channel:
    """A channel in one word."""
    if text == "slack":
        return Channel("slack", "slack")
    if text.startswith(("http://", "https://")):
        url = _slack_form(kinds.url(text))
        parts = urlsplit(url)
        is_slack = parts.hostname == "hooks.slack.com" or parts.path.endswith("/slack") or "/hooks/" in parts.path
        kind = "slack" if is_slack else "webhook"
        return Channel(kind, kind, url=url)
    if "@" in text and "/" not in text:
        return Channel(
            "email", "email", to=(kinds.mail_address(text.removeprefix("mailto:")),), sender=_default_sender()
        )
    if "/" in text:
        return Channel("script", "script", path=Path(kinds.path(text)))
    raise ValueError(
        "expected slack, an address like ops@example.org or https://example.org/alerts, the path of a script, or keys"
    )


def read_monitoring(section: Section, secrets: Mapping[str, str]) -> Monitoring:
    interval = section.value("interval", kinds.number(1, 86400, " of seconds"), Monitoring().interval)
    timeout = section.value("timeout", kinds.number(0.1, 60, " of seconds"), min(Monitoring().timeout, interval))
    if timeout > interval:
        text = f"found {timeout:g}; expected less than the interval, {interval:g} s"
        section.sheet.wrong(section.key("timeout"), text)
    return Monitoring(
        interval=interval,
        timeout=timeout,
        port=section.value("port", kinds.whole(1, 65535), Monitoring().port),
        rules=_read_rules(section),
        channels=_read_channels(section, secrets),
        healing=_read_healing(section),
    )


def _read_rules(section: Section) -> tuple[Rule, ...]:
    """The rules built in, with the thresholds and the rules of the file laid over them."""
    rules = merge(BUILT_IN, _read_thresholds(section))
    lines: dict[str, int] = {}
    for key, node in entries(section, "rules"):
        rule = _read_rule(section, key, node, {rule.name: rule for rule in rules})
        if rule is None:
            continue
        place = section.sheet.place(node, key)
        if rule.name in lines:
            section.sheet.problem(
                place, f"{rule.name} is already the name of a rule, in line {lines[rule.name]}; name it"
            )
        lines.setdefault(rule.name, place.line)
        rules = merge(rules, [replace(rule, source=f"{section.sheet.path.name} line {place.line}")])
    return rules


def _read_thresholds(section: Section) -> list[Rule]:
    thresholds = section.nodes.get("thresholds")
    names = [k.value for k, _ in thresholds.value] if isinstance(thresholds, yaml.MappingNode) else []
    table = section.section("thresholds", [name for name in names if isinstance(name, str)])
    built_in = {rule.name: rule for rule in BUILT_IN}
    changed = []
    for name in table.nodes:
        number = table.value(name, kinds.number(-1e9, 1e12), None)
        place = section.sheet.places[table.key(readable(name))]
        rule = built_in.get(SHORT_NAMES.get(name, name))
        if rule is None:
            section.sheet.problem(place, f"no rule has this name; {suggestion(name, built_in)}")
        elif number is not None:
            try:
                changed.append(with_threshold(rule, number, f"{section.sheet.path.name} line {place.line}"))
            except RuleError as error:
                section.sheet.problem(place, str(error))
    return changed


def _read_rule(section: Section, key: str, node: yaml.Node, known: Mapping[str, Rule]) -> Rule | None:
    """A rule in one line, or as keys; those that a rule of the same name has already need not be said again."""
    if not isinstance(node, yaml.MappingNode):
        short = section.read(section.scalar(node, key), parse_rule, None)
        return replace(short, severity=known[short.name].severity) if short and short.name in known else short
    it = Section(section.sheet, node, key, RULE)
    given = it.given("when")
    rule = it.read(given, parse_rule, None)
    name = it.value("name", kinds.rule_name, rule.name if rule else "")
    if given is None:
        rule = known.get(name)
        if rule is None:
            place = replace(it.start, key=it.key("when"))
            section.sheet.problem(
                place, f"is missing; expected a rule, like {BUILT_IN[0].expression}, or a name it has"
            )
    if rule is None:
        return None
    base = known.get(name, rule)
    return replace(
        rule,
        name=name,
        severity=it.value("severity", kinds.severity, base.severity),
        enabled=it.value("enabled", kinds.flag, True),
        only=it.values("only", kinds.text),
    )


def _read_healing(section: Section) -> Healing:
    """`true`, `false`, `dry-run`, or keys."""
    node = section.nodes.get("healing")
    if node is None or isinstance(node, yaml.ScalarNode):
        mode = section.value("healing", kinds.choice("true", "false", "dry-run"), "false")
        return Healing(enabled=mode != "false", dry_run=mode == "dry-run")
    it, base = section.section("healing", HEALING), Healing()
    mode = it.value("enabled", kinds.choice("true", "false", "dry-run"), "true")
    return Healing(
        enabled=mode != "false",
        dry_run=mode == "dry-run",
        after=it.value("after", kinds.span(60, 86400), base.after),
        cooldown=it.value("cooldown", kinds.span(60, 86400), base.cooldown),
        per_pi=it.value("per_pi", kinds.whole(1, 100), base.per_pi),
        per_rack=it.value("per_rack", kinds.whole(1, 1000), base.per_rack),
        reinstall=it.value("reinstall", kinds.flag, base.reinstall),
        boot_after=it.value("boot_after", kinds.span(60, 86400), base.boot_after),
        boot_tries=it.value("boot_tries", kinds.whole(0, 10), base.boot_tries),
    )


def _read_channels(section: Section, secrets: Mapping[str, str]) -> tuple[Channel, ...]:
    """The channels of the list, and Slack where its secret is given."""
    channels: dict[str, Channel] = {}
    for key, node in entries(section, "channels"):
        channel = _read_channel(section, key, node, secrets)
        if channel is None:
            continue
        if channel.name in channels and f"{key}.name" in section.sheet.places:
            section.sheet.problem(section.sheet.place(node, key), f"{channel.name} is already the name of a channel")
        names = (channel.name, *(f"{channel.name}-{number}" for number in range(2, 1000)))
        name = next(each for each in names if each not in channels)
        channels[name] = replace(channel, name=name)
    if secrets["slack_webhook"] and not any(each.kind == "slack" for each in channels.values()):
        channels["slack"] = Channel("slack", "slack", url=_slack_form(secrets["slack_webhook"]))
    return tuple(channels.values())


def _read_channel(section: Section, key: str, node: yaml.Node, secrets: Mapping[str, str]) -> Channel | None:
    sheet = section.sheet
    if isinstance(node, yaml.MappingNode):
        it = Section(sheet, node, key, CHANNEL)
        kind = it.required("type", kinds.choice(*_CHANNEL_KEYS), "slack, email, webhook or script")
        channel = _channel_of_keys(it, kind) if kind else None
    else:
        given = section.scalar(node, key)
        channel = section.read(given, _channel, None)
        if channel and given and channel.kind == "script":
            channel = replace(channel, path=given.folder / channel.path)
    if channel is None:
        return None
    problem = ""
    if channel.kind == "slack":
        channel = replace(channel, url=channel.url or _slack_form(secrets["slack_webhook"]))
        problem = "" if channel.url else "needs its address, which is a secret; put PIMAN_SLACK_WEBHOOK=... into .env"
    elif channel.kind == "webhook":
        channel = replace(channel, secret=secrets["webhook_token"])
    elif channel.kind == "email" and channel.user:
        channel = replace(channel, secret=secrets["smtp_password"])
        problem = "" if channel.secret else "needs the password of its user; put PIMAN_SMTP_PASSWORD=... into .env"
    if problem:
        sheet.problem(sheet.place(node, key), problem)
    return channel


def _channel_of_keys(it: Section, kind: str) -> Channel | None:
    for name in it.nodes:
        if name not in (*_CHANNEL_KEYS[kind], "type", "name", "severity", "resolved"):
            it.sheet.wrong(it.key(name), f"is not for a channel of type {kind}")
    channel = Channel(
        name=it.value("name", kinds.rule_name, kind),
        kind=kind,
        severity=it.value("severity", kinds.severity, AlertSeverity.WARNING),
        resolved=it.value("resolved", kinds.flag, True),
    )
    if kind == "slack":
        return replace(channel, url=_slack_form(it.value("url", kinds.url, "")))
    if kind == "webhook":
        url = it.required("url", kinds.url, "an address, like https://example.org/alerts")
        return replace(channel, url=url) if url else None
    if kind == "script":
        path = it.required("path", kinds.path, "the path of a program")
        return replace(channel, path=it.path_of("path", "")) if path else None
    to = it.values("to", kinds.mail_address)
    if not to and not it.items("to"):
        it.sheet.problem(replace(it.start, key=it.key("to")), "is missing; expected who gets the mail")
    return _mail_server(it, replace(channel, to=to, sender=it.value("from", kinds.mail_address, _default_sender())))


def _mail_server(it: Section, channel: Channel) -> Channel:
    host, port = it.value("server", kinds.host_and_port, ("localhost", 0))
    is_local = host in ("localhost", "127.0.0.1")
    security = it.value("security", kinds.choice("none", "starttls", "tls"), "none" if is_local else "starttls")
    user = it.value("user", kinds.text, "")
    if user and security == "none" and not is_local:
        it.sheet.wrong(it.key("user"), "its password would be readable on the way; set security: starttls, or tls")
    default = {"none": 25, "starttls": 587, "tls": 465}[security]
    return replace(channel, server=host, port=port or default, security=security, user=user)
