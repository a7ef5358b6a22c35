"""config.yaml and hosts.csv as the page edits them: tried, shown as a difference, written whole, kept to go back to.

A file is edited as it was when the page was loaded (`base` is a hash of that); where it has changed since, Conflict.
Secrets leave as names and come back as what they were.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utility.config import Config, ConfigError, Problem, is_secret, load_config
from utility.config_edit import (
    Change,
    EditError,
    add_item,
    add_switch,
    edit_config,
    hide_secrets,
    remove_item,
    remove_switch,
    reveal_secrets,
)
from utility.hosts import HostChange, Hosts, edit_hosts, hosts_digest, parse_mac, with_last_seen, write_file
from web.access import write_private
from web.views import Json, problem_view

KEPT = 100  # versions of a file
MAX_CHANGES = 500


class ConflictError(Exception):
    """The file was changed by somebody else since the page was loaded."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a file would be: its content, what is wrong with it, what is other, and the hash of what is there now."""

    data: bytes
    problems: tuple[Problem, ...]
    difference: str
    base: str

    @property
    def changes_nothing(self) -> bool:
        return not self.difference


class Versions:
    """The contents that a file had, in a folder; each with when it was replaced, and by whom."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, data: bytes, who: str, when: float) -> None:
        """Keep a content that is about to be replaced; OSError."""
        text = data.decode(errors="surrogateescape")
        entry = json.dumps({"when": when, "who": who, "text": text})
        number = f"{int(when * 1000):013d}-{hashlib.sha256(data).hexdigest()[:8]}"
        write_private(self._folder / f"{number}.json", entry.encode())
        for old in sorted(self._folder.glob("*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def list(self) -> list[Json]:
        """The newest first."""
        found = []
        for path in sorted(self._folder.glob("*.json"), reverse=True):
            with contextlib.suppress(OSError, ValueError):
                entry = json.loads(path.read_text())
                found.append({"id": path.stem, "when": entry["when"], "who": entry["who"], "size": len(entry["text"])})
        return found

    def read(self, number: str) -> bytes | None:
        """A content by its id; None where there is none."""
        if not re.fullmatch(r"[0-9]{13,14}-[0-9a-f]{8}", number):
            return None
        try:
            text: str = json.loads((self._folder / f"{number}.json").read_text())["text"]
        except (OSError, ValueError):
            return None
        return text.encode(errors="surrogateescape")


def difference(before: bytes, after: bytes, name: str) -> str:
    """As `diff -u` shows it."""
    old, new = (data.decode(errors="replace").splitlines() for data in (before, after))
    return "\n".join(difflib.unified_diff(old, new, f"{name} now", f"{name} then", lineterm=""))


class Secrets:
    """Hides what is secret in a text, under names that mean nothing to others and the same to us after a restart."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def name(self, written: str) -> str:
        return f"(hidden {hmac.new(self._key, written.encode(errors='surrogateescape'), 'sha256').hexdigest()[:12]})"

    def hide(self, data: bytes) -> bytes:
        text, _hidden = hide_secrets(data.decode(errors="surrogateescape"), is_secret, self.name)
        return text.encode(errors="surrogateescape")

    def reveal(self, data: bytes, current: bytes) -> bytes:
        """With the secrets of the current content where its names stand."""
        _text, hidden = hide_secrets(current.decode(errors="surrogateescape"), is_secret, self.name)
        return reveal_secrets(data.decode(errors="surrogateescape"), hidden).encode(errors="surrogateescape")


