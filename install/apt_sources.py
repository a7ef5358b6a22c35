"""Rewrites a machine's own apt sources for a private package tree; it reads text and returns text, and runs no apt.

Used by debian.sh as `apt_sources.py CODENAME FILE...`: prints deb822 stanzas for the Debian suites of that release
with the component non-free-firmware added (the Pi's firmware is there), and without a limit of architecture, so that
an amd64 machine can fetch arm64 packages. Files that end in .sources are deb822, all others one-line.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COMPONENTS = ("main", "non-free-firmware")
# A machine may name its release, or follow a moving suite.
MOVING_SUITES = frozenset({"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"})
# Backports are newer than the release they sit beside, and -proposed is not released.
POCKETS = frozenset({"", "updates", "security"})
# Limits of what is looked at; the private tree has its own.
DROPPED_OPTIONS = frozenset({"arch", "architectures", "lang", "languages", "target", "targets", "pdiffs"})
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


def is_wanted_suite(suite: str, codename: str) -> bool:
    """True for CODENAME, its updates and its security suite, under the release's own or a moving name."""
    name, _, pocket = suite.rstrip("/").replace("/", "-").partition("-")
    return name in MOVING_SUITES | {codename} and pocket in POCKETS


def _stanza(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def rewrite_deb822(text: str, codename: str) -> list[str]:
    """Return the wanted stanzas of a .sources file; a multi-line field (an inline key) is kept as it is."""
    stanzas = []
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                if name:
                    fields[name] += "\n" + line.rstrip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        suites = [s for s in fields.get("suites", "").split() if is_wanted_suite(s, codename)]
        enabled = fields.pop("enabled", "yes").lower() not in {"no", "false", "off", "0"}
        if not (enabled and suites and "deb" in fields.get("types", "").split()):
            continue
        if "main" not in fields.get("components", "").split():
            continue
        kept = {key: value for key, value in fields.items() if key not in DROPPED_OPTIONS}
        kept |= {"types": "deb", "suites": " ".join(suites), "components": " ".join(COMPONENTS)}
        stanzas.append(_stanza(kept))
    return stanzas


def rewrite_one_line(text: str, codename: str) -> list[str]:
    """Return the wanted lines of a sources.list as deb822 stanzas."""
    stanzas = []
    for raw in text.splitlines():
        found = _ONE_LINE.match(raw.partition("#")[0].strip())
        if found is None or not is_wanted_suite(found["suite"], codename):
            continue
        if "main" not in found["components"].split():
            continue
        fields = {"types": "deb", "uris": found["uri"], "suites": found["suite"], "components": " ".join(COMPONENTS)}
        for option in (found["options"] or "").split():
            name, _, value = option.partition("=")
            if name.lower() not in DROPPED_OPTIONS:
                fields[name.lower().rstrip("+-")] = value.replace(",", " ")
        stanzas.append(_stanza(fields))
    return stanzas


def rewrite(files: list[Path], codename: str) -> str:
    """Return all wanted stanzas of these files, each once; a file that does not exist is passed over."""
    stanzas: dict[str, None] = {}
    for path in files:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            parse = rewrite_deb822 if path.suffix == ".sources" else rewrite_one_line
            stanzas |= dict.fromkeys(parse(text, codename))
    return "\n".join(stanzas)


if __name__ == "__main__":
    sys.stdout.write(rewrite([Path(name) for name in sys.argv[2:]], sys.argv[1]))
