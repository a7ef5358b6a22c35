"""config.yaml, .env and the environment: what is accepted, and every problem with its file, line and key."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utility.config import (
    Config,
    ConfigError,
    Healing,
    Monitoring,
    Ports,
    Problem,
    SnmpAccess,
    Subnet,
    Web,
    load_config,
    with_calibrations,
)
from utility.rules import BUILT_IN, AlertSeverity

ROOT = Path(__file__).parent.parent

LISTEN = "expected an address of this machine, like 127.0.0.1, or 0.0.0.0 for all of them"
BASE = """\
private_number: 4
server_address: 172.30.4.1
subnet_mask: 255.255.255.0
interface: ens4
switches:
  - address: 172.30.4.254
    pi_addresses:
      - 172.30.4.13
      -
      - 172.30.4.15
"""


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes, env: str = "", environ: dict[str, str] | None = None) -> Config:
    """Load `text` as ./config.yaml, with `env` as ./.env."""
    Path("config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    if env:
        Path(".env").write_text(env)
    return load_config(Path("config.yaml"), environ=environ or {})


def problems(text: str | bytes, env: str = "", environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, env, environ)
    assert str(caught.value).split("\n") == [str(each) for each in caught.value.problems]
    return str(caught.value).split("\n")


def with_lines(*lines: str) -> str:
    """BASE, then lines; the first of them is line 11."""
    return BASE + "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------ what is right


def test_the_examples_load_as_they_are(folder: Path) -> None:
    config = load_config(ROOT / "config.yaml", ROOT / ".env.example", {})
    assert config.switches[0].pi_addresses == (ip("172.30.4.13"), None, ip("172.30.4.15"), ip("172.30.4.16"))
    assert config.switches[1].name == "upper"
    assert config.switches[1].protected_ports == frozenset({47, 48})


def test_the_defaults_that_the_example_shows_are_the_defaults(folder: Path) -> None:
    text = (ROOT / "config.yaml").read_text()
    shown = text[text.index("# lease_time") :].replace("\n# ", "\n").removeprefix("# ")
    keys = ("router", "dns", "domain", "ntp_servers", "pool", "site")  # none by default
    shown = "\n".join(line for line in shown.split("\n") if not line.startswith(keys))
    start = shown.index("subnets:")
    subnets = shown[start : shown.index("serve_firmware_updates")]
    assert len(load(BASE + subnets).subnets) == 1
    shown = shown.replace(subnets, "")
    assert load(BASE + shown) == load(BASE)


def test_defaults(folder: Path) -> None:
    assert load(BASE) == Config(
        path=folder / "config.yaml",
        private_number=4,
        server_address=ip("172.30.4.1"),
        network=IPv4Network("172.30.4.0/24"),
        interface="ens4",
        switches=load(BASE).switches,
        boot_dir=folder / "install/boot",
        image=folder / "install/boot/rootfs.tgz",
        state_dir=folder / "state",
        log_dir=folder / "logs",
    )
    assert load(BASE).taken == {ip("172.30.4.1"), ip("172.30.4.254")}
    assert load(BASE).pi_addresses == (ip("172.30.4.13"), ip("172.30.4.15"))


FULL = """\
private_number: 7
server_address: 10.7.0.2
subnet_mask: 255.255.0.0
interface: eth0.7
switch_count: 2
switches:
  - swtich_0_address: 10.7.0.9
    name: lower
    off_time: 2.5
    driver: snmp
    protected_ports: [1, 3-5]
    snmp: {version: 1, read_community: 'r{private_number}', port: 1161}
    pi_addresses: 10.7.1.1
  - switch_1_address: 10.7.0.8
    pi_addresses:
lease_time: 60
router: 10.7.0.1
dns: [10.7.0.1, 9.9.9.9]
site: Lab 2
domain: rack.example.org
ntp_servers: 10.7.0.3, 10.7.0.4
boot_dir: boot
image: images/a.tgz
state_dir: /var/lib/piman
log_dir: log
ports: {dhcp: 1067, tftp: 1069, hello: 4333, image: 5444, ntp: 1123, web: 8080}
services: [ntp, dhcp, ntp]
unknown_pis: pool
pool: 10.7.9.1 - 10.7.9.99
dhcp_mode: server
reply_delay: 2
subnets:
  - {network: 10.8.0.0/24, router: 10.8.0.1}
  - network: 10.9.0.0
    subnet_mask: 255.255.255.0
    router: 10.9.0.1
    lease_time: 300
    dns: 10.9.0.2
    domain: far.example.org
    ntp_servers: [10.9.0.3]
    pool: 10.9.0.100-10.9.0.150
