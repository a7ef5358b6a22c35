"""config.yaml and .env as text with places: file, line and key of each value. The only reader of YAML and .env.

A value is text until a kind (kinds.py) has accepted it. Nothing stops at the first mistake: problems are collected.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import yaml
from dotenv.parser import parse_stream

from utility.config import kinds
from utility.config.keys import PASSWORDS, SECRET_VARIABLES, SWITCH_VARIABLE, VARIABLES, is_secret, is_unknown
from utility.config.settings import Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands."""

    file: Path
    line: int
    key: str


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written; `folder` is where a relative path in it starts."""

    text: str = field(repr=False)
    place: Place
    folder: Path

    def read(self, kind: Callable[[str], T]) -> T:
        """What `kind` makes of it; ValueError with the whole sentence."""
        try:
            return kind(self.text)
        except ValueError as error:
            if is_secret(self.place.key):
                raise ValueError(f"{error} (the value is a secret and not shown)") from None
            raise ValueError(f"found {_shown(self.text)}; {error}") from None


class Sheet:
    """What is known while the files are read: the problems, the variables, and where each value was found."""

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        self.path = path
        self.data = data  # what to read in the file's place
        self.problems: list[Problem] = []
        self.variables: dict[str, Given] = {}
        self.places: dict[str, Place] = {}

    def problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place.file, place.line, place.key, text))

    def wrong(self, key: str, text: str) -> None:
        """A problem of a value that was read before, by its key path."""
        self.problem(self.places[key], text)

    def place(self, node: yaml.Node, key: str) -> Place:
        return Place(self.path, node.start_mark.line + 1, key)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def readable(name: str) -> str:
    """A key as it stands in the file, where that is short and moves no cursor."""
    return name if name.isprintable() and len(name) <= 60 else _shown(name)


def suggestion(word: str, known: Collection[str], prefix: str = "") -> str:
    """What was meant. A `prefix` that all of them have would make them all look alike, and is left out of account."""
    near = difflib.get_close_matches(word.removeprefix(prefix), [each.removeprefix(prefix) for each in known], 1)
    return f"did you mean `{prefix}{near[0]}`?" if near else f"known here: {', '.join(known)}"


def read_env_file(sheet: Sheet, path: Path, wanted: bool) -> None:
    text = _read_text(sheet, path, wanted)
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        name = binding.key or ""
        place = Place(path, line, readable(name))
        if binding.error:
            sheet.problem(place, "expected NAME=value")
        elif name in lines:
            sheet.problem(place, f"given twice; first in line {lines[name]}")
        elif (name in VARIABLES or SWITCH_VARIABLE.fullmatch(name)) and binding.value:
            sheet.variables[name] = Given(binding.value, place, path.parent.absolute())
        elif is_unknown(name):
            sheet.problem(place, f"unknown variable; {suggestion(name, sorted(VARIABLES), 'PIMAN_')}")
        if name:
            lines.setdefault(name, line)


def _read_text(sheet: Sheet, path: Path, wanted: bool = True) -> str:
    """A file's text, or a problem and "". `wanted`: it is a problem that there is none."""
    try:
        data = path.read_bytes() if sheet.data is None or path != sheet.path else sheet.data
    except (FileNotFoundError, NotADirectoryError):
        if wanted:
            sheet.problem(Place(path, 0, ""), "does not exist")
        return ""
    except OSError as error:
        sheet.problem(Place(path, 0, ""), f"cannot be read: {error.strerror}")
        return ""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        sheet.problem(Place(path, line, ""), f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8")
        return ""


def read_yaml(sheet: Sheet) -> yaml.Node | None:
    before = len(sheet.problems)
    text = _read_text(sheet, sheet.path)
    if len(sheet.problems) > before:
        return None
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        sheet.problem(Place(sheet.path, line, ""), f"character {unprintable[0]!r} is not allowed in YAML; remove it")
        return None
    root = None
    try:
        # The loader in Python: the one in C crashes on deep nesting, and is not needed for files of this size.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            sheet.problem(Place(sheet.path, 0, ""), "is empty; expected private_number, server_address ...")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # A community that begins with * reads as an alias: its name must not reach the report.
        what = re.sub(
            r"(alias|anchor|handle) '.*'", r"\1 (quote a value that begins with * & or !)", str(error.problem)
        )
        sheet.problem(Place(sheet.path, mark.line + 1 if mark else 0, ""), f"is no YAML here: {what}")
    except RecursionError:
        sheet.problem(Place(sheet.path, 0, ""), "is nested too deeply")
    return root


class Section:
    """One mapping of config.yaml, with the PIMAN_ variables laid over its scalars.

    path    the key path of the mapping, empty for the whole file
    over    the beginning of its variables' names; None where no variable reaches (inside `switches`)
    """

    def __init__(
        self, sheet: Sheet, node: yaml.Node | None, path: str, known: Collection[str], over: str | None = None
    ) -> None:
        self.sheet = sheet
        self.path = path
        self.over = over
        self.start = Place(sheet.path, 0, path) if node is None else sheet.place(node, path)
        self.nodes: dict[str, yaml.Node] = {}
        self.known = known
        if isinstance(node, yaml.MappingNode):
            for key_node, value in node.value:
                self._take(key_node, value)
        elif node is not None and not is_empty(node):
            sheet.problem(self.start, f"found {kind_of(node)}; expected keys with values")

    def _take(self, key_node: yaml.Node, value: yaml.Node) -> None:
        if not isinstance(key_node, yaml.ScalarNode):
            self.sheet.problem(self.sheet.place(key_node, self.path), f"found {kind_of(key_node)}; expected a key")
            return
        name = key_node.value
        place = self.sheet.place(key_node, self.key(readable(name)))
        if name in self.nodes:
            first = self.sheet.places[place.key].line
            self.sheet.problem(place, f"given twice; first in line {first}")
        elif name in self.known and name not in PASSWORDS:
            self.sheet.places[place.key] = place
            self.nodes[name] = value
        elif f"{self.over or 'PIMAN_'}{name}".upper() in SECRET_VARIABLES or name in PASSWORDS:
            variable = f"{self.over or 'PIMAN_'}{name}".upper()
            self.sheet.problem(place, f"a secret is kept out of this file; put {variable}=... into .env")
        else:
            self.sheet.problem(place, f"unknown key; {suggestion(name, self.known)}")

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _over(self, name: str) -> Given | None:
        return None if self.over is None else self.sheet.variables.get(f"{self.over}{name}".upper())

    def given(self, name: str) -> Given | None:
        """A scalar as it was written, in the environment, .env or config.yaml; None: nowhere, or left empty."""
        key = self.key(name)
        over = self._over(name)
        if over is not None:
            self.sheet.places[key] = over.place
            return over
        node = self.nodes.get(name)
        return None if node is None else self.scalar(node, key)

    def scalar(self, node: yaml.Node, key: str) -> Given | None:
        place = self.sheet.place(node, key)
        if not isinstance(node, yaml.ScalarNode):
            self.sheet.problem(place, f"found {kind_of(node)}; expected one value")
        elif not node.tag.startswith("tag:yaml.org,"):
            self.sheet.problem(place, "begins with `!`; put quotes around the value")
        elif not is_empty(node):
            self.sheet.places[key] = place
            return Given(node.value, place, self.sheet.path.parent.absolute())
        return None

    def items(self, name: str) -> list[Given | None]:
        """A list's entries as they were written; a variable, or a single value, holds them with commas between."""
        node = self.nodes.get(name)
        if self._over(name) is None and isinstance(node, yaml.SequenceNode):
            return [self.scalar(each, f"{self.key(name)}[{i}]") for i, each in enumerate(node.value)]
        if self._over(name) is None and isinstance(node, yaml.MappingNode):
            self.sheet.problem(self.sheet.place(node, self.key(name)), "found keys with values; expected a list")
            return []
        one = self.given(name)
        if one is None:
            return []
        parts = one.text.split(",")
        self.sheet.places.update({f"{self.key(name)}[{i}]": one.place for i in range(len(parts))})
        return [replace(one, text=part.strip()) for part in parts]

    def value(self, name: str, kind: Callable[[str], T], default: T) -> T:
        """The value of a key; the default where there is none, or where there is a problem with it."""
        return self.read(self.given(name), kind, default)

    def read(self, given: Given | None, kind: Callable[[str], T], default: T) -> T:
        if given is None:
            return default
        try:
            return given.read(kind)
        except ValueError as error:
            self.sheet.problem(given.place, str(error))
            return default

    def required(self, name: str, kind: Callable[[str], T], expected: str) -> T | None:
        given = self.given(name)
        if given is None:
            place = self.sheet.places.get(self.key(name), replace(self.start, key=self.key(name)))
            self.sheet.problem(place, f"{'is empty' if name in self.nodes else 'is missing'}; expected {expected}")
            return None
        return self.read(given, kind, None)

    def values(self, name: str, kind: Callable[[str], T]) -> tuple[T, ...]:
        """The values of a list; empty entries and those with a problem are left out."""
        read = (self.read(given, kind, None) for given in self.items(name))
        return tuple(value for value in read if value is not None)

    def path_of(self, name: str, default: str) -> Path:
        """A path, absolute; a relative one starts at the folder of the file that holds it."""
        given = self.given(name)
        if given is None:
            return self.sheet.path.parent.absolute() / default
        return given.folder / self.read(given, kinds.path, default)

    def section(self, name: str, known: Collection[str], over: str | None = None) -> Section:
        over = f"{self.over}{name}_" if self.over is not None else over
        return Section(self.sheet, self.nodes.get(name), self.key(name), known, over)


def is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and (node.tag.endswith(":null") or not node.value.strip())


def kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "one value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys with values"


def entries(section: Section, name: str) -> list[tuple[str, yaml.Node]]:
    """The entries of a list that may be mappings, each with its key; a single value is a list of one."""
    node = section.nodes.get(name)
    if node is None or is_empty(node):
        return []
    if isinstance(node, yaml.MappingNode):
        section.sheet.problem(section.sheet.place(node, section.key(name)), "found keys with values; expected a list")
        return []
    found = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [(f"{section.key(name)}[{i}]", each) for i, each in enumerate(found) if not is_empty(each)]
