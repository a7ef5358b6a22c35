"""Changes to config.yaml that leave all else as it is: a human's comments, order, quotes and line ends.

The text is cut where the YAML parser says that a value stands, and put to the test afterwards: read again, it must say
what was wanted and nothing else that is new. Where it does not, or a form of YAML is met that nobody writes here,
EditError. Whether the values are good is for utility/config to say. No file here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import yaml

Value = str | Sequence[str | None] | None  # a scalar; a list, None for an empty entry; None: gone


class EditError(Exception):
    """It cannot be done in this file; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key path, like `ports.tftp`, `dns` or `switches[0].pi_addresses[3]`, and what it shall be."""

    key: str
    value: Value


def edit_config(text: str, changes: Iterable[Change]) -> str:
    """The text with the changes in it, one after the other; EditError."""
    for change in changes:
        text = _checked(text, change.key, change.value, _Editor(text).set(_path(change.key), change.value))
    return text


def add_switch(text: str, values: Mapping[str, Value]) -> str:
    """The text with another switch at the end, and `switch_count` with it, where there is one; EditError."""
    editor = _Editor(text)
    switches = editor.node(["switches"])
    count = len(switches.value) if isinstance(switches, yaml.SequenceNode) else 0
    return _count(editor.append_mapping("switches", values), count + 1)


def remove_switch(text: str, index: int) -> str:
    """The text without that switch; those after it get the number before in their keys. EditError."""
    editor = _Editor(text)
    switches = editor.node(["switches"])
    if not isinstance(switches, yaml.SequenceNode) or not 0 <= index < len(switches.value):
        raise EditError(f"there is no switch {index}")
    for number, each in reversed(list(enumerate(switches.value))[index + 1 :]):
        for key, _value in each.value if isinstance(each, yaml.MappingNode) else ():
            found = re.fullmatch(r"(sw(?:ti|it)ch_)[0-9]+(_address)", str(key.value))
            if found:
                text = _replaced(text, key, f"{found[1]}{number - 1}{found[2]}")
    return _count(_Editor(text).remove_item("switches", index), len(switches.value) - 1)


def values_of(text: str) -> dict[str, str]:
    """Every scalar that is not empty, by its key path; EditError for a text that is no YAML."""
    found: dict[str, str] = {}

    def walk(node: yaml.Node, path: str, depth: int) -> None:
        if depth > 50:
            raise EditError("it is nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            if not _is_empty(node):
                found[path] = node.value
            return
        for number, each in enumerate(node.value):
            if isinstance(node, yaml.SequenceNode):
                walk(each, f"{path}[{number}]", depth + 1)
            else:
                walk(each[1], f"{path}.{each[0].value}" if path else str(each[0].value), depth + 1)

    walk(_compose(text), "", 0)
    return found


# ----------------------------------------------------------------------------------------------------------- the test


def _checked(before: str, key: str, value: Value, after: str) -> str:
    old = values_of(before)
    wanted = {path: text for path, text in old.items() if not re.fullmatch(rf"{re.escape(key)}([.\[].*)?", path)}
    if isinstance(value, str):
        wanted[key] = value
    elif value is not None:
        wanted |= {f"{key}[{number}]": each for number, each in enumerate(value) if each}
    if values_of(after) != wanted:
        raise EditError(f"{key} is written in a way that cannot be edited here; edit the text instead")
    return after


def _count(text: str, count: int) -> str:
    if "switch_count" not in values_of(text):
        return text
    return edit_config(text, [Change("switch_count", str(count))])


def _path(key: str) -> list[str | int]:
    parts = re.findall(r"([A-Za-z0-9_]+)|\[([0-9]{1,5})\]", key)
    path: list[str | int] = [name or int(number) for name, number in parts]
    if _key(path) != key or not path or isinstance(path[0], int):
        raise EditError(f"{key!r} is no key")
    return path


def _key(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# ------------------------------------------------------------------------------------------------------ text and nodes


def _compose(text: str) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise EditError(f"it is no YAML: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(root, yaml.MappingNode):
        raise EditError("it has no keys")
    return root


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and (node.tag.endswith(":null") or not node.value.strip())


def _written(value: str | None) -> str:
    """A scalar that is read as that text."""
    if value is None:
        return "~"
    if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./@+-]*", value) and value.lower() != "null":
        return value
    if not value.strip() or not value.isprintable():
        raise EditError("a value is one line of text")
    return "'" + value.replace("'", "''") + "'"


def _replaced(text: str, node: yaml.Node, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def _end(node: yaml.Node) -> int:
    """Where what is written of a node ends: a block's own mark is behind the comments that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