serve_firmware_updates: [Pi1, B8-27-EB-01-02-03]
local_stratum: none
ntp_rate_limit: 0.5
snmp: {write_community: w, timeout: 0.5, retries: 0}
monitoring: {interval: 30, timeout: 30, port: 3001, thresholds: {cpu: 80, temperature: 70.5}}
web: {address: [0.0.0.0, "::1"], names: Rack.example.org, tls: on, certificate: c.pem, key: /k.pem}
"""


def test_every_key(folder: Path) -> None:
    config = load(FULL)
    lower, upper = config.switches
    assert (lower.address, lower.name, lower.off_time, lower.driver) == (ip("10.7.0.9"), "lower", 2.5, "auto")
    assert lower.protected_ports == {1, 3, 4, 5}
    assert lower.snmp == SnmpAccess("1", "r7", "w", 1161, 0.5, 0)
    assert lower.pi_addresses == (ip("10.7.1.1"),)
    assert (upper.index, upper.address, upper.pi_addresses) == (1, ip("10.7.0.8"), ())
    assert upper.snmp == config.snmp == SnmpAccess("2c", "public", "w", 161, 0.5, 0)
    rest = {name: getattr(config, name) for name in ("lease_time", "router", "dns", "domain", "ntp_servers")}
    assert rest == {
        "lease_time": 60,
        "router": ip("10.7.0.1"),
        "dns": (ip("10.7.0.1"), ip("9.9.9.9")),
        "domain": "rack.example.org",
        "ntp_servers": (ip("10.7.0.3"), ip("10.7.0.4")),
    }
    assert (config.boot_dir, config.image) == (folder / "boot", folder / "images/a.tgz")
    assert (config.state_dir, config.log_dir) == (Path("/var/lib/piman"), folder / "log")
    assert config.ports == Ports(1067, 1069, 4333, 5444, 1123, 8080)
    assert (config.services, config.site) == (("ntp", "dhcp"), "Lab 2")
    assert (config.unknown_pis, config.pool) == ("pool", (ip("10.7.9.1"), ip("10.7.9.99")))
    assert (config.dhcp_mode, config.reply_delay) == ("server", 2.0)
    near, far = config.subnets
    assert near == Subnet(
        IPv4Network("10.8.0.0/24"), ip("10.8.0.1"), 60, config.dns, "rack.example.org", config.ntp_servers
    )
    assert far == Subnet(
        IPv4Network("10.9.0.0/24"), ip("10.9.0.1"), 300, (ip("10.9.0.2"),), "far.example.org", (ip("10.9.0.3"),),
        (ip("10.9.0.100"), ip("10.9.0.150")),
    )  # fmt: skip
    assert config.networks == (config.network, near.network, far.network)
    assert config.serve_firmware_updates == frozenset({"pi1", "b8:27:eb:01:02:03"})
    assert (config.local_stratum, config.ntp_rate_limit) == (None, 0.5)
    assert {ip("10.8.0.1"), ip("10.9.0.1")} < config.taken
    rules = {rule.name: rule for rule in config.monitoring.rules}
    assert config.monitoring == Monitoring(30, 30, 3001, tuple(rules.values()))
    assert rules["cpu_percent"].expression == "cpu_percent > 80 for 30m clear < 71.6 for 1m"
    assert rules["temperature"].raised.number == 70.5
    assert ip("10.7.0.1") in config.taken
    web = Web(("0.0.0.0", "::1"), ("rack.example.org",), "on", folder / "c.pem", Path("/k.pem"))
    assert config.web == web
    assert not web.is_local
    assert Web().is_local


@pytest.mark.parametrize("key", ["swtich_0_address", "switch_0_address", "switch_address", "address"])
def test_the_spellings_of_a_switch_address(folder: Path, key: str) -> None:
    assert load(BASE.replace("address: 172.30.4.254", f"{key}: 172.30.4.254")) == load(BASE)


ALERTS = """\
monitoring:
  thresholds:
    temperature: 70
  rules:
    - disk_percent > 80 for 10m
    - name: lab-heat
      when: temperature > 60 for 1m clear < 55
      severity: critical
      only: [lab-*, 172.30.4.15]
    -
    - name: card_errors
      enabled: false
    - {name: temperature, severity: info}
    - {when: up == 0 for 5m}
  channels:
    - slack
    - https://hooks.slack.com/services/T0/B0/hushhush
    - https://discord.com/api/webhooks/1/hushhush
    - https://chat.example.org/hooks/hushhush
    - https://example.org/alerts?key=hushhush
    - ops@example.org
    - mailto:boss@example.org
    - bin/alert.sh
    - type: email
      name: mail
      to: [a@example.org, b@example.org]
      from: piman@example.org
      server: mail.example.org
      user: piman
      severity: critical
      resolved: false
    - {type: email, to: [a@example.org], server: "mail.example.org:2525", security: tls}
    - {type: slack, name: second, url: https://discord.com/api/webhooks/1/hushhush/slack}
    - {type: webhook, url: "http://172.30.4.9:8080/x"}
    - {type: script, path: /usr/local/bin/alert}
  healing: {after: 10m, cooldown: 600, per_pi: 2, per_rack: 4, reinstall: true, boot_after: 2m, boot_tries: 1}
"""
ALERT_SECRETS = {
    "PIMAN_SLACK_WEBHOOK": "https://hooks.slack.com/services/T0/B0/hushmost",
    "PIMAN_SMTP_PASSWORD": "hushpass",
    "PIMAN_WEBHOOK_TOKEN": "hushtoken",
}


def test_rules_are_laid_over_those_built_in(folder: Path) -> None:
    rules = {rule.name: rule for rule in load(BASE + ALERTS, environ=ALERT_SECRETS).monitoring.rules}
    assert list(rules) == [*(rule.name for rule in BUILT_IN), "lab-heat"]
    assert rules["disk_percent"].expression == "disk_percent > 80 for 10m"
    assert rules["disk_percent"].source == "config.yaml line 15"
    short = load(BASE + "monitoring: {rules: [switch_up == 0, load1 > 9]}\n").monitoring.rules
    assert {rule.name: rule.severity for rule in short}["switch_up"] is AlertSeverity.CRITICAL
    heat = rules["lab-heat"]
    assert (heat.severity, heat.only) == (AlertSeverity.CRITICAL, ("lab-*", "172.30.4.15"))
    assert heat.expression == "temperature > 60 for 1m clear < 55"
    assert not rules["card_errors"].enabled
    assert (rules["temperature"].raised.number, rules["temperature"].severity) == (70, AlertSeverity.INFO)
    assert (rules["up"].raised.seconds, rules["up"].severity) == (300, AlertSeverity.CRITICAL)
    assert rules["switch_up"] in BUILT_IN


def test_channels(folder: Path) -> None:
    config = load(BASE + ALERTS, environ=ALERT_SECRETS)
    channels = {channel.name: channel for channel in config.monitoring.channels}
    assert list(channels) == [
        "slack", "slack-2", "slack-3", "slack-4", "webhook", "email", "email-2", "script", "mail", "email-3", "second",
        "webhook-2", "script-2",
    ]  # fmt: skip
    assert [channels[name].url.rpartition("/")[2] for name in list(channels)[:4]] == [
        "hushmost", "hushhush", "slack", "hushhush"
    ]  # fmt: skip
    webhook = channels["webhook"]
    assert (webhook.kind, webhook.url, webhook.secret) == (
        "webhook", "https://example.org/alerts?key=hushhush", "hushtoken"
    )  # fmt: skip
    assert (channels["email"].to, channels["email-2"].to) == (("ops@example.org",), ("boss@example.org",))
    email = channels["email"]
    assert (email.server, email.port, email.security, email.user) == ("localhost", 25, "none", "")
    assert email.sender.startswith("piman@")
    mail = channels["mail"]
    assert (mail.server, mail.port, mail.security, mail.user) == ("mail.example.org", 587, "starttls", "piman")
    assert (mail.secret, mail.severity, mail.resolved) == ("hushpass", AlertSeverity.CRITICAL, False)
    assert (mail.to, mail.sender) == (("a@example.org", "b@example.org"), "piman@example.org")
    assert (channels["email-3"].port, channels["email-3"].security) == (2525, "tls")
    assert channels["second"].url == "https://discord.com/api/webhooks/1/hushhush/slack"
    assert (channels["script"].path, channels["script-2"].path) == (
        folder / "bin/alert.sh",
        Path("/usr/local/bin/alert"),
    )
    assert "hush" not in repr(config)


def test_a_webhook_for_slack_is_a_channel_by_itself(folder: Path) -> None:
    assert [each.kind for each in load(BASE, environ=ALERT_SECRETS).monitoring.channels] == ["slack"]
    assert load(BASE).monitoring.channels == ()
    assert len(load(BASE + "monitoring: {channels: slack}\n", environ=ALERT_SECRETS).monitoring.channels) == 1


def test_healing(folder: Path) -> None:
    config = load(BASE + ALERTS, environ=ALERT_SECRETS)
    assert config.monitoring.healing == Healing(True, False, 600, 600, 2, 4, True, 120, 1)
    assert load(BASE).monitoring.healing == Healing(enabled=False)
    assert load(BASE + "monitoring: {healing: true}\n").monitoring.healing == Healing(enabled=True)
    assert load(BASE + "monitoring: {healing: false}\n").monitoring.healing == Healing()
    assert load(BASE + "monitoring: {healing: dry-run}\n").monitoring.healing == Healing(enabled=True, dry_run=True)
    assert load(BASE + "monitoring: {healing: {enabled: dry-run}}\n").monitoring.healing.dry_run


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("rules: [temprature > 80]",
         "rules[0]: found 'temprature > 80'; 'temprature' is no measure; did you mean temperature?"),
        ("rules: [temperature > hot]",
         "rules[0]: found 'temperature > hot'; expected a number after '>', found 'hot'"),
        ("rules: [up == 0, up == 0 for 3m]",
         "rules[1]: up is already the name of a rule, in line 12; name it"),
        ("rules: [{name: heat}]",
         "rules[0].when: is missing; expected a rule, like up == 0 for 2m, or a name it has"),
        ("rules: [{when: disk_percent > 950}]",
         "rules[0].when: found 'disk_percent > 950'; disk_percent is a percentage; expected 0 to 100, found '950'"),
        ("rules: [{when: up == 0, severity: bad}]",
         "rules[0].severity: found 'bad'; expected info, warning, critical"),
        ("rules: [{when: up == 0, enabled: perhaps}]",
         "rules[0].enabled: found 'perhaps'; expected true or false"),
        ("rules: [{when: up == 0, name: a b}]",
         "rules[0].name: found 'a b'; expected a name of letters, digits, _ . and -"),
        ("rules: [{when: up == 0, fro: 2m}]",
         "rules[0].fro: unknown key; known here: name, when, severity, enabled, only"),
        ("rules: {up: 1}", "rules: found keys with values; expected a list"),
        ("rules: [[up]]", "rules[0]: found a list; expected one value"),
        ("channels: [slack]",
         "channels[0]: needs its address, which is a secret; put PIMAN_SLACK_WEBHOOK=... into .env"),
        ("channels: [pigeon]", ("channels[0]: expected slack, an address like ops@example.org or https://example.org/alerts,"
         " the path of a script, or keys (the value is a secret and not shown)")),
        ("channels: [{type: pigeon}]",
         "channels[0].type: found 'pigeon'; expected slack or email or webhook or script"),
        ("channels: [{url: https://x.org}]", "channels[0].type: is missing; expected slack, email, webhook or script"),
        ("channels: [{type: slack, url: https://x.org/, to: [a@x.org]}]",
         "channels[0].to: is not for a channel of type slack"),
        ("channels: [{type: webhook}]",
         "channels[0].url: is missing; expected an address, like https://example.org/alerts"),
        ("channels: [{type: webhook, url: ftp://hush.org}]", ("channels[0].url: expected an address that begins with"
         " https:// or http:// (the value is a secret and not shown)")),
        ("channels: [{type: webhook, url: 'https://h:0'}]", ("channels[0].url: expected an address that begins with"
         " https:// or http:// (the value is a secret and not shown)")),
        ("channels: [{type: webhook, url: 'https://h:x'}]", ("channels[0].url: expected an address that begins with"
         " https:// or http:// (the value is a secret and not shown)")),
        ("channels: ['https://me:hush@example.org/']", ("channels[0]: expected an address without a user in it; a token"
         " goes into .env as PIMAN_WEBHOOK_TOKEN=... (the value is a secret and not shown)")),
        ("channels: [{type: script}]", "channels[0].path: is missing; expected the path of a program"),
        ("channels: [{type: email}]", "channels[0].to: is missing; expected who gets the mail"),
        ("channels: [{type: email, to: [x]}]",
         "channels[0].to[0]: found 'x'; expected an address, like ops@example.org"),
        ("channels: [{type: email, to: [a@x.org], server: 'a b'}]",
         "channels[0].server: found 'a b'; expected a server, like mail.example.org or mail.example.org:587"),
        ("channels: [{type: email, to: [a@x.org], server: 'a:70000'}]",
         "channels[0].server: found 'a:70000'; expected a server, like mail.example.org or mail.example.org:587"),
        ("channels: [{type: email, to: [a@x.org], user: me}]",
         "channels[0]: needs the password of its user; put PIMAN_SMTP_PASSWORD=... into .env"),
        ("channels: [a@x.org, {type: email, name: email, to: [a@x.org]}]",
         "channels[1]: email is already the name of a channel"),
        ("healing: perhaps", "healing: found 'perhaps'; expected true or false or dry-run"),
        ("healing: {after: soon}",
         "healing.after: found 'soon'; 'soon' is no time; expected one like 30s, 2m, 1h30m or 1d"),
        ("healing: {after: 1s}", "healing.after: found '1s'; expected a time from 60 to 86400 seconds"),
        ("healing: {per_day: 3}", "healing.per_day: unknown key; did you mean `per_rack`?"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_alerts_has_its_line(folder: Path, line: str, report: str) -> None:
    assert problems(with_lines("monitoring:", f"  {line}"))[0] == f"config.yaml:12: monitoring.{report}"


def test_a_password_is_not_sent_in_clear(folder: Path) -> None:
    line = "monitoring: {channels: [{type: email, to: [a@x.org], server: x.org, user: me, security: none}]}"
    (report,) = problems(with_lines(line), environ=ALERT_SECRETS)
    assert report.endswith("its password would be readable on the way; set security: starttls, or tls")


def test_a_short_interval_shortens_the_timeout_of_a_poll(folder: Path) -> None:
    assert load(BASE).monitoring == Monitoring(10, 3, 3000)
    assert load(BASE + "monitoring: {interval: 1}\n").monitoring.timeout == 1


def test_a_bare_image_name_is_in_boot_dir(folder: Path) -> None:
    assert load(with_lines("image: bookworm.tgz")).image == folder / "install/boot/bookworm.tgz"


def test_no_switches_and_a_byte_order_mark_and_windows_lines(folder: Path) -> None:
    text = BASE[: BASE.index("switches")] + "switches: []\n"
    assert load(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()).switches == ()


def test_empty_values_are_as_if_they_were_not_there(folder: Path) -> None:
    lines = with_lines("lease_time:", "router: ~", "dns:", "services: []", "ports:", "snmp: ''", "monitoring:")
    assert load(lines) == load(BASE)


@pytest.mark.parametrize(("text", "updates"), [("true", True), ("False", False), ("[true]", True), ("[]", False)])
def test_firmware_updates_for_all_or_none(folder: Path, text: str, updates: bool) -> None:
    assert load(with_lines(f"serve_firmware_updates: {text}")).serve_firmware_updates is updates


def test_a_pi_may_be_on_a_far_network_and_two_of_these_must_not_overlap(folder: Path) -> None:
    far = "subnets: [{network: 10.2.0.0/24, router: 10.2.0.1}]"
    assert ip("10.2.0.13") in load(BASE.replace("172.30.4.13", "10.2.0.13") + far).pi_addresses
    assert problems(BASE.replace("172.30.4.13", "10.3.0.13") + far) == [
        (
            "config.yaml:8: switches[0].pi_addresses[0]: 10.3.0.13 is outside 172.30.4.0/24, 10.2.0.0/24;"
            " give an address of one of these networks"
        )
    ]
    twice = far.replace("]", ", {network: 10.2.0.128/25, router: 10.2.0.129}]")
    assert problems(BASE + twice) == [
        "config.yaml:11: subnets[1].network: 10.2.0.128/25 overlaps 10.2.0.0/24, subnets[0]"
    ]


# ------------------------------------------------------------------------------------------------- .env, environment


def test_the_environment_wins_over_env_and_env_over_the_file(folder: Path) -> None:
    text = with_lines("lease_time: 100", "ports: {tftp: 1000, ntp: 1001}", "dns: [1.1.1.1]", "boot_dir: a")
    env = "PIMAN_LEASE_TIME=200\nexport PIMAN_PORTS_TFTP=2000\nPIMAN_DNS=2.2.2.2, 3.3.3.3\nPIMAN_DOMAIN=\nOTHER=1\n"
    config = load(text, env, {"PIMAN_LEASE_TIME": "300", "PIMAN_UNHEARD_OF": "x", "PIMAN_SERVER_ADDRESS": ""})
    assert (config.lease_time, config.ports.tftp, config.ports.ntp) == (300, 2000, 1001)
    assert config.dns == (ip("2.2.2.2"), ip("3.3.3.3"))
    assert load(BASE, "", {"PIMAN_SERVICES": "dhcp", "PIMAN_MONITORING_INTERVAL": "5"}).services == ("dhcp",)


def test_secrets(folder: Path) -> None:
    env = 'PIMAN_SNMP_READ_COMMUNITY="r{private_number}"\nPIMAN_SNMP_WRITE_COMMUNITY=hush-w\n'
    config = load(BASE, env + "PIMAN_SLACK_WEBHOOK=https://hush\nPIMAN_WEB_PASSWORD='hush ${HOME}'\n")
    assert config.switches[0].snmp == config.snmp == SnmpAccess("2c", "r4", "hush-w")
    assert (config.slack_webhook, config.web_password) == ("https://hush", "hush ${HOME}")
    assert "hush" not in repr(config)


V3 = """\
private_number: 4
server_address: 172.30.4.1
subnet_mask: 255.255.255.0
interface: ens4
snmp: {version: 3, user: piman, auth_protocol: sha256, priv_protocol: AES128}
switches:
  - address: 172.30.4.254
  - {address: 172.30.4.253, name: rack-b, snmp: {auth_protocol: sha-1, priv_protocol: des}}
  - {address: 172.30.4.252, snmp: {version: 2c, read_community: look}}
"""


def test_version_3_has_its_passwords_in_env_for_all_switches_and_for_one(folder: Path) -> None:
    env = "PIMAN_SNMP_AUTH_PASSWORD=hush-hush\nPIMAN_SNMP_PRIV_PASSWORD=hush-priv\nPIMAN_SNMP_RACK_B_USER=other\n"
    environ = {"PIMAN_SNMP_RACK_B_PRIV_PASSWORD": "hush-rack-b", "PIMAN_SNMP_0_RETRIES": "5"}
    first, second, third = load(V3, env, environ).switches
    base = SnmpAccess("3", user="piman", auth_protocol="SHA-256", auth_password="hush-hush", priv_password="hush-priv")
    assert first.snmp == dataclasses.replace(base, retries=5)
    assert second.snmp == dataclasses.replace(
        base, user="other", auth_protocol="SHA", priv_protocol="DES", priv_password="hush-rack-b"
    )
    assert third.snmp == dataclasses.replace(base, version="2c", read_community="look")
    assert "hush" not in repr(load(V3, env, environ))


def test_what_trials_have_shown_reaches_the_switches(folder: Path) -> None:
    config = with_calibrations(load(BASE), {"172.30.4.254": {(1, 3): 103}, "172.30.4.9": {(1, 3): 9}})
    assert config.switches[0].calibrated == {(1, 3): 103}
    assert with_calibrations(config, {}) == load(BASE)


def test_a_switch_that_falls_over_getbulk(folder: Path) -> None:
    assert load(BASE).snmp.bulk
    assert not load(with_lines("snmp: {bulk: False}")).switches[0].snmp.bulk


def test_problems_of_a_switchs_own_variables(folder: Path) -> None:
    env = "PIMAN_SNMP_RACK_C_USER=x\nPIMAN_SNMP_0_AUTH_PASSWORD=hush\nPIMAN_SNMP_RACK_B_TIMEOUT=0\n"
    assert problems(V3.replace("{auth_protocol: sha-1", "{auth_password: hush, auth_protocol: sha-1"), env)[0] == (
        "config.yaml:8: switches[1].snmp.auth_password: a secret is kept out of this file;"
        " put PIMAN_SNMP_RACK_B_AUTH_PASSWORD=... into .env"
    )
    assert problems(V3, env) == [
        ".env:1: PIMAN_SNMP_RACK_C_USER: there is no switch RACK_C; known here: 0, RACK_B, 2",
        (
            ".env:2: PIMAN_SNMP_0_AUTH_PASSWORD: expected a password of 8 to 255 characters, as SNMP 3 wants it"
            " (the value is a secret and not shown)"
        ),
        ".env:3: PIMAN_SNMP_RACK_B_TIMEOUT: found '0'; expected a number of seconds from 0.1 to 60",
    ]
    twins = V3.replace("- {address: 172.30.4.252,", "- {address: 172.30.4.252, name: rack_b,")
    assert problems(twins, env)[-1] == (
        ".env:3: PIMAN_SNMP_RACK_B_TIMEOUT: 2 switches are called RACK_B here; rename one"
    )


def test_a_secret_is_in_no_problem(folder: Path) -> None:
    long = "hush" * 100
    found = problems(
        with_lines(f"snmp: {{read_community: {long}}}", "monitoring: {channels: [!hush x]}", "web_password: hush"),
        f"PIMAN_SNMP_WRITE_COMMUNITY={long}\nPIMAN_HUSH\n=hush\n",
    )
    assert "hush" not in "".join(found)
    assert found == [
        (
            "config.yaml:11: snmp.read_community: expected a community of 1 to 255 characters"
            " (the value is a secret and not shown)"
        ),
        "config.yaml:12: monitoring.channels[0]: begins with `!`; put quotes around the value",
        "config.yaml:13: web_password: a secret is kept out of this file; put PIMAN_WEB_PASSWORD=... into .env",
        (
            ".env:1: PIMAN_SNMP_WRITE_COMMUNITY: expected a community of 1 to 255 characters"
            " (the value is a secret and not shown)"
        ),
        f".env:2: PIMAN_HUSH: unknown variable; known here: {', '.join(known_variables())}",
        ".env:3: expected NAME=value",
    ]
    assert problems(with_lines("snmp: {read_community: *hush}"))[0].startswith("config.yaml:11: is no YAML here: ")
    assert "hush" not in str(problems(with_lines("snmp: {read_community: *hush}")))
    assert "hush" not in str(problems(with_lines("snmp: {read_community: !hush!x y}")))


def known_variables() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(BASE, "PIMAN_0=1")
    return caught.value.problems[0].text.partition("known here: ")[2].split(", ")


def test_a_variable_for_every_scalar_key(folder: Path) -> None:
    names = set(known_variables())
    skipped = {"path", "network", "switches", "subnets", "ports", "snmp", "monitoring", "web"}
    for each in dataclasses.fields(Config):
        assert each.name in skipped or f"PIMAN_{each.name.upper()}" in names
    assert {"PIMAN_SUBNET_MASK", "PIMAN_SWITCH_COUNT", "PIMAN_SNMP_TIMEOUT", "PIMAN_PORTS_WEB"} < names


def test_problems_of_variables(folder: Path) -> None:
    env = "\n# c\n\nPIMAN_LEASE_TIME=soon\nPIMAN_ROUTER=10.0.0.1\nPIMAN_LEESE_TIME=1\nPIMAN_ROUTER=x\nPIMAN_LAB_X=1\n"
    assert problems(BASE, env + "PIMAN_CONFIG=x\n", {"PIMAN_PORTS_WEB": "0", "PIMAN_DNS": "a"}) == [
        ".env:4: PIMAN_LEASE_TIME: found 'soon'; expected a whole number from 10 to 31536000",
        ".env:5: PIMAN_ROUTER: 10.0.0.1 is outside 172.30.4.0/24; give an address of that network",
        ".env:6: PIMAN_LEESE_TIME: unknown variable; did you mean `PIMAN_LEASE_TIME`?",
        ".env:7: PIMAN_ROUTER: given twice; first in line 5",
        "environment: PIMAN_DNS: found 'a'; expected an IPv4 address like 172.30.4.1",
        "environment: PIMAN_PORTS_WEB: found '0'; expected a whole number from 1 to 65535",
    ]


def test_a_problem_of_an_address_in_a_line_of_them(folder: Path) -> None:
    text = BASE.split("    pi_addresses:", maxsplit=1)[0] + "    pi_addresses: 172.30.4.13, 10.0.0.1\n"
    assert problems(text) == [
        "config.yaml:7: switches[0].pi_addresses: 10.0.0.1 is outside 172.30.4.0/24; give an address of that network"
    ]


def test_a_variables_name_moves_no_cursor(folder: Path) -> None:
    (problem,) = problems(BASE, "PIMAN_\x1b[2J=1\n")
    assert problem.startswith(r".env:1: 'PIMAN_\x1b[2J': unknown variable; ")
    (problem,) = problems(BASE, f"PIMAN_{'X' * 99}=1\n")
    assert problem.startswith(f".env:1: 'PIMAN_{'X' * 51}...': unknown variable; ")


def test_relative_paths_start_where_they_are_written(folder: Path) -> None:
    (folder / "rack").mkdir()
    (folder / "etc").mkdir()
    (folder / "rack/config.yaml").write_text(with_lines("log_dir: l", "boot_dir: b"))
    (folder / "etc/env").write_text("PIMAN_BOOT_DIR=b")
    config = load_config(Path("rack/config.yaml"), Path("etc/env"), {"PIMAN_IMAGE": "./i.tgz"})
    assert (config.log_dir, config.boot_dir, config.image) == (folder / "rack/l", folder / "etc/b", folder / "i.tgz")
    assert config.path == folder / "rack/config.yaml"


def test_state_directory_of_systemd_wins(folder: Path) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/piman:/x", "PIMAN_STATE_DIR": "/y"}
    assert load(with_lines("state_dir: s"), environ=environ).state_dir == Path("/var/lib/piman")


def test_the_process_environment_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(BASE)
    monkeypatch.setenv("PIMAN_LEASE_TIME", "77")
    assert load_config(Path("config.yaml")).lease_time == 77


def test_env_files_that_cannot_be_read(folder: Path) -> None:
    Path("config.yaml").write_text(BASE)
    Path("folder").mkdir()
    Path("bytes").write_bytes(b"A=1\nB=\xff\n")
    reports = []
    for name in ("missing", "folder", "bytes"):
        with pytest.raises(ConfigError) as caught:
            load_config(Path("config.yaml"), Path(name), {})
        reports.append(str(caught.value))
    assert reports == [
        "missing: does not exist",
        "folder: cannot be read: Is a directory",
        "bytes:2: byte 0xff is not UTF-8; save the file as UTF-8",
    ]


# ------------------------------------------------------------------------------------------------------ what is wrong


def test_a_missing_file(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("none.yaml"), environ={})
    assert caught.value.problems == (Problem(Path("none.yaml"), 0, "", "does not exist"),)
    assert str(caught.value) == "none.yaml: does not exist"


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("", "config.yaml: is empty; expected private_number, server_address ..."),
        ("# only a comment\n", "config.yaml: is empty; expected private_number, server_address ..."),
        (b"a: 1\nb: \xff\n", "config.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: \x01\n", "config.yaml:2: character '\\x01' is not allowed in YAML; remove it"),
        ("a: 1\nb: [1\n", "config.yaml:3: is no YAML here: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c\n", "config.yaml:1: is no YAML here: mapping values are not allowed here"),
        ("a:\n\t- 1\n", "config.yaml:2: is no YAML here: found character '\\t' that cannot start any token"),
        ("[" * 100_000, "config.yaml: is nested too deeply"),
    ],
)
def test_files_that_are_no_yaml(folder: Path, text: str | bytes, report: str) -> None:
    assert problems(text) == [report]


@pytest.mark.parametrize("text", ["hello", "[1, 2]"])
def test_files_that_are_no_mapping(folder: Path, text: str) -> None:
    found = "a list" if text.startswith("[") else "one value"
    assert problems(text) == [
        f"config.yaml:1: found {found}; expected keys with values",
        "config.yaml:1: private_number: is missing; expected the number of the VLAN, like 4",
        "config.yaml:1: server_address: is missing; expected the manager's address, like 172.30.4.1",
        "config.yaml:1: subnet_mask: is missing; expected a mask, like 255.255.255.0",
        "config.yaml:1: interface: is missing; expected a network interface's name, like eth0",
        "config.yaml:1: switches: is missing; expected a list of switches, or [] for none",
    ]


POOL = "expected the first and the last address, like 172.30.4.100-172.30.4.150"
ADDRESS = "expected an IPv4 address like 172.30.4.1"


@pytest.mark.parametrize(
    ("lines", "report"),
    [
        ("lease_time: 5", "lease_time: found '5'; expected a whole number from 10 to 31536000"),
        ("lease_time: [5]", "lease_time: found a list; expected one value"),
        ("lease_time: {a: 5}", "lease_time: found keys with values; expected one value"),
        ("leese_time: 5", "leese_time: unknown key; did you mean `lease_time`?"),
        ("? [a]\n: 5", "found a list; expected a key"),
        ('"a\\nb": 5', "'a\\nb': unknown key; known here: " + ", ".join(
            ("private_number, server_address, subnet_mask, interface, switch_count, lease_time, router, dns, domain",
             "ntp_servers, dhcp_mode, reply_delay, unknown_pis, pool, serve_firmware_updates, local_stratum",
             "ntp_rate_limit, boot_dir, image, state_dir, log_dir, services, site, switches, drivers, subnets, ports",
             "snmp, monitoring, web"))),
        ("interface: eth1", "interface: given twice; first in line 4"),
        ("router: 172.30.5.1", "router: 172.30.5.1 is outside 172.30.4.0/24; give an address of that network"),
        ("router: 172.30.4.0", "router: 172.30.4.0 is 172.30.4.0/24 itself; give the address of a machine"),
        ("router: 172.30.4.255", "router: 172.30.4.255 is the broadcast address of 172.30.4.0/24"),
        ("router: 0.0.0.0", "router: found '0.0.0.0'; expected the IPv4 address of one machine"),
        ("router: fe80::1", f"router: found 'fe80::1'; {ADDRESS}"),
        ("dns: [1.1.1.1, x]", f"dns[1]: found 'x'; {ADDRESS}"),
        ("dns: {a: b}", "dns: found keys with values; expected a list"),
        ("dns: [[1.1.1.1]]", "dns[0]: found a list; expected one value"),
        ("site: ' lab'", "site: found ' lab'; expected a short name, of letters, digits, spaces and . _ -"),
        ("domain: a..b", "domain: found 'a..b'; expected a domain name, like rack.example.org"),
        ('boot_dir: "a\\0b"', "boot_dir: found 'a\\x00b'; expected a path"),
        (f"domain: {'-' * 80}", f"domain: found '{'-' * 57}...'; expected a domain name, like rack.example.org"),
        ("services: [dhcp, http]",
         "services[1]: found 'http'; expected dhcp or tftp or hello or ntp or web or monitoring"),
        ("switch_count: 2", "switch_count: found 2; expected 1, the number of switches in the list"),
        ("switch_count: two", "switch_count: found 'two'; expected a whole number from 0 to 1000"),
        ("web: {address: here}", f"web.address: found 'here'; {LISTEN}"),
        ("web: {tls: yes}", "web.tls: found 'yes'; expected auto or on or off"),
        ("web: {key: k.pem}", "web.key: needs `certificate:` beside it"),
        ("ports: [1]", "ports: found a list; expected keys with values"),
        ("ports: {tftp: 67}", "ports.tftp: port 67 is also the port of dhcp"),
        ("ports: {hello: 4444}", "ports.hello: port 4444 is also the port of image"),
        ("ports: {dns: 53}", "ports.dns: unknown key; known here: dhcp, tftp, hello, image, ntp, web"),
        ("snmp: {version: 2}", "snmp.version: found '2'; expected 1 or 2c or 3"),
        ("snmp: {bulk: 1}", "snmp.bulk: found '1'; expected true or false"),
        ("snmp: {user: two words}", "snmp.user: found 'two words'; expected a user's name of 1 to 32 characters"),
        ("snmp: {auth_protocol: sha3}", ("snmp.auth_protocol: found 'sha3'; expected MD5, SHA, SHA-224, SHA-256,"
         " SHA-384, SHA-512 or none")),
        ("snmp: {auth_password: hush}",
         "snmp.auth_password: a secret is kept out of this file; put PIMAN_SNMP_AUTH_PASSWORD=... into .env"),
        ("snmp: {version: 3, auth_protocol: none, priv_protocol: none}", ("snmp.version: version 3 needs a user; give"
         " `user:`, or put PIMAN_SNMP_USER=... (or PIMAN_SNMP_0_USER for this switch alone) into .env")),
        ("snmp: {version: 3, user: u, auth_protocol: none}",
         "snmp.version: priv_protocol needs an auth_protocol; set it, or priv_protocol none too"),
        ("snmp: {version: 3, user: u, priv_protocol: none}", ("snmp.version: no password for auth_protocol SHA; put"
         " PIMAN_SNMP_AUTH_PASSWORD=... (or PIMAN_SNMP_0_AUTH_PASSWORD for this switch alone) into .env,"
         " or set auth_protocol none")),
        ("snmp: {timeout: 0}", "snmp.timeout: found '0'; expected a number of seconds from 0.1 to 60"),
        ("monitoring: {interval: 2, timeout: 2.5}",
         "monitoring.timeout: found 2.5; expected less than the interval, 2 s"),
        ("monitoring: {thresholds: {cpu: hot}}",
         "monitoring.thresholds.cpu: found 'hot'; expected a number from -1e+09 to 1e+12"),
        ("monitoring: {thresholds: {tempratur: 3}}",
         "monitoring.thresholds.tempratur: no rule has this name; did you mean `temperature`?"),
        ("monitoring: {thresholds: {up: 1}}",
         "monitoring.thresholds.up: up is yes or no and has no threshold"),
        ("monitoring: {thresholds: [1]}", "monitoring.thresholds: found a list; expected keys with values"),
        ("unknown_pis: adopt", "unknown_pis: found 'adopt'; expected ignore or pool or approve"),
        ("unknown_pis: pool",
         "unknown_pis: found 'pool', but there is no `pool:`; add one, like 172.30.4.100-172.30.4.150"),
        ("unknown_pis: pool\ndhcp_mode: proxy",
         "unknown_pis: found 'pool', but dhcp_mode proxy gives no addresses; use ignore or approve"),
        ("dhcp_mode: relay", "dhcp_mode: found 'relay'; expected server or proxy"),
        ("reply_delay: soon", "reply_delay: found 'soon'; expected a number of seconds from 0 to 10, or auto"),
        ("reply_delay: 11", "reply_delay: found '11'; expected a number of seconds from 0 to 10, or auto"),
        ("local_stratum: 16", "local_stratum: found '16'; expected a whole number from 1 to 15, or none"),
        ("ntp_rate_limit: 0", "ntp_rate_limit: found '0'; expected a number of seconds from 0.1 to 3600, or none"),
        ("serve_firmware_updates: pi_1",
         "serve_firmware_updates: found 'pi_1'; expected true, false, or a list of hostnames and MACs"),
        ("serve_firmware_updates: [pi1, '*']",
         "serve_firmware_updates[1]: found '*'; expected true, false, or a list of hostnames and MACs"),
        ("unknown_pis: {a: pool}", "unknown_pis: found keys with values; expected one value"),
        ("pool: 172.30.4.100", f"pool: found '172.30.4.100'; {POOL}"),
        ("pool: 172.30.4.100-x", f"pool: found '172.30.4.100-x'; {POOL}"),
        ("pool: 172.30.4.9-172.30.4.8", "pool: found '172.30.4.9-172.30.4.8'; the first address comes after the last"),
        ("pool: 10.0.0.1-11.0.0.1", "pool: found '10.0.0.1-11.0.0.1'; a pool has at most 65536 addresses"),
        ("pool: 172.30.4.250-172.30.5.9",
         "pool: 172.30.5.9 is outside 172.30.4.0/24; give an address of that network"),
        ("pool: 172.30.4.14-172.30.4.20", ("pool: has 172.30.4.15 in it, which is switches[0].pi_addresses[2]"
         " (line 10); give the pool addresses that nobody has")),
        ("pool: 172.30.4.250-172.30.4.254", ("pool: has 172.30.4.254 in it, which is switches[0] (line 6); give the"
         " pool addresses that nobody has")),
        ("subnets: here", "subnets: found one value; expected a list of networks"),
        ("subnets: [here]", "subnets[0]: found one value; expected keys with values"),
        ("subnets: [{}]", "subnets[0].network: is missing; expected a network, like 10.2.0.0/24"),
        ("subnets: [{network: 10.2.0.0/24}]",
         "subnets[0].router: is missing; expected its router, by which its Pis reach this manager"),
        ("subnets: [{network: x, router: 10.2.0.1}]",
         "subnets[0].network: found 'x'; expected a network, like 10.2.0.0/24"),
        ("subnets: [{network: 10.2.0.1/24, router: 10.2.0.1}]",
         "subnets[0].network: found '10.2.0.1/24'; expected a network, like 10.2.0.0/24"),
        ("subnets: [{network: 10.2.0.0/31, router: 10.2.0.1}]",
         "subnets[0].network: found '10.2.0.0/31'; expected a network from /8 to /30"),
        ("subnets: [{network: 10.2.0.0, router: 10.2.0.1}]",
         "subnets[0].network: found '10.2.0.0'; expected its size with it, like 10.2.0.0/24"),
        ("subnets: [{network: 10.2.0.0/24, router: 10.3.0.1}]",
         "subnets[0].router: 10.3.0.1 is outside 10.2.0.0/24; give an address of that network"),
        ("subnets: [{network: 172.30.0.0/16, router: 172.30.0.1}]", ("subnets[0].network: 172.30.0.0/16 overlaps"
         " 172.30.4.0/24, the network of server_address")),
        ("subnets: [{network: 10.2.0.0/24, router: 10.2.0.1, pool: 10.2.0.1-10.2.0.9}]", ("subnets[0].pool: has"
         " 10.2.0.1 in it, which is the router of a subnet; give the pool addresses that nobody has")),
        ("subnets: [{network: 10.2.0.0/24, router: 10.2.0.1, pool: 10.3.0.2-10.3.0.9}]",
         "subnets[0].pool: 10.3.0.2 is outside 10.2.0.0/24; give an address of that network"),
        ("subnets: [{network: 10.2.0.0/24, router: 10.2.0.1, vlan: 7}]", ("subnets[0].vlan: unknown key; known here:"
         " network, subnet_mask, router, lease_time, dns, domain, ntp_servers, pool")),
        ("subnets: [{network: 10.2.0.0/24, router: 10.2.0.1}]\ndhcp_mode: proxy",
         "subnets: dhcp_mode proxy gives no addresses; remove these, or set server"),
    ],
)  # fmt: skip
def test_one_wrong_line(folder: Path, lines: str, report: str) -> None:
    assert problems(with_lines(lines))[0] == f"config.yaml:11: {report}"


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        ("4.1\n", "4.0\n", "2: server_address: 172.30.4.0 is 172.30.4.0/24 itself; give the address of a machine"),
        ("255.0", "0.255", ("3: subnet_mask: found '255.255.0.255'; its ones are not all on the left; expected a subnet"
         " mask from 255.0.0.0 to 255.255.255.252, like 255.255.255.0")),
        ("255.255.255.0", "255.255.255.254", ("3: subnet_mask: found '255.255.255.254'; expected a subnet"
         " mask from 255.0.0.0 to 255.255.255.252, like 255.255.255.0")),
        ("255.255.255.0", "/24", ("3: subnet_mask: found '/24'; expected a subnet"
         " mask from 255.0.0.0 to 255.255.255.252, like 255.255.255.0")),
        ("interface: ens4", "interface:", "4: interface: is empty; expected a network interface's name, like eth0"),
        ("ens4", "ens 4", "4: interface: found 'ens 4'; expected a network interface's name, like eth0"),
        ("address: 172.30.4.254", "swtich_1_address: 172.30.4.254", ("6: switches[0].swtich_1_address: this is"
         " switch 0, counted from 0; expected swtich_0_address, or address")),
        ("address: 172.30.4.254", "address: x", f"6: switches[0].address: found 'x'; {ADDRESS}"),
        ("4.254", "5.254", ("6: switches[0].address: 172.30.5.254 is outside 172.30.4.0/24; give an address of that"
         " network")),
        ("4.254", "4.1", "6: switches[0].address: 172.30.4.1 is the server_address"),
        ("4.254", "4.254\n    switch_address: 172.30.4.253", ("7: switches[0].switch_address: is a second address;"
         " the first is address")),
        ("address: 172.30.4.254", "name: a b\n    address: 172.30.4.254", ("6: switches[0].name: found 'a b'; expected"
         " a name of letters, digits, - and _")),
        ("address: 172.30.4.254", "protected_ports: [5-4]\n    address: 172.30.4.254", ("6:"
         " switches[0].protected_ports[0]: found '5-4'; the first port comes after the last")),
        ("4.15", "5.15", ("10: switches[0].pi_addresses[2]: 172.30.5.15 is outside 172.30.4.0/24; give an address of"
         " that network")),
        ("4.15", "4.13", ("10: switches[0].pi_addresses[2]: 172.30.4.13 is already switches[0].pi_addresses[0]"
         " (line 8); give each Pi its own")),
        ("4.15", "4.1", ("10: switches[0].pi_addresses[2]: 172.30.4.1 is already server_address (line 2); give each Pi"
         " its own")),
        ("4.15", "4.254", ("10: switches[0].pi_addresses[2]: 172.30.4.254 is already switches[0] (line 6); give each"
         " Pi its own")),
        ("4.15", "4.255", "10: switches[0].pi_addresses[2]: 172.30.4.255 is the broadcast address of 172.30.4.0/24"),
        ("4.15", "4.15.1", f"10: switches[0].pi_addresses[2]: found '172.30.4.15.1'; {ADDRESS}"),
    ],
)  # fmt: skip
def test_one_wrong_value(folder: Path, old: str, new: str, report: str) -> None:
    assert problems(BASE.replace(old, new, 1)) == [f"config.yaml:{report}"]


def test_a_pi_on_the_router_or_on_a_variable(folder: Path) -> None:
    assert problems(with_lines("router: 172.30.4.13"))[0].endswith(
        "172.30.4.13 is already router (line 11); give each Pi its own"
    )
    assert problems(BASE, environ={"PIMAN_ROUTER": "172.30.4.13"})[0].endswith(
        "172.30.4.13 is already router; give each Pi its own"
    )


@pytest.mark.parametrize(
    ("switches", "report"),
    [
        ("switches:", "5: switches: is empty; expected a list of switches, or [] for none"),
        ("switches: 3", "5: switches: found one value; expected a list of switches, or [] for none"),
        ("switches: {a: 1}", "5: switches: found keys with values; expected a list of switches, or [] for none"),
        ("switches: [x]", "5: switches[0]: found one value; expected keys with values"),
        (
            "switches:\n - {address: 172.30.4.9}\n - {address: 172.30.4.9}",
            "7: switches[1].address: 172.30.4.9 is already the address of switches[0] (line 6)",
        ),
        (
            "switches:\n - {address: 172.30.4.9, snmp: {port: 1161}}\n - {address: 172.30.4.9}",
            "7: switches[1].address: 172.30.4.9 is already the address of switches[0] (line 6)",
        ),
        (
            "switches:\n - {address: 172.30.4.9, driver: aruba}",
            (
                "6: switches[0].driver: found 'aruba'; expected auto or snmp or cisco-ios or cisco-sb or procurve"
                " or aos-cx or comware or netgear or tplink or mikrotik or zyxel or juniper or huawei or dlink"
                " or unifi-switch or standard or exec or unifi or routeros"
            ),
        ),
        (
            "switches:\n - {address: 172.30.4.9, name: a}\n - {address: 172.30.4.8, name: A}",
            "7: switches[1].name: A is already the name of switches[0]",
        ),
    ],
)
def test_wrong_switches(folder: Path, switches: str, report: str) -> None:
    assert problems(BASE[: BASE.index("switches")] + switches + "\n")[0] == f"config.yaml:{report}"


def test_every_problem_is_in_one_report(folder: Path) -> None:
    text = BASE.replace("number: 4", "number: x").replace("4.13", "4.300").replace("ens4", "e/n") + "nonsense: 1\n"
    lines = [line.split(": ")[0] for line in problems(text, "PIMAN_X=1\n", {"PIMAN_LEASE_TIME": "x"})]
    assert lines == [
        "config.yaml:1", "config.yaml:4", "config.yaml:8", "config.yaml:11", ".env:1", "environment",
    ]  # fmt: skip


def test_the_example_of_the_first_release_whose_pis_collide_with_the_server(folder: Path) -> None:
    second = "  - swtich_1_address: 172.30.4.253\n    pi_addresses:\n" + "".join(
        f"      - 172.30.4.{i}\n" for i in range(1, 13)
    )
    assert problems(BASE + second) == [
        (
            "config.yaml:13: switches[1].pi_addresses[0]: 172.30.4.1 is already server_address (line 2);"
            " give each Pi its own"
        )
    ]


# ---------------------------------------------------------------------------------------------------------- any bytes

_PIECES = st.lists(
    st.sampled_from([*BASE.split("\n"), *FULL.split("\n"), "  ", "- ", "{", "}", "[", "]", "&a ", "*a", "!x ",
                     '"\\ud800"',
                     "<<: *a", "---", "? ", "#"])
    | st.text(max_size=8),
    max_size=30,
)  # fmt: skip


def _load_bytes(data: bytes, env: bytes = b"") -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.yaml"
        path.write_bytes(data)
        (Path(name) / ".env").write_bytes(env)
        try:
            assert isinstance(load_config(path, environ={}), Config)
        except ConfigError as error:
            report = error
        else:
            return
    assert report.problems
    assert str(report).encode().count(b"\n") == len(report.problems) - 1


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_bytes_are_a_config_or_a_report(data: bytes, env: bytes) -> None:
    _load_bytes(data, env)


@given(_PIECES, st.booleans(), st.lists(st.sampled_from(["PIMAN_POOL", "=", "\n", "'", '"', "\\", "x", " ", "#"])))
def test_any_shuffled_config_is_a_config_or_a_report(pieces: list[str], whole: bool, env: list[str]) -> None:
    text = (BASE if whole else "") + "\n".join(pieces)
    _load_bytes(text.encode("utf-8", "surrogatepass"), "".join(env).encode())


@given(st.integers(0, len(FULL) - 1), st.integers(0, 20), st.text(max_size=6))
def test_any_damage_to_a_good_file_is_a_config_or_a_report(start: int, length: int, patch: str) -> None:
    _load_bytes((FULL[:start] + patch + FULL[start + length :]).encode())


def test_a_thousand_ports_load_quickly_enough_to_be_read_by_every_command(folder: Path) -> None:
    lines = "".join(f"      - 172.30.{4 + i // 250}.{2 + i % 250}\n" for i in range(1000))
    config = load(BASE.replace("255.255.255.0", "255.255.0.0").split("      - ")[0].replace("4.254", "99.1") + lines)
    assert len(config.pi_addresses) == 1000
    assert os.fspath(config.path)
