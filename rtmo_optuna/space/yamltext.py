"""A YAML text whose values are changed where they stand, so that all the rest stays as it is."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML, events
from ruamel.yaml.error import YAMLError

from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.base import Extra, Knob
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.space import files, values
from rtmo_optuna.space.extras import EXTRAS, extra_of, extra_value, installed_entries, is_entry, is_left_out
from rtmo_optuna.types.request import Value

INFO = "benchmark_info"
PROFILES = "profiles"
"""The key, beside settings, of settings by the name of what they were tuned on."""
_NEARLY = 0.8
_MOST = 3
_SESSION = "session."
_MOST_CHAINED = 64
_MOST_MERGED = 100_000
_AFTER_KEY = re.compile(r"([ \t]*:)?")
_LINE_END = re.compile(r"\r?\n|\Z")
_QUOTABLE = re.compile(r"(?!null$)[\w %.+-]+")
_Edit: TypeAlias = tuple[int, int, str]


def known_knobs() -> dict[str, Knob]:
    """Return the knobs of all providers by name."""
    return {knob.name: knob for provider in PROVIDERS.values() for knob in provider.knobs}


class _Tree(dict[str, Any]):
    """A mapping that is written key by key; any other value is written as a whole."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A node: where its text lies, the place to name in complaints, its key, and where the key's colon ends.

    `text` is a scalar's content; `named` are a mapping's values by key, a list's by number.
    """

    event: Any
    start: int
    end: int
    mark: files.Mark
    key: _Node | None
    after: int
    in_flow: bool
    text: str
    named: Mapping[str, _Node]

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.event, events.MappingStartEvent)

    @property
    def is_null(self) -> bool:
        plain = isinstance(self.event, events.ScalarEvent) and not self.event.style and not self.event.tag
        return plain and self.text.lower() in {"", "~", "null"}


def _place(node: _Node) -> int:
    return node.start


def _meant(name: str) -> str:
    """Return the names that `name`, which is none, may stand for; nothing where it need not be a setting's."""
    bare, entry = name.removeprefix(_SESSION), is_entry(name)
    if bare != name and bare in known_knobs():
        return bare
    if is_left_out(name) or (entry and name in installed_entries()):
        return ""
    known = [*known_knobs(), *EXTRAS, *(installed_entries() if entry else ())]
    near = difflib.get_close_matches(name, known, 1, _NEARLY)
    if entry and not near:
        near = difflib.get_close_matches(name, known, _MOST, 0.0)
    return " or ".join(near)


def _plain(node: _Node) -> Any:  # noqa: ANN401 - a text or a mapping
    return {name: _plain(child) for name, child in node.named.items()} if node.named else node.text


