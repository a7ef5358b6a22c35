"""What Prometheus is configured with: our alert rules in its language, and prometheus.yml. Text only; pure.

What differs from the rules that Piman puts to the facts itself: `clear` with another number asks Prometheus' own record
of what fires, `clear for` is keep_firing_for (Prometheus 2.42, Debian 12), and of two rules on one measure both fire.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.exporters import FAMILIES
from utility.rules import Condition, Rule, duration_text, shown_value

_OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
# By what a subject is known among the labels.
_KEYS = {"pi": "site, mac", "switch": "site, switch", "manager": "site"}
_NAMES = {"pi": ("name", "address", "mac"), "switch": ("switch", "address"), "manager": ()}
# Why what is not there need not be told of.
_EXCUSES = {
    "pi": (
        "unless on (site, mac) piman_pi_excused == 1",
        "unless on (site, switch) piman_switch_up == 0",
        "unless on (site) piman_manager_network == 0",
    ),
    "switch": ("unless on (site) piman_manager_network == 0",),
    "manager": (),
}
_FORMATS = {"%": "%.0f", "°C": "%.1f", "W": "%.1f", "ms": "%.3f", "s": "%.3g", "": "%.4g", "flag": "%.0f"}
# Rules whose name says what is missed.
_ALERTS = {
    "up": "PimanPiDown",
    "agent": "PimanAgentSilent",
    "switch_up": "PimanSwitchDown",
    "network": "PimanNetworkDown",
}
_SHOWN_AS = {"ms": "s"}  # Prometheus has seconds


@dataclass(frozen=True, slots=True)
class Manager:
    """A manager, as Prometheus reaches it: HOST:PORT. `tls`: https, with a certificate that it made itself."""

    address: str
    tls: bool = False
    token_file: str = ""  # on Prometheus' machine; empty: none is asked for


def alert_name(rule: Rule) -> str:
    """`card_errors` -> PimanCardErrors."""
    if rule.name in _ALERTS:
        return _ALERTS[rule.name]
    return "Piman" + "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", rule.name))


def expression_of(rule: Rule) -> str:
    """The rule's condition in PromQL."""
    about, family = rule.about, FAMILIES[rule.measure]
    series = _selected(rule, family.name)
    value = [f"abs({each})" if about.absolute else each for each in series]
    raised = " or ".join(f"{each} {_comparison(rule.raised, family.scale)}" for each in value)
    if about.presence and rule.raised == Condition("==", 0.0, rule.raised.seconds):
        return " ".join([f"({raised})" if len(value) > 1 else raised, *_EXCUSES[about.subject]])
    if rule.clear is None:
        return raised
    stays = Condition(_OPPOSITE[rule.clear.comparison], rule.clear.number)
    kept = " or ".join(f"{each} {_comparison(stays, family.scale)}" for each in value)
    fires = f'ALERTS{{alertname={_quoted(alert_name(rule))}, alertstate="firing"}}'
    return f"{raised} or ({kept}) and on ({_KEYS[about.subject]}) {fires}"


def _comparison(condition: Condition, scale: float) -> str:
    return f"{condition.comparison} {condition.number * scale:.9g}"


def _selected(rule: Rule, name: str) -> list[str]:
    """The series of those to which the rule applies; several where any of several labels may say so."""
    if not rule.only or not _NAMES[rule.about.subject]:
        return [name]
    pattern = _quoted(f"(?i:{'|'.join(_regex(each) for each in rule.only)})")
    return [f"{name}{{{label}=~{pattern}}}" for label in _NAMES[rule.about.subject]]


def _regex(pattern: str) -> str:
    """A shell pattern as Prometheus' regular expression."""
    found = []
    for piece in re.findall(r"\[!?\]?[^\]]*\]|.", pattern):
        if len(piece) > 1:
            inner = piece[1:-1].replace("\\", r"\\")
            found.append(f"[{'^' + inner[1:] if inner.startswith('!') else inner}]")
        else:
            found.append({"*": ".*", "?": "."}.get(piece) or re.escape(piece))
    return "".join(found)


def _quoted(text: str) -> str:
    """A string of PromQL, and of YAML: both take JSON's."""
    return json.dumps(text, ensure_ascii=False)


def summary_of(rule: Rule) -> str:
    """The words of an alert, with Prometheus' own placeholders."""
    about = rule.about
    value = f'{{{{ $value | printf "{_FORMATS[about.unit]}" }}}}'
    unit = _SHOWN_AS.get(about.unit, about.unit)
    shown = f"{value}{unit}" if unit in ("", "%") else f"{value} {unit}"
    text = about.words.format(value=shown)
    if about.unit == "flag" and rule.raised.holds(1 - about.bad) and not rule.raised.holds(about.bad):
        text = f"{rule.measure} is {shown_value(1 - about.bad, 'flag')}"
    name = {"pi": "{{ $labels.name }}", "switch": "switch {{ $labels.switch }}", "manager": "the manager"}
    return f"{{{{ $labels.site }}}}: {name[about.subject]}: {text}"


