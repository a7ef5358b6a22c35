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


# A single value in the place of a mapping is short for one of its keys.
_SHORT = ((re.compile(r"monitoring\.rules\[[0-9]+\]"), "when"), (re.compile(r"monitoring\.healing"), "enabled"))


def edit_config(text: str, changes: Iterable[Change]) -> str:
    """The text with the changes in it, one after the other; EditError."""
    for change in changes:
        text = _widened(text, change.key)
        text = _checked(text, change.key, change.value, _Editor(text).set(_path(change.key), change.value))
    return text


def _widened(text: str, key: str) -> str:
    """The text where what stands above a key can hold keys, though it was written short."""
    above = key.rpartition(".")[0]
    name = next((name for pattern, name in _SHORT if pattern.fullmatch(above)), "")
    node = _Editor(text).node(_path(above)) if name else None
    if not isinstance(node, yaml.ScalarNode) or _is_empty(node) or node.style in ("|", ">"):
        return text
    return _replaced(text, node, f"{{{name}: {_written(node.value)}}}")


def add_item(text: str, name: str, values: Mapping[str, Value]) -> str:
    """The text with another entry at the end of a list, with keys of its own; EditError."""
    editor, path = _Editor(text), _path(name)
    node = editor.node(path)
    key = f"{name}[{len(node.value) if isinstance(node, yaml.SequenceNode) else 0}]"
    wanted = values_of(text)
    for field, value in values.items():
        items = enumerate(() if value is None or isinstance(value, str) else value)
        wanted |= {f"{key}.{field}": value} if isinstance(value, str) else {}
        wanted |= {f"{key}.{field}[{number}]": each for number, each in items if each}
    after = editor.append_mapping(path, values)
    if values_of(after) != wanted:
        raise EditError(f"{name} is written in a way that cannot be added to here; edit the text instead")
    return after


def remove_item(text: str, name: str, number: int) -> str:
    """The text without one entry of a list; EditError."""
    editor, path = _Editor(text), _path(name)
    node = editor.node(path)
    if not isinstance(node, yaml.SequenceNode) or not 0 <= number < len(node.value):
        raise EditError(f"there is no {name}[{number}]")
    after = editor.remove_item(path, number)
    wanted = {}
    for key, value in values_of(text).items():
        found = re.fullmatch(rf"{re.escape(name)}\[([0-9]+)\](.*)", key)
        if found is None or int(found[1]) < number:
            wanted[key] = value
        elif int(found[1]) > number:
            wanted[f"{name}[{int(found[1]) - 1}]{found[2]}"] = value
    if values_of(after) != wanted:
        raise EditError(f"{name}[{number}] is written in a way that cannot be removed here; edit the text instead")
    return after