class Document:
    """A YAML text, the nodes in it, and the edits that change some of them and nothing else."""

    def __init__(self, path: Path, text: str) -> None:
        """Parse `text`; raise UsageError where it is not one YAML document without duplicate keys."""
        self._path, self._text, self._step = path, text, 2
        self._eol = next(iter(re.findall(r"\r?\n", text)), "\n")
        self._anchors: list[_Node] = []
        self._anchored: dict[str, list[_Node]] = {}
        self._merges = 0
        try:
            queue = deque(files.bounded(path, YAML(typ="safe", pure=True).parse(text)))
            queue.popleft()
            self._root = self._built(queue) if isinstance(queue.popleft(), events.DocumentStartEvent) else None
        except (YAMLError, *files.NOT_YAML) as error:
            raise files.not_yaml(path, text, error) from error
        for event in queue:
            if isinstance(event, events.DocumentStartEvent):
                raise self._complaint(event.start_mark, "a second document begins here; the file may hold only one")
        for node in sorted(self._anchors, key=_place):
            if not isinstance(node.event, events.AliasEvent):
                self._anchored.setdefault(node.event.anchor, []).append(node)
        for node in self._anchors:
            self._resolved(node)

    def mappings_with(self, names: Collection[str]) -> Iterator[str]:
        """Yield the dotted path of each mapping that has one of `names`, in order, without those that others merge.

        A profile stands for the mapping that has the profiles.
        """
        walked = list(self._walk(self._root, ()))
        templates = {source.start for _, node in walked for source in self._merged(node)}
        own = ((path, node) for path, node in walked if node.start not in templates)
        having = (path for path, node in own if set(names) & self._entries(node).keys())
        return (".".join(path[:-2] if path[-2:-1] == (PROFILES,) else path) for path in having)

    def profiles(self, target: str) -> tuple[str, ...]:
        """Return the names of the profiles beside the settings in the mapping `target`."""
        entries = self._entries_of(target)
        named = self._resolved(entries[PROFILES]).named if PROFILES in entries else {}
        return tuple(name for name, child in named.items() if self._resolved(child).is_mapping)

    def held(self, target: str, table: Mapping[str, Knob]) -> dict[str, Value]:
        """Return the values of the knobs in `table` that the mapping `target` has or merges."""
        node, rest = self._found(target)
        if node is None or rest:
            return {}
        if (info := node.named.get(INFO)) and not (info.is_mapping or info.is_null):
            raise self._complaint(info.mark, f"{INFO} must be a mapping")
        return {name: self._value(table[name], child) for name, child in self._entries(node).items() if name in table}

    def extras(self, target: str, provider: str) -> dict[str, Value]:
        """Return the values of ONNX Runtime's other options for `provider` that the mapping `target` has or merges."""
        return {
            name: self._extra(extra_of(name), child)
            for name, child in self._others(target).items()
            if not is_left_out(name) and extra_of(name).provider in {"", provider}
        }

    def left_out(self, target: str) -> tuple[str, ...]:
        """Return the options of ONNX Runtime in the mapping `target` that no session here is given."""
        return tuple(filter(is_left_out, self._others(target)))

    def _others(self, target: str) -> dict[str, _Node]:
        """Return ONNX Runtime's options that are no knobs."""
        entries, knobs = self._entries_of(target), known_knobs()
        return {n: v for n, v in entries.items() if n in EXTRAS or (is_entry(n) and n not in knobs)}

    def is_empty(self, target: str) -> bool:
        """Return whether the mapping `target` holds no knob of any provider and no other option, or is not there."""
        return not (known_knobs().keys() & self._entries_of(target).keys() or self._others(target))

    def check_spelling(self, target: str) -> None:
        """Raise UsageError for a key of the mapping `target` that is nearly a setting, or can be nothing else."""
        knobs = known_knobs()
        for name, child in self._entries_of(target).items():
            if name not in {*knobs, *EXTRAS, INFO} and (meant := _meant(name)):
                mark = (child.key or child).mark
                raise self._complaint(mark, f"there is no setting {name!r}: did you mean {meant}?")

    def info(self, target: str) -> dict[str, Any]:
        """Return what `benchmark_info` holds beside the settings."""
        entries = self._entries_of(target)
        found = _plain(entries[INFO]) if INFO in entries else {}
        return found if isinstance(found, dict) else {}

    def _entries_of(self, target: str) -> dict[str, _Node]:
        node, rest = self._found(target)
        return {} if node is None or rest else self._entries(node)

    def written(self, target: str, settings: Mapping[str, Value], info: Mapping[str, Any], profile: str = "") -> str:
        """Return the text with `settings` in the mapping `target`, and `info` in `benchmark_info` beside them.

        `profile` is the last name of the path, which may have dots in it.
        """
        node, rest = self._found(target)
        own: Mapping[str, _Node] = node.named if node and not rest else {}
        knobs = known_knobs()
        tree = _Tree({n: v for n, v in settings.items() if n not in own or self._value(knobs[n], own[n]) != v})
        tree[INFO] = _Tree(info)
        whole = [profile] if profile and rest else []
        before = rest.removesuffix(profile).rstrip(".") if whole else rest
        for name in reversed([*(before.split(".") if before else []), *whole]):
            tree = _Tree({name: tree})
        text, at = "", 0
        for start, end, new in sorted(self._edits(node, tree), key=lambda edit: edit[0]):
            text += self._text[at:start] + new
            at = end
        return text + self._text[at:]

    def _built(self, queue: deque[Any], key: _Node | None = None, *, in_flow: bool = False) -> _Node:
        event = queue.popleft()
        start, end, mark, named = event.start_mark.index, event.end_mark.index, event.start_mark, dict[str, _Node]()
        after = self._find(_AFTER_KEY, key.end).end() if key else start
        if isinstance(event, events.CollectionStartEvent):
            flow = in_flow or bool(event.flow_style)
            while not isinstance(queue[0], events.CollectionEndEvent):
                name = self._built(queue, in_flow=flow) if isinstance(event, events.MappingStartEvent) else None
                label = name.text if name else str(len(named))
                if name and label in named:
                    raise self._complaint(name.mark, f"the key {label!r} is here a second time")
                named[label] = child = self._built(queue, name, in_flow=flow)
                if key and name and not flow:
                    self._step = name.mark.column - key.mark.column
            closing = queue.popleft().end_mark.index
            end = closing if event.flow_style else child.end
        elif key and start == end:
            start, end, mark = after, after, key.mark
        node = _Node(event, start, end, mark, key, after, in_flow, getattr(event, "value", ""), named)
        if event.anchor:
            self._anchors.append(node)
        return node

    def _find(self, pattern: re.Pattern[str], at: int) -> re.Match[str]:
        return next(pattern.finditer(self._text, at))

    def _complaint(self, mark: files.Mark, message: str) -> UsageError:
        return files.complaint(self._path, mark, message)

    def _resolved(self, node: _Node) -> _Node:
        """Return the node that an alias stands for, any other one as it is."""
        if not isinstance(node.event, events.AliasEvent):
            return node
        anchored = self._anchored.get(node.event.anchor, [])
        earlier = bisect_left(anchored, node.start, key=_place)
        if not earlier:
            raise self._complaint(node.mark, f"there is no anchor &{node.event.anchor} before this")
        return anchored[earlier - 1]

    def _merged(self, node: _Node) -> list[_Node]:
        """Return the mappings that `node` merges (`<<`), the strongest first."""
        merged: list[_Node] = []
        if value := node.named.get("<<"):
            whole = self._resolved(value)
            merged = [whole] if whole.is_mapping else [self._resolved(child) for child in whole.named.values()]
            if not merged or any(not source.is_mapping or source.start < value.after < source.end for source in merged):
                raise self._complaint(value.mark, "only other mappings can be merged")
        return merged

    def _entries(self, node: _Node, depth: int = 0) -> dict[str, _Node]:
        """Return the values of a mapping by key, merged ones too; UsageError where merging has no end in sight."""
        found: dict[str, _Node] = {}
        for source in reversed(self._merged(node)):
            self._merges += 1 + len(source.named)
            if depth > _MOST_CHAINED or self._merges > _MOST_MERGED:
                raise self._complaint(source.mark, "this is merged (<<) too often")
            found.update(self._entries(source, depth + 1))
        found.update(node.named)
        return found

    def _value(self, knob: Knob, node: _Node) -> Value:
        scalar = self._resolved(node)
        text = scalar.text if scalar.text and not scalar.event.tag else self._text[scalar.start : scalar.end]
        try:
            return values.parse_value(knob, None if scalar.is_null else text)
        except UsageError as error:
            raise self._complaint(node.mark, str(error)) from error

    def _extra(self, extra: Extra, node: _Node) -> Value:
        scalar = self._resolved(node)
        try:
            return extra_value(extra, scalar.text or "")
        except UsageError as error:
            raise self._complaint(node.mark, str(error)) from error

    def _walk(self, node: _Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Node]]:
        if node and node.is_mapping:
            yield path, node
        for label, child in node.named.items() if node else ():
            yield from self._walk(child, (*path, label))

    def _found(self, dots: str) -> tuple[_Node | None, str]:
        """Return the deepest mapping (or nothing where one could be) on the path, and what is left of the path."""
        if dots and not all(dots.split(".")):
            message = f"{dots!r} is no path in {self._path}: give keys with single dots between them, like models.onnx."
            raise UsageError(message)
        node, rest = self._root, dots
        while node and (on_path := [label for label in node.named if label and f"{rest}.".startswith(f"{label}.")]):
            label = max(on_path, key=len)
            node, rest = node.named[label], rest[len(label) + 1 :]
        if node and not (node.is_mapping or node.is_null):
            where = dots.removesuffix(rest).rstrip(".") or "the top level"
            raise self._complaint(node.mark, f"{where} must be a mapping of its own to take the settings")
        return node, rest

    def _edits(self, node: _Node | None, tree: _Tree) -> Iterator[_Edit]:
        if node is None:
            yield self._lines(len(self._text), self._block(tree, 0))
        elif not node.named:
            yield from self._filled(node, tree)
        else:
            for name in tree.keys() & node.named.keys():
                child, value = node.named[name], tree[name]
                yield from self._edits(child, value) if isinstance(value, _Tree) else self._replaced(child, value, tree)
            new = _Tree({name: value for name, value in tree.items() if name not in node.named})
            last = [*node.named.values()][-1]
            if node.event.flow_style:
                yield last.end, last.end, f", {values.as_yaml(new)[1:-1]}" if new else ""
            elif new and last.key:
                yield self._lines(last.end, self._block(new, last.key.mark.column))

    def _filled(self, node: _Node, tree: _Tree) -> Iterator[_Edit]:
        """Fill a mapping that is empty, or null."""
        if node.is_mapping and (node.in_flow or node.event.anchor):
            yield node.end - 1, node.end - 1, values.as_yaml(tree)[1:-1]
        elif node.in_flow:
            yield node.start, node.end, f" {values.as_yaml(tree)}"
        else:
            yield len(self._text[: node.start].rstrip(" \t")), node.end, ""
            yield self._lines(node.end, self._block(tree, node.key.mark.column + self._step if node.key else 0))

    def _replaced(self, node: _Node, value: object, tree: _Tree) -> Iterator[_Edit]:
        """Write a value over another; an anchor moves to its first alias that is not written over as well."""
        old, new = self._text[node.start : node.end].rstrip(), values.as_yaml(value)
        alike = (other for other in self._anchors if other.event.anchor == node.event.anchor)
        aliases = (alias for alias in alike if alias is not node and self._resolved(alias) is node)
        for alias in [alias for alias in aliases if not alias.key or alias.key.text not in tree][:1]:
            yield alias.start, alias.end, old
        if isinstance(node.event, events.ScalarEvent) and node.event.style in {"'", '"'} and _QUOTABLE.fullmatch(new):
            new = f"{node.event.style}{new}{node.event.style}"
        start = node.start if node.in_flow or not node.named else node.after
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
            nested = isinstance(value, _Tree)
            yield f"{' ' * indent}{values.as_yaml(name)}:{'' if nested else f' {values.as_yaml(value)}'}"
            yield from self._block(value, indent + self._step) if nested else ()