class _Editor:
    """One text, and its nodes. Every method gives the new text."""

    def __init__(self, text: str) -> None:
        self.text = text if text.endswith("\n") else text + "\n"
        self.root = _compose(self.text)

    def node(self, path: Sequence[str | int]) -> yaml.Node | None:
        """The node at a path; None where there is none."""
        node: yaml.Node | None = self.root
        for part in path:
            if isinstance(part, int):
                items = node.value if isinstance(node, yaml.SequenceNode) else []
                node = items[part] if part < len(items) else None
            else:
                node = self._entry(node, part)[1]
        return node

    def _entry(self, node: yaml.Node | None, name: str) -> tuple[yaml.Node | None, yaml.Node | None]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        return next(((key, value) for key, value in pairs if key.value == name), (None, None))

    def set(self, path: Sequence[str | int], value: Value) -> str:
        *above, last = path
        if isinstance(last, int):
            return self._set_item(above, last, value)
        parent = self.node(above)
        if parent is not None and not isinstance(parent, yaml.MappingNode) and not _is_empty(parent):
            raise EditError(f"{_key(above)} has no keys")
        key, old = self._entry(parent, last)
        if key is None or old is None:
            return self.text if value is None else self._insert(above, parent, last, value)
        if value is None:
            assert isinstance(parent, yaml.MappingNode)
            return self._remove(above, parent, last)
        if not isinstance(value, str):
            return self._set_list(path, key, old, value)
        return self._put(key, old, _written(value))

    def _put(self, key: yaml.Node, old: yaml.Node, new: str) -> str:
        """Put a value in the place of another."""
        if _is_empty(old) and old.start_mark.index == old.end_mark.index:
            colon = self.text.index(":", key.end_mark.index) + 1
            return f"{self.text[:colon]} {new}{self.text[colon:]}"
        if isinstance(old, yaml.ScalarNode) and old.style not in ("|", ">"):
            return _replaced(self.text, old, new)
        if isinstance(old, yaml.CollectionNode) and old.flow_style:
            return _replaced(self.text, old, new)
        raise EditError(f"{key.value} stands over several lines; edit the text instead")

    # New keys

    def _insert(self, above: Sequence[str | int], parent: yaml.Node | None, name: str, value: Value) -> str:
        """A key that was not there, in its section, which may not have been there either."""
        written = _written(value) if isinstance(value, str) else f"[{', '.join(map(_written, value or ()))}]"
        if isinstance(parent, yaml.MappingNode) and parent.flow_style:
            at = parent.end_mark.index - 1
            comma = ", " if parent.value else ""
            return f"{self.text[:at].rstrip()}{comma}{name}: {written}{self.text[at:]}"
        if isinstance(parent, yaml.MappingNode):
            indent = parent.value[0][0].start_mark.column
            return self._after(_end(parent), f"{' ' * indent}{name}: {written}")
        if not above or isinstance(above[-1], int):
            raise EditError(f"there is no {_key(above)}")
        if parent is not None:  # there, but empty
            key = self._entry(self.node(above[:-1]), str(above[-1]))[0]
            assert key is not None
            if parent.start_mark.index != parent.end_mark.index:
                return self._put(key, parent, f"{{{name}: {written}}}")
            return self._after(key.end_mark.index, f"{' ' * (key.start_mark.column + 2)}{name}: {written}")
        grand = self.node(above[:-1])
        if not isinstance(grand, yaml.MappingNode) or grand.flow_style:
            raise EditError(f"there is no {_key(above)}")
        indent = " " * grand.value[0][0].start_mark.column
        return self._after(_end(grand), f"{indent}{above[-1]}:\n{indent}  {name}: {written}")

    def _after(self, index: int, lines: str) -> str:
        """Lines after the one in which `index` is."""
        if index and self.text[index - 1] == "\n":  # a block scalar's end
            index -= 1
        at = self.text.index("\n", index)
        return f"{self.text[:at]}\n{lines}{self.text[at:]}"

    # Keys that go

    def _remove(self, above: Sequence[str | int], parent: yaml.MappingNode, name: str) -> str:
        if len(parent.value) == 1 and above and isinstance(above[-1], str):
            return self.set(above, None)
        number = next(i for i, (key, _value) in enumerate(parent.value) if key.value == name)
        key, value = parent.value[number]
        after = parent.value[number + 1][0] if number + 1 < len(parent.value) else None
        start = key.start_mark.index
        if parent.flow_style:
            if after is not None:
                return self.text[:start] + self.text[after.start_mark.index :]
            before = _end(parent.value[number - 1][1]) if number else start
            return self.text[:before] + self.text[_end(value) :]
        line = self.text.rindex("\n", 0, start) + 1 if "\n" in self.text[:start] else 0
        if self.text[line:start].strip():  # the first of a list's entry, behind its dash
            if after is None:
                raise EditError(f"{name} is all there is in {_key(above)}")
            return self.text[:start] + self.text[after.start_mark.index :]
        return self._without(line, _end(value))

    def _without(self, start: int, end: int) -> str:
        """The text without whole lines."""
        if end and self.text[end - 1] == "\n":
            end -= 1
        return self.text[:start] + self.text[self.text.index("\n", end) + 1 :]

    # Lists

    def _set_list(self, path: Sequence[str | int], key: yaml.Node, old: yaml.Node, items: Sequence[str | None]) -> str:
        if not isinstance(old, yaml.SequenceNode) or old.flow_style or not items:
            if isinstance(old, yaml.SequenceNode) and not old.flow_style:
                colon = self.text.index(":", key.end_mark.index) + 1
                return self.text[:colon] + self._without(self.text.index("\n", colon) + 1, _end(old))[colon:]
            return self._put(key, old, f"[{', '.join(map(_written, items))}]")
        text = self.text
        if len(old.value) > len(items):
            text = self._without(self._line_of(old.value[len(items)]), _end(old))
        for number, item in enumerate(items):
            text = _Editor(text).set([*path, number], item)
        return text

    def _line_of(self, node: yaml.Node) -> int:
        return self.text.rindex("\n", 0, node.start_mark.index) + 1

    def _set_item(self, path: Sequence[str | int], number: int, value: Value) -> str:
        if not (value is None or isinstance(value, str)):
            raise EditError("a list in a list")
        old = self.node(path)
        if isinstance(old, yaml.SequenceNode) and number < len(old.value):
            return self._replace_item(old, number, value)
        if value is None:
            return self.text
        have = len(old.value) if isinstance(old, yaml.SequenceNode) else 0
        more: list[str | None] = [*[None] * (number - have), value]
        if isinstance(old, yaml.SequenceNode) and old.flow_style:
            at = old.end_mark.index - 1
            comma = ", " if old.value else ""
            return f"{self.text[:at].rstrip()}{comma}{', '.join(map(_written, more))}{self.text[at:]}"
        if isinstance(old, yaml.SequenceNode):
            return self._after(_end(old), _entries(old.start_mark.column, more))
        if old is not None and not _is_empty(old):
            raise EditError(f"{_key(path)} is no list here; edit the text instead")
        key = self._entry(self.node(path[:-1]), str(path[-1]))[0]
        if key is None or old is None or old.start_mark.index != old.end_mark.index:
            return self.set(path, more)
        return self._after(key.end_mark.index, _entries(key.start_mark.column + 2, more))

    def _replace_item(self, old: yaml.SequenceNode, number: int, value: str | None) -> str:
        item = old.value[number]
        if not isinstance(item, yaml.ScalarNode):
            raise EditError("that entry is no single value; edit the text instead")
        start, end = item.start_mark.index, item.end_mark.index
        if old.flow_style:
            return _replaced(self.text, item, _written(value))
        if value is not None and start == end:
            dash = self.text.rindex("-", 0, start + 1) + 1
            return f"{self.text[:dash]} {_written(value)}{self.text[dash:]}"
        if value is None:
            return self.text[:start].rstrip(" ") + self.text[end:]
        return _replaced(self.text, item, _written(value))

    def append_mapping(self, name: str, values: Mapping[str, Value]) -> str:
        """Another entry, with keys of its own, at the end of a list."""
        key, old = self._entry(self.root, name)
        column = old.start_mark.column if isinstance(old, yaml.SequenceNode) and not old.flow_style else 2
        lines = []
        for field, value in values.items():
            if isinstance(value, str):
                lines.append(f"{field}: {_written(value)}")
            elif value is not None:
                lines += [f"{field}:", *(f"  - {_written(each)}" if each else "  -" for each in value)]
        block = "\n".join(f"{' ' * column}{'  ' if number else '- '}{line}" for number, line in enumerate(lines))
        if key is None or old is None:
            return f"{self.text}{name}:\n{block}\n"
        if isinstance(old, yaml.SequenceNode) and old.value:
            if old.flow_style:
                raise EditError(f"{name} stands in one line; edit the text instead")
            return self._after(_end(old), block)
        colon = self.text.index(":", key.end_mark.index) + 1
        line_end = self.text.index("\n", old.end_mark.index)
        comment = self.text[old.end_mark.index : line_end] if old.start_mark.index != old.end_mark.index else ""
        rest = comment if comment.strip().startswith("#") else self.text[colon:line_end] if _is_empty(old) else ""
        return f"{self.text[:colon]}{rest}\n{block}{self.text[line_end:]}"

    def remove_item(self, name: str, number: int) -> str:
        """A list without one of its entries."""
        key, old = self._entry(self.root, name)
        if key is None or not isinstance(old, yaml.SequenceNode) or old.flow_style:
            raise EditError(f"{name} stands in one line; edit the text instead")
        item = old.value[number]
        text = self._without(self._line_of(item), _end(item))
        if len(old.value) > 1:
            return text
        colon = self.text.index(":", key.end_mark.index) + 1
        return f"{text[:colon]} []{text[colon:]}"