def rules_file(rules: Sequence[Rule]) -> str:
    """A rules file for Prometheus: one alert for each rule in force, and one for a manager that is not there."""
    lines = [
        "# Alert rules for Prometheus, the same as Piman's own. `piman grafana FOLDER` writes them anew, with the",
        "# thresholds of config.yaml.",
        "groups:",
        "  - name: piman",
        "    rules:",
        *_alert("PimanUnreachable", 'up{job="piman"} == 0', 60, 0, "critical", _UNREACHABLE),
    ]
    for rule in rules:
        if rule.enabled:
            raised, over = rule.raised.seconds, rule.clear_seconds
            lines += _alert(alert_name(rule), expression_of(rule), raised, over, rule.severity, summary_of(rule))
    return "\n".join(lines) + "\n"


_UNREACHABLE = "Piman's manager at {{ $labels.instance }} does not answer"


def _alert(name: str, expression: str, raised: float, over: float, severity: str, summary: str) -> list[str]:
    """One entry; PromQL's quotes need no escape in a block, and JSON's are YAML's."""
    lines = [f"      - alert: {name}", "        expr: >-", f"          {expression}"]
    lines += [f"        for: {duration_text(raised)}"] if raised else []
    lines += [f"        keep_firing_for: {duration_text(over)}"] if over else []
    lines += ["        labels:", f"          severity: {severity}"]
    return [*lines, "        annotations:", f"          summary: {_quoted(summary)}"]


def prometheus_config(managers: Sequence[Manager], rules: str = "piman.rules.yml", interval: int = 15) -> str:
    """A prometheus.yml that scrapes managers, and the agents on the Pis that they know."""
    lines = [
        "# Prometheus for Piman: the managers, and the agents on the Pis, which the managers name.",
        "# More managers: more entries in both jobs; each tells its Pis apart by `site` of its config.yaml.",
        "global:",
        f"  scrape_interval: {interval}s",
        f"  evaluation_interval: {interval}s",
        "rule_files:",
        f"  - {_quoted(rules)}",
        "scrape_configs:",
    ]
    kinds: dict[tuple[bool, str], list[str]] = {}
    for manager in managers:
        kinds.setdefault((manager.tls, manager.token_file), []).append(manager.address)
    for number, ((tls, token_file), addresses) in enumerate(kinds.items()):
        more = f"-{number + 1}" if number else ""
        lines += [f"  - job_name: piman{more}", *_access(tls, token_file, "    ")]
        lines += ["    relabel_configs:", *_named("piman")] if more else []
        lines += ["    static_configs:", f"      - targets: {json.dumps(addresses)}"]
    lines += ["  - job_name: piman-agents", "    http_sd_configs:"]
    for manager in managers:
        url = f"{'https' if manager.tls else 'http'}://{manager.address}/sd"
        lines += [f"      - url: {url}", *_access(manager.tls, manager.token_file, "        ")]
    return "\n".join(lines) + "\n"


def _access(tls: bool, token_file: str, indent: str) -> list[str]:
    lines = []
    if tls:
        in_url = len(indent) > 4  # there it is part of the URL
        lines += [] if in_url else [f"{indent}scheme: https"]
        lines += [f"{indent}tls_config:", f"{indent}  insecure_skip_verify: true  # the manager made its certificate"]
    if token_file:
        # Prometheus 2.42 sends no type of its own in a discovery.
        lines += [f"{indent}authorization:", f"{indent}  type: Bearer"]
        lines += [f"{indent}  credentials_file: {_quoted(token_file)}"]
    return lines


def _named(job: str) -> list[str]:
    return ["      - target_label: job", f"        replacement: {job}"]


def data_source(url: str) -> str:
    """Grafana's provisioning of the data source that the dashboard wants."""
    return "\n".join(
        [
            "# Into /etc/grafana/provisioning/datasources/",
            "apiVersion: 1",
            "datasources:",
            "  - name: Prometheus",
            "    uid: piman-prometheus",
            "    type: prometheus",
            "    access: proxy",
            f"    url: {url}",
            "    isDefault: true",
            "    jsonData:",
            "      timeInterval: 15s",
            "",
        ]
    )


def dashboard_provider(folder: str) -> str:
    """Grafana's provisioning of the folder that has the dashboard."""
    return "\n".join(
        [
            "# Into /etc/grafana/provisioning/dashboards/",
            "apiVersion: 1",
            "providers:",
            "  - name: Piman",
            "    folder: Piman",
            "    type: file",
            "    options:",
            f"      path: {_quoted(folder)}",
            "",
        ]
    )
