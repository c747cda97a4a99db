"""config.yaml in and out. Values are changed where they stand in the text, so that all the rest stays as it is."""

from __future__ import annotations

import io
import re
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, DocumentStartEvent, MappingStartEvent, ScalarEvent

from rtmo_optuna.errors import UsageError
from rtmo_optuna.records import Settings, Value
from rtmo_optuna.space import values
from rtmo_optuna.space.knobs import PROVIDERS, Knob, canonical, knob_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_NEW_TARGET = "onnx"
_INFO = "benchmark_info"
_KNOBS = {name: knob for provider in PROVIDERS for name, knob in knob_table(provider).items()}
_AFTER_KEY = re.compile(r"([ \t]*:)?")
_LINE_END = re.compile(r"\r?\n|\Z")
_QUOTABLE = re.compile(r"(?!null$)[\w %.+-]+")
_Tree: TypeAlias = "dict[str, str | _Tree]"
_Edit: TypeAlias = tuple[int, int, str]

check_writable = values.check_writable


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file holds: the dotted path of the settings' mapping, its knobs, and what they amount to."""

    path: Path
    exists: bool
    target: str
    held: Mapping[str, Value]
    settings: Settings


def read(path: Path, provider: str, config_path: str = "") -> ConfigFile:
    """Return what the file `path` holds for `provider`; a file that is not there holds nothing.

    The target is `config_path` (dots), else the first mapping with a knob of any provider, else `onnx`; mappings that
    others merge are passed over. Raises UsageError, with line and column, for what cannot be read or written back.
    """
    data = values.read_bytes(path)
    document = _Document(path, values.decode(path, data or b""))
    target = config_path or next(document.mappings_with(_KNOBS), _NEW_TARGET)
    held = document.held(target, knob_table(provider))
    return ConfigFile(path, data is not None, target, held, canonical(provider, held))


def merged(provider: str, held: Settings, fixed: Iterable[tuple[str, Value]]) -> Settings:
    """Return the settings `held`, with the (knob, value) pairs `fixed` in place of their own."""
    return canonical(provider, {**dict(held), **dict(fixed)})


def write(config: ConfigFile, settings: Mapping[str, Value], info: Mapping[str, Any]) -> Path | None:
    """Write `settings` into the target of `config` and `info` into `benchmark_info` beside them; return the backup.

    The file is read anew, changed where values differ, and replaced at once; the old one is kept as
    `config.yaml.bak-<time>`. None comes back where there was none, or nothing to change. Raises UsageError where the
    file cannot be read or written any more.
    """
    data = values.read_bytes(config.path)
    text = values.decode(config.path, data or b"")
    new = _Document(config.path, text).written(config.target, settings, info)
    _prove(config, new, settings, info)
    return values.replace(config.path, data, new) if new != text else None


def _prove(config: ConfigFile, text: str, settings: Mapping[str, Value], info: Mapping[str, Any]) -> None:
    """Read `text` as the next run will: a layout that nobody thought of must not cost the user the file."""
    try:
        document = _Document(config.path, text)
        told = document.keys_of(f"{config.target}.{_INFO}".lstrip("."))
        proven = settings.items() <= document.held(config.target, _KNOBS).items() and info.keys() <= told
    except UsageError:
        proven = False
    if not proven:
        wanted = ", ".join(f"{name}: {_yaml(value)}" for name, value in settings.items())
        message = f"{config.path} is laid out so that it cannot be changed safely, and was left alone. Write: {wanted}."
        raise UsageError(message)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node: where its text lies, the place to name in complaints, its key, and where the key's colon ends."""

    event: Any
    start: int
    end: int
    mark: Any
    key: _Node | None
    after: int
    within_flow: bool
    children: tuple[_Node, ...]

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.event, MappingStartEvent)

    @property
    def is_null(self) -> bool:
        plain = isinstance(self.event, ScalarEvent) and not self.event.style and not self.event.tag
        return plain and self.label.lower() in {"", "~", "null"}

    @property
    def is_flow(self) -> bool:
        return bool(getattr(self.event, "flow_style", False))

    @property
    def label(self) -> str:
        return str(self.event.value) if isinstance(self.event, ScalarEvent) else ""

    @property
    def named(self) -> dict[str, _Node]:
        """The values of a mapping by key, those of a list by number."""
        return {child.key.label if child.key else str(number): child for number, child in enumerate(self.children)}