def _entries(column: int, items: Sequence[str | None]) -> str:
    return "\n".join(f"{' ' * column}- {_written(each)}" if each else f"{' ' * column}-" for each in items)


# ------------------------------------------------------------------------------------------------------------ secrets

# A secret may also stand in a comment, in a broken file, or in the path of an address.
_WORDS = re.compile(
    r"""((?:community|password|secret|webhook|token)["']?\s*[:=]\s*)("[^"\n]+"|'[^'\n]+'|[^\s,}\]#"'][^,}\]#\n]*)"""
    r"|(https?://[^/\s,}\]]+/)([^\s,}\]'\"]+)",
    re.IGNORECASE,
)


def hide_secrets(text: str, is_secret: Callable[[str], bool], name: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """The text with each secret replaced by its `name`, and what stood there by that name, for `reveal_secrets`."""
    hidden: dict[str, str] = {}

    def put(written: str) -> str:
        if written in hidden or not written.strip():
            return written
        shown = name(written)
        hidden[shown] = written
        return shown

    spans: list[tuple[int, int]] = []

    def walk(node: yaml.Node, path: str, depth: int) -> None:
        if isinstance(node, yaml.ScalarNode):
            if is_secret(path) and not _is_empty(node):
                spans.append((node.start_mark.index, _end(node)))
            return
        for number, each in enumerate(node.value if depth < 50 else ()):
            if isinstance(node, yaml.SequenceNode):
                walk(each, f"{path}[{number}]", depth + 1)
            else:
                walk(each[1], f"{path}.{each[0].value}" if path else str(each[0].value), depth + 1)

    with suppress(EditError):
        walk(_compose(text), "", 0)
    for start, end in sorted(set(spans), reverse=True):
        text = text[:start] + put(text[start:end]) + text[end:]

    def replace(found: re.Match[str]) -> str:
        before, secret = (found[1], found[2]) if found[1] else (found[3], found[4])
        return before + put(secret.rstrip()) + secret[len(secret.rstrip()) :]

    return _WORDS.sub(replace, text), hidden


def reveal_secrets(text: str, hidden: Mapping[str, str]) -> str:
    """The text with what was hidden in its place again."""
    for shown, written in hidden.items():
        text = text.replace(shown, written)
    return text