class ConfigFile:
    """config.yaml. `_lock` makes one write at a time; a human's editor knows nothing of it, so the hash is compared."""

    name = "config.yaml"

    def __init__(self, path: Path, env_path: Path | None, state_dir: Path, key: bytes) -> None:
        self.path, self._env_path = path, env_path
        self.versions = Versions(state_dir / "versions" / "config.yaml")
        self.secrets = Secrets(key)
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Its content; empty where there is none yet. OSError."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    @staticmethod
    def base(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    def shown(self, data: bytes) -> str:
        return self.secrets.hide(data).decode(errors="replace")

    def config_of(self, data: bytes) -> Config:
        """What the server would make of that content; ConfigError."""
        return load_config(self.path, self._env_path, data=data)

    def draft(self, make: Callable[[bytes], bytes]) -> Draft:
        """What it would be; EditError where the change cannot be made."""
        before = self.read()
        data = make(before)
        problems: tuple[Problem, ...] = ()
        try:
            self.config_of(data)
        except ConfigError as error:
            problems = error.problems
        shown = difference(self.secrets.hide(before), self.secrets.hide(data), self.name)
        if not shown and data != before:
            shown = "(a secret)"
        return Draft(data, problems, shown, self.base(before))

    def write(self, base: str, make: Callable[[bytes], bytes], who: str) -> Draft:
        """Make it so; ConflictError, ConfigError where it would be wrong, EditError, OSError."""
        with self._lock:
            draft = self.draft(make)
            if draft.base != base:
                raise ConflictError("config.yaml was changed by somebody else meanwhile; look at it again")
            if draft.problems:
                raise ConfigError(draft.problems)
            if draft.changes_nothing:
                return draft
            before = self.read()
            if before:
                self.versions.keep(before, who, time.time())
            target = self.path.resolve()
            like = target.stat() if target.exists() else None
            if not write_file(target, draft.data, like, lambda: self.base(self.read()) == base):
                raise ConflictError("config.yaml was changed by somebody else meanwhile; look at it again")
            return draft

    def of_text(self, text: str) -> Callable[[bytes], bytes]:
        """A change to a whole new text, secrets by their names."""

        def make(before: bytes) -> bytes:
            return self.secrets.reveal(text.encode(errors="surrogateescape"), before)

        return make

    def of_changes(self, changes: Sequence[Json]) -> Callable[[bytes], bytes]:
        """A change of single keys: {key, value}, where null removes it, and entries that come and go."""

        def make(before: bytes) -> bytes:
            windows = b"\r\n" in before
            text = before.decode("utf-8-sig", errors="surrogateescape").replace("\r\n", "\n")
            for each in changes:
                text = _changed(text, each)
            return (text.replace("\n", "\r\n") if windows else text).encode(errors="surrogateescape")

        def reveal(before: bytes) -> bytes:
            return self.secrets.reveal(make(before), before)

        return reveal


def _changed(text: str, change: Json) -> str:
    try:
        if isinstance(change.get("add_switch"), dict):
            return add_switch(text, change["add_switch"])  # type: ignore[arg-type]
        if "remove_switch" in change:
            return remove_switch(text, int(change["remove_switch"]))  # type: ignore[call-overload]
        if isinstance(item := change.get("add_item"), dict):
            return add_item(text, str(item["list"]), item["values"])
        if isinstance(item := change.get("remove_item"), dict):
            return remove_item(text, str(item["list"]), int(item["index"]))
        value = change["value"]
        assert value is None or isinstance(value, str | list)
        return edit_config(text, [Change(str(change["key"]), value)])
    except UnicodeError as error:
        raise EditError(f"it is no text: {error}") from None


class HostsFile:
    """hosts.csv, through the `Hosts` that serves it: what is written is in force at once."""

    name = "hosts.csv"

    def __init__(self, hosts: Hosts, state_dir: Path) -> None:
        self._hosts = hosts
        self.versions = Versions(state_dir / "versions" / "hosts.csv")

    def read(self) -> bytes:
        try:
            return self._hosts.path.read_bytes()
        except FileNotFoundError:
            return b""

    @staticmethod
    def base(data: bytes) -> str:
        return hosts_digest(data)

    @staticmethod
    def shown(data: bytes) -> str:
        return data.decode(errors="replace")

    def rows(self) -> list[Json]:
        """Each Pi that is in force, in the file's order."""
        return [
            {"mac": each.mac, "address": str(each.address), "hostname": each.hostname, "last_seen": each.last_seen}
            for each in self._hosts.all()
        ]

    def draft(self, make: Callable[[bytes], bytes]) -> Draft:
        before = self.read()
        try:
            data = make(before)
        except ValueError as error:
            raise EditError(str(error)) from None
        return Draft(data, self._hosts.problems_of(data), difference(before, data, self.name), self.base(before))

    def write(self, base: str, make: Callable[[bytes], bytes], who: str) -> Draft:
        draft = self.draft(make)

        def checked(before: bytes) -> bytes:
            if self.base(before) != base:
                raise ConflictError("hosts.csv was changed by somebody else meanwhile; look at it again")
            return make(before)

        if draft.changes_nothing and draft.base == base:
            return draft
        before = self._hosts.rewrite(checked)
        self.versions.keep(before, who, time.time())
        return draft

    @staticmethod
    def of_text(text: str) -> Callable[[bytes], bytes]:
        return lambda before: with_last_seen(text.encode(errors="surrogateescape"), before)

    @staticmethod
    def of_changes(changes: Sequence[Json]) -> Callable[[bytes], bytes]:
        def make(before: bytes) -> bytes:
            wanted = [
                HostChange(
                    str(each["op"]), parse_mac(str(each["mac"])), _text(each, "address"), _text(each, "hostname")
                )
                for each in changes
            ]
            return edit_hosts(before, wanted)

        return make


def _text(change: Json, name: str) -> str | None:
    value = change.get(name)
    if value is None:
        return None
    text = str(value)
    if not text.isprintable() or set(text) & set(";#"):
        raise EditError(f"{name} cannot have these characters: {text!r}")
    return text


def draft_view(file: ConfigFile | HostsFile, draft: Draft) -> Json:
    """A draft as the page shows it."""
    return {
        "problems": [problem_view(each) for each in draft.problems],
        "diff": draft.difference,
        "text": file.shown(draft.data),
        "base": draft.base,
    }