class _Document:
    """A YAML text, the nodes in it, and the edits that change some of them and nothing else."""

    def __init__(self, path: Path, text: str) -> None:
        """Parse `text`; raise UsageError where it is not one YAML document without duplicate keys."""
        self._path, self._text, self._step = path, text, 2
        self._eol = next(iter(re.findall(r"\r?\n", text)), "\n")
        self._anchors: list[_Node] = []
        try:
            events = deque(YAML(typ="safe", pure=True).parse(text))
            events.popleft()
            self._root = self._built(events) if isinstance(events.popleft(), DocumentStartEvent) else None
        except (YAMLError, RecursionError) as error:
            raise values.not_yaml(path, text, error) from error
        for event in events:
            if isinstance(event, DocumentStartEvent):
                raise self._complaint(event.start_mark, "a second document begins here; the file may hold only one")
        for node in self._anchors:
            self._resolved(node)

    def mappings_with(self, names: Collection[str]) -> Iterator[str]:
        """Yield the dotted path of each mapping that has one of `names`, in order, without those that others merge."""
        walked = list(self._walk(self._root, ""))
        templates = {source.start for _, node in walked for source in self._merged(node)}
        return (d for d, node in walked if node.start not in templates and set(names) & self._entries(node).keys())

    def held(self, target: str, table: Mapping[str, Knob]) -> dict[str, Value]:
        """Return the values of the knobs in `table` that the mapping `target` has or merges."""
        node, rest = self._found(target)
        if node is None or rest:
            return {}
        info = node.named.get(_INFO)
        if info and not (info.is_mapping or info.is_null):
            raise self._complaint(info.mark, f"{_INFO} must be a mapping")
        return {name: self._value(table[name], child) for name, child in self._entries(node).items() if name in table}

    def keys_of(self, target: str) -> set[str]:
        """Return the keys of the mapping `target`, none where it is not there."""
        node, rest = self._found(target)
        return set(node.named) if node and not rest else set()

    def written(self, target: str, settings: Mapping[str, Value], info: Mapping[str, Any]) -> str:
        """Return the text with `settings` in the mapping `target`, and `info` in `benchmark_info` beside them."""
        node, rest = self._found(target)
        own = node.named if node and not rest else {}
        changed = {n: v for n, v in settings.items() if n not in own or self._value(_KNOBS[n], own[n]) != v}
        tree: _Tree = {name: _yaml(value) for name, value in changed.items()}
        tree[_INFO] = {name: _yaml(value) for name, value in info.items()}
        for name in reversed(rest.split(".") if rest else []):
            tree = {name: tree}
        text, at = "", 0
        for start, end, new in sorted(self._edits(node, tree), key=lambda edit: edit[0]):
            text += self._text[at:start] + new
            at = end
        return text + self._text[at:]

    def _built(self, events: deque[Any], key: _Node | None = None, *, within_flow: bool = False) -> _Node:
        event = events.popleft()
        start, end, mark, children = event.start_mark.index, event.end_mark.index, event.start_mark, list[_Node]()
        after = self._find(_AFTER_KEY, key.end).end() if key else start
        if hasattr(event, "flow_style"):
            within = within_flow or event.flow_style
            while not isinstance(events[0], CollectionEndEvent):
                name = self._built(events, within_flow=within) if isinstance(event, MappingStartEvent) else None
                if name and name.label in {child.key.label for child in children if child.key}:
                    raise self._complaint(name.mark, f"the key {name.label!r} is here a second time")
                children.append(self._built(events, name, within_flow=within))
            end = events.popleft().end_mark.index if event.flow_style else children[-1].end
            if key and children and children[0].key and not within:
                self._step = children[0].key.mark.column - key.mark.column
        elif key and start == end:
            start, end, mark = after, after, key.mark
        node = _Node(event, start, end, mark, key, after, within_flow, tuple(children))
        if event.anchor:
            self._anchors.append(node)
        return node

    def _find(self, pattern: re.Pattern[str], at: int) -> re.Match[str]:
        return next(pattern.finditer(self._text, at))

    def _complaint(self, mark: Any, message: str) -> UsageError:  # noqa: ANN401 - ruamel.yaml has several kinds
        return UsageError(f"{values.place(self._path, mark.line, mark.column)}: {message.rstrip('.')}.")

    def _resolved(self, node: _Node) -> _Node:
        """Return the node that an alias stands for, any other one as it is."""
        if not isinstance(node.event, AliasEvent):
            return node
        same = [n for n in self._anchors if n.event.anchor == node.event.anchor and n.start < node.start]
        anchored = [n for n in same if not isinstance(n.event, AliasEvent)]
        if not anchored:
            raise self._complaint(node.mark, f"there is no anchor &{node.event.anchor} before this")
        return max(anchored, key=lambda n: n.start)

    def _merged(self, node: _Node) -> list[_Node]:
        """Return the mappings that `node` merges (`<<`), the strongest first."""
        value = node.named.get("<<") if node.is_mapping else None
        if value is None:
            return []
        whole = self._resolved(value)
        merged = [whole] if whole.is_mapping else [self._resolved(child) for child in whole.children]
        if not merged or any(not source.is_mapping or source.start < value.after < source.end for source in merged):
            raise self._complaint(value.mark, "only other mappings can be merged")
        return merged

    def _entries(self, node: _Node) -> dict[str, _Node]:
        """Return the values of a mapping by key, merged ones too."""
        found: dict[str, _Node] = {}
        for source in (node, *self._merged(node)):
            found = {**(source.named if source is node else self._entries(source)), **found}
        return found

    def _value(self, knob: Knob, node: _Node) -> Value:
        scalar = self._resolved(node)
        raw = None if scalar.is_null else self._text[scalar.start : scalar.end]
        if isinstance(scalar.event, ScalarEvent) and raw and not scalar.event.tag:
            raw = scalar.label
        try:
            return values.parse_value(knob, raw)
        except UsageError as error:
            raise self._complaint(node.mark, str(error)) from error

    def _walk(self, node: _Node | None, dots: str) -> Iterator[tuple[str, _Node]]:
        if node and node.is_mapping:
            yield dots, node
        for label, child in node.named.items() if node else ():
            yield from self._walk(child, f"{dots}.{label}" if dots else label)

    def _found(self, dots: str) -> tuple[_Node | None, str]:
        """Return the deepest mapping (or nothing where one could be) on the path, and what is left of the path."""
        if dots and not all(dots.split(".")):
            message = f"{dots!r} is no path in {self._path}: give keys with single dots between them, like models.onnx."
            raise UsageError(message)
        node, rest = self._descend(self._root, dots)
        if node and not (node.is_mapping or node.is_null):
            where = dots.removesuffix(rest).rstrip(".") or "the top level"
            raise self._complaint(node.mark, f"{where} must be a mapping of its own to take the settings")
        return node, rest

    def _descend(self, node: _Node | None, dots: str) -> tuple[_Node | None, str]:
        below = [
            self._descend(child, dots[len(label) + 1 :])
            for label, child in (node.named.items() if node else ())
            if label and f"{dots}.".startswith(f"{label}.")
        ]
        return min(below, key=lambda found: len(found[1]), default=(node, dots))

    def _edits(self, node: _Node | None, tree: _Tree) -> Iterator[_Edit]:
        if node is None:
            yield self._lines(len(self._text), self._block(tree, 0))
        elif not node.children:
            yield from self._filled(node, tree)
        else:
            new: _Tree = {}
            for name, value in tree.items():
                child = node.named.get(name)
                if child is None:
                    new[name] = value
                else:
                    yield from self._edits(child, value) if isinstance(value, dict) else self._replaced(child, value)
            key, end = node.children[0].key, node.children[-1].end
            if new and key:
                yield (
                    (end, end, f", {_flow(new)}")
                    if node.is_flow
                    else self._lines(end, self._block(new, key.mark.column))
                )

    def _filled(self, node: _Node, tree: _Tree) -> Iterator[_Edit]:
        if node.is_mapping and (node.within_flow or node.event.anchor):
            yield node.end - 1, node.end - 1, _flow(tree)
        elif node.within_flow:
            yield node.start, node.end, f" {{{_flow(tree)}}}"
        else:
            yield len(self._text[: node.start].rstrip(" \t")), node.end, ""
            yield self._lines(node.end, self._block(tree, node.key.mark.column + self._step if node.key else 0))

    def _replaced(self, node: _Node, new: str) -> Iterator[_Edit]:
        old = self._text[node.start : node.end].rstrip()
        quote = old[:1] if isinstance(node.event, ScalarEvent) and node.event.style in {"'", '"'} else ""
        if _QUOTABLE.fullmatch(new):
            new = f"{quote}{new}{quote}"
        block = node.children and not node.is_flow
        start = node.after if block or node.start == node.end else node.start
        yield start, node.start + len(old), f" {new}" if start == node.after else new

    def _lines(self, at: int, lines: Iterable[str]) -> _Edit:
        """Return the edit that puts `lines` below the line that ends after `at`."""
        block = self._eol.join(lines)
        if at == 0 or self._text[at - 1] == "\n":
            return at, at, block + self._eol
        at = self._find(_LINE_END, at).start()
        return at, at, self._eol + block

    def _block(self, tree: _Tree, indent: int) -> Iterator[str]:
        for name, value in tree.items():
            nested = isinstance(value, dict)
            yield f"{' ' * indent}{_yaml(name)}:{'' if nested else f' {value}'}"
            if isinstance(value, dict):
                yield from self._block(value, indent + self._step)


def _flow(tree: _Tree) -> str:
    return ", ".join(f"{_yaml(k)}: {f'{{{_flow(v)}}}' if isinstance(v, dict) else v}" for k, v in tree.items())


def _yaml(value: object) -> str:
    """Return `value` in flow style on one line, so that YAML 1.1 and 1.2 read it alike."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version, yaml.default_flow_style, yaml.width = (1, 1), True, sys.maxsize
    yaml.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump([value], stream)
    return stream.getvalue().partition("--- [")[2].removesuffix("]\n")