def add_switch(text: str, values: Mapping[str, Value]) -> str:
    """The text with another switch at the end, and `switch_count` with it, where there is one; EditError."""
    editor = _Editor(text)
    switches = editor.node(["switches"])
    count = len(switches.value) if isinstance(switches, yaml.SequenceNode) else 0
    return _count(editor.append_mapping(["switches"], values), count + 1)


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
    return _count(_Editor(text).remove_item(["switches"], index), len(switches.value) - 1)


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
    parts = re.findall(r"([A-Za-z0-9_-]+)|\[([0-9]{1,5})\]", key)
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
            return self.text if value is None else self._insert(above, last, value)
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

    def _insert(self, above: Sequence[str | int], name: str, value: Value) -> str:
        """A key that was not there, in its section, which may not have been there either."""
        written = _written(value) if isinstance(value, str) else f"[{', '.join(map(_written, value or ()))}]"
        depth = len(above)
        while self.node(above[:depth]) is None:
            depth -= 1
        section, missing = self.node(above[:depth]), [str(part) for part in (*above[depth:], name)]
        if any(isinstance(part, int) for part in above[depth:]):
            raise EditError(f"there is no {_key(above)}")
        in_line = written
        for part in reversed(missing[1:]):
            in_line = f"{{{part}: {in_line}}}"
        if isinstance(section, yaml.MappingNode) and section.flow_style:
            return self._put_in_line(section, None, None, missing[0], in_line)
        if isinstance(section, yaml.MappingNode):
            return self._after(_end(section), _nested(section.value[0][0].start_mark.column, missing, written))
        key = self._entry(self.node(above[: depth - 1]), str(above[depth - 1]))[0]  # there, but empty
        if key is None or section is None:
            raise EditError(f"there is no {_key(above)}")
        if section.start_mark.index != section.end_mark.index:
            return self._put(key, section, f"{{{missing[0]}: {in_line}}}")
        return self._after(key.end_mark.index, _nested(key.start_mark.column + 2, missing, written))

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

    def append_mapping(self, path: Sequence[str | int], values: Mapping[str, Value]) -> str:
        """Another entry, with keys of its own, at the end of a list, which may not be there yet."""
        *above, name = path
        parent = self.node(above)
        key, old = self._entry(parent, str(name))
        if isinstance(old, yaml.SequenceNode) and old.value:
            if not old.flow_style:
                return self._after(_end(old), _block(old.start_mark.column, values))
            at = old.end_mark.index - 1
            return f"{self.text[:at].rstrip()}, {_flow(values)}{self.text[at:]}"
        if old is not None and not _is_empty(old) and not isinstance(old, yaml.SequenceNode):
            raise EditError(f"{_key(path)} is no list here; edit the text instead")
        if isinstance(parent, yaml.MappingNode) and parent.flow_style:
            return self._put_in_line(parent, key, old, str(name), f"[{_flow(values)}]")
        if key is None or old is None:
            return self._first_of(above, parent, str(name), values)
        block = _block(key.start_mark.column + 2, values)
        colon = self.text.index(":", key.end_mark.index) + 1
        line_end = self.text.index("\n", old.end_mark.index)
        comment = self.text[old.end_mark.index : line_end] if old.start_mark.index != old.end_mark.index else ""
        rest = comment if comment.strip().startswith("#") else self.text[colon:line_end] if _is_empty(old) else ""
        return f"{self.text[:colon]}{rest}\n{block}{self.text[line_end:]}"

    def _put_in_line(
        self, parent: yaml.MappingNode, key: yaml.Node | None, old: yaml.Node | None, name: str, written: str
    ) -> str:
        if key is not None and old is not None:
            return self._put(key, old, written)
        at = parent.end_mark.index - 1
        comma = ", " if parent.value else ""
        return f"{self.text[:at].rstrip()}{comma}{name}: {written}{self.text[at:]}"

    def _first_of(
        self, above: Sequence[str | int], parent: yaml.Node | None, name: str, values: Mapping[str, Value]
    ) -> str:
        """A list that was not there, in a block; its section may not have been there either."""
        if isinstance(parent, yaml.MappingNode):
            column = parent.value[0][0].start_mark.column if parent.value else 0
            lines = f"{' ' * column}{name}:\n{_block(column + 2, values)}"
            return self._after(_end(parent), lines) if above else f"{self.text}{lines}\n"
        lines = f"  {name}:\n{_block(4, values)}"
        key, old = self._entry(self.root, str(above[0])) if len(above) == 1 else (None, None)
        if len(above) != 1 or (old is not None and old.start_mark.index != old.end_mark.index):
            raise EditError(f"there is no {_key(above)}")
        return f"{self.text}{above[0]}:\n{lines}\n" if key is None else self._after(key.end_mark.index, lines)

    def remove_item(self, path: Sequence[str | int], number: int) -> str:
        """A list, which is there, without one of its entries."""
        key, old = self._entry(self.node(path[:-1]), str(path[-1]))
        assert key is not None
        assert isinstance(old, yaml.SequenceNode)
        item = old.value[number]
        if old.flow_style:
            start, end = item.start_mark.index, _end(item)
            if number + 1 < len(old.value):
                end = old.value[number + 1].start_mark.index
            elif number:
                start = _end(old.value[number - 1])
            return self.text[:start] + self.text[end:]
        text = self._without(self._line_of(item), _end(item))
        if len(old.value) > 1:
            return text
        colon = self.text.index(":", key.end_mark.index) + 1
        return f"{text[:colon]} []{text[colon:]}"


def _nested(column: int, names: Sequence[str], written: str) -> str:
    """A key in lines of its own, below the sections that lead to it."""
    lines = (f"{' ' * (column + 2 * depth)}{name}:" for depth, name in enumerate(names))
    return "\n".join(lines) + f" {written}"


def _block(column: int, values: Mapping[str, Value]) -> str:
    """An entry of a list in lines of its own."""
    lines = []
    for field, value in values.items():
        if isinstance(value, str):
            lines.append(f"{field}: {_written(value)}")
        elif value is not None:
            lines += [f"{field}:", *(f"  - {_written(each)}" if each else "  -" for each in value)]
    return "\n".join(f"{' ' * column}{'  ' if number else '- '}{line}" for number, line in enumerate(lines))


def _flow(values: Mapping[str, Value]) -> str:
    """An entry of a list in one line."""
    written = {
        field: _written(value) if isinstance(value, str) else f"[{', '.join(map(_written, value))}]"
        for field, value in values.items()
        if value is not None
    }
    return f"{{{', '.join(f'{field}: {value}' for field, value in written.items())}}}"


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
