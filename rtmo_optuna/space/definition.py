"""Study definitions: YAML files in, with line and column for every complaint.

The head of studies/cuda.yaml describes the format. Names that live higher up, the samplers, are handed in.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.space.files import NOT_YAML, Mark, bounded, complaint, decode, not_yaml, read_all
from rtmo_optuna.space.knobs import canonical, dimension_table, knob_table
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.values import advice, nearest, parse_choice, parse_value, shown
from rtmo_optuna.types.measurement import GateMode, GateRules
from rtmo_optuna.types.request import Dimension, Limits, Measuring, Value
from rtmo_optuna.types.subject import StudyDefinition

_ALL = "all"
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = {
    _CORE + tag for tag in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
_MOST = 1e9
_FOLDERS = (Path(__file__).parents[1] / "studies", Path(__file__).parents[2] / "studies")


@dataclass(frozen=True, slots=True)
class _Field:
    """A scalar of a section: what it must be, in words, and how its text is read (ValueError, KeyError: it is not)."""

    words: str
    read: Callable[[str], Value]
    optional: bool = False


def _number(
    kind: Callable[[str], float], words: str, fits: Callable[[float], bool], *, optional: bool = False
) -> _Field:
    def read(text: str) -> Value:
        number = kind(text)
        if not (fits(number) and number < _MOST):
            raise ValueError
        return number

    return _Field(words, read, optional)


_COUNT = _number(int, "a whole number of at least 1", lambda n: n >= 1)
_SECONDS = _number(float, "a number above 0", lambda n: n > 0)
_SHARE = _number(float, "a share between 0 and 1", lambda n: 0 <= n <= 1)
_FLAG = _Field("true or false", lambda text: {"true": True, "false": False}[text.lower()])
_SECTIONS: Mapping[str, Mapping[str, _Field]] = {
    "budget": {"trials": _COUNT, "timeout_s": _SECONDS},
    "pruning": {"ratio": _number(float, "a number above 1", lambda n: n > 1)},
    "measuring": {
        "warmup_s": _number(float, "a number of at least 0", lambda n: n >= 0),
        "warmup_calls": _number(int, "a whole number of at least 0", lambda n: n >= 0),
        "warmup_exact": _FLAG,
        "window_s": _SECONDS,
        "window_calls": _COUNT,
        "slow_call_ms": _SECONDS,
        "slow_calls": _COUNT,
        "windows_min": _COUNT,
        "windows_max": _COUNT,
        "precision": _number(float, "a share between 0 and 1", lambda n: 0 < n < 1),
        "runs": _number(int, "a whole number of at least 1, or none", lambda n: n >= 1, optional=True),
        "rate_hz": _number(float, "a number above 0, or none", lambda n: n > 0, optional=True),
    },
    "limits": dict.fromkeys((field.name for field in fields(Limits)), _SECONDS),
    "constraints": {"max_memory_gb": _SECONDS},
    "gate": {
        "mode": _Field(f"one of {', '.join(GateMode)}", lambda text: GateMode(text.lower())),
        **dict.fromkeys(("elementwise_error", "unequal", "overlap", "confident", "unfound", "reported"), _SHARE),
        **dict.fromkeys(("keypoint_px", "row_error", "own_factor", "tail_factor"), _SECONDS),
        "min_rows": _COUNT,
    },
}
_KEYS = ("provider", "knobs", "fixed", "objective", "sampler", "batch", "input", *_SECTIONS)
_INPUTS = {"arrays": False, "pixels": True}


def load(path: Path, samplers: Collection[str]) -> StudyDefinition:
    """Return the study definition that the file `path` holds; its name is the file's stem.

    Raises UsageError with file, line and column for the first thing that is wrong with it.
    """
    reader = _Reader(path)
    top = reader.mapping(reader.root, "key", _KEYS)
    for key in ("provider", "knobs"):
        if key not in top:
            raise reader.complaint(reader.root, f"the key {key!r} is missing")
    provider = reader.one_of(top["provider"], "provider", PROVIDERS)
    knobs = reader.knobs(top["knobs"], provider)
    sections = {name: reader.section(top[name], table) for name, table in _SECTIONS.items() if name in top}
    measuring = replace(Measuring(), **sections.get("measuring", {}))
    if measuring.windows_min > measuring.windows_max:
        message = f"windows_min is {measuring.windows_min}, more than windows_max, {measuring.windows_max}"
        raise reader.complaint(top["measuring"], message)
    given: dict[str, Any] = {**sections.get("budget", {}), **sections.get("constraints", {})}
    if "constraints" in top and not PROVIDERS[provider].on_gpu:
        raise reader.complaint(top["constraints"], "max_memory_gb is the GPU's memory, so it needs the provider cuda")
    if "batch" in top:
        given["batch"] = reader.field(top["batch"], "batch", _COUNT)
    if "fixed" in top:
        given["fixed"] = reader.fixed(top["fixed"], provider, knobs)
    words = {"objective": OBJECTIVES, "sampler": samplers, "input": _INPUTS}
    given |= {key: reader.one_of(top[key], key, known) for key, known in words.items() if key in top}
    given["pixels"] = _INPUTS[given.pop("input", "arrays")]
    if "pruning" in top:
        given |= {f"prune_{name}": value for name, value in sections["pruning"].items()}
    limits = replace(Limits(), **sections.get("limits", {}))
    gate = replace(GateRules(), **sections.get("gate", {}))
    return StudyDefinition(path.stem, provider, knobs, measuring=measuring, limits=limits, gate=gate, **given)


def find(name_or_path: str) -> Path:
    """Return the file of a study definition: one that ships, by its name, or any path that exists.

    Raises UsageError, with the names of those that ship, where there is neither.
    """
    ships = {path.stem: path for path in shipped()}
    path = ships.get(name_or_path, Path(name_or_path))
    with contextlib.suppress(OSError):
        if path.exists():
            return path
    near = nearest(path.stem, ships)
    raise UsageError(
        f"There is no study definition {name_or_path!r}: no file can be read there, and those that ship are "
        f"{', '.join(ships)}.{f' Did you mean {near!r}?' if near else ''}"
    )


def shipped() -> tuple[Path, ...]:
    """Return the study definitions that ship, by name: from the installed package, or from the checkout around it."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return tuple(sorted(folder.glob("*.yaml"), key=lambda path: path.stem))


class _Reader:
    """One file: its node graph, and what its nodes stand for. Complaints are UsageErrors with a place."""

    def __init__(self, path: Path) -> None:
        """Read the file and check what holds for every node."""
        self._path = path
        try:
            data = read_all(path)
        except OSError as error:
            raise UsageError(f"The study definition {path} cannot be read: {error.strerror}.") from error
        text = decode(path, data)
        try:
            deque(bounded(path, yaml.parse(text, yaml.SafeLoader)), maxlen=0)
            root = yaml.compose(text, yaml.SafeLoader)
        except (yaml.YAMLError, *NOT_YAML) as error:
            raise not_yaml(path, text, error) from error
        if root is None:
            raise complaint(path, Mark(0, 0), "the file is empty; it needs 'provider' and 'knobs' at least")
        self.root: yaml.Node = root
        self._check(root)

    def complaint(self, node: yaml.Node, message: str) -> UsageError:
        """Return the error that says `message` of `node`."""
        return complaint(self._path, Mark(node.start_mark.line, node.start_mark.column), message)

    def mapping(self, node: yaml.Node, what: str, known: Collection[str]) -> dict[str, yaml.Node]:
        """Return the values by key, all of them `known`; nothing at all is an empty mapping."""
        if _text(node) is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.complaint(node, f"this must be a mapping of {what}s, not {_shape(node)}")
        for key, _ in node.value:
            if key.value not in known:
                raise self.complaint(key, f"unknown {what} {key.value!r}. {advice(key.value, known)}")
        return {key.value: value for key, value in node.value}

    def one_of(self, node: yaml.Node, what: str, known: Collection[str]) -> str:
        """Return the one of `known` that the scalar `node` names."""
        return str(self._value(node, partial(parse_choice, what, known)))

    def section(self, node: yaml.Node, table: Mapping[str, _Field]) -> dict[str, Any]:
        """Return the section's values by name."""
        return {name: self.field(value, name, table[name]) for name, value in self.mapping(node, "key", table).items()}

    def knobs(self, node: yaml.Node, provider: str) -> dict[str, tuple[Value, ...] | None]:
        """Return the labels of each dimension's choices, None for all of them."""
        table, single = dimension_table(provider), knob_table(provider)
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                for combined in PROVIDERS[provider].combined:
                    if key.value in _members(combined):
                        message = f"{key.value!r} is searched as a part of {combined.name!r}: name that instead"
                        raise self.complaint(key, message)
        found: dict[str, tuple[Value, ...] | None] = {}
        for name, value in self.mapping(node, "knob", table).items():
            labels = [choice.label for choice in table[name].choices]
            parse = partial(parse_value, single[name]) if name in single else partial(parse_choice, name, labels)
            found[name] = self._choices(value, parse)
        if not found:
            raise self.complaint(node, "there is no knob to search here")
        return found

    def fixed(self, node: yaml.Node, provider: str, searched: Collection[str]) -> dict[str, Value]:
        """Return the value of each fixed knob; none may be searched too, or have no meaning."""
        table, dimensions = knob_table(provider), dimension_table(provider)
        nodes = self.mapping(node, "knob", table)
        found = {name: self._value(value, partial(parse_value, table[name])) for name, value in nodes.items()}
        both = {knob for name in searched for knob in _members(dimensions[name])}
        in_force = canonical(provider, found)
        for name, value in found.items():
            if name in both:
                raise self.complaint(nodes[name], f"{name!r} is both fixed and searched: leave out one")
            need = table[name].needs
            if need and value != table[name].default and name not in dict(in_force):
                message = f"{name!r} means nothing unless {need[0]!r} is fixed at {shown(need[1])}"
                raise self.complaint(nodes[name], message)
        return found

    def field(self, node: yaml.Node, name: str, field: _Field) -> Value:
        """Return the scalar's value as `field` reads it."""

        def parse(text: str | None) -> Value:
            if field.optional and (text or "none").lower() == "none":
                return None
            try:
                return field.read(text or "")
            except (ValueError, KeyError) as error:
                raise UsageError(f"{name} must be {field.words}, not {shown(text)!r}") from error

        return self._value(node, parse)

    def _choices(self, node: yaml.Node, parse: Callable[[str | None], Value]) -> tuple[Value, ...] | None:
        if isinstance(node, yaml.ScalarNode) and node.value.lower() == _ALL:
            return None
        if not isinstance(node, yaml.SequenceNode):
            message = f"this must be {_ALL!r} or a list of choices; one value for every trial goes under 'fixed'"
            raise self.complaint(node, message)
        found: list[Value] = []
        for item in node.value:
            value = self._value(item, parse)
            if value in found:
                raise self.complaint(item, f"the choice {shown(value)} is named twice")
            found.append(value)
        if len(found) < 2:  # noqa: PLR2004 - there is nothing to choose
            raise self.complaint(node, f"there is nothing to choose between: name two choices or more, or {_ALL!r}")
        return tuple(found)

    def _value(self, node: yaml.Node, parse: Callable[[str | None], Value]) -> Value:
        if not isinstance(node, yaml.ScalarNode):
            raise self.complaint(node, f"this must be a single value, not {_shape(node)}")
        try:
            return parse(_text(node))
        except UsageError as error:
            raise self.complaint(node, str(error)) from error

    def _check(self, root: yaml.Node) -> None:
        """Refuse tags of Python and others, and keys that are no scalars or come twice, wherever they are."""
        waiting, seen = [root], set[int]()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.tag not in _CORE_TAGS:
                raise self.complaint(node, f"the tag {node.tag.replace(_CORE, '!!')} has no meaning here")
            if isinstance(node, yaml.MappingNode):
                self._check_keys([key for key, _ in node.value])
                waiting += [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value

    def _check_keys(self, keys: list[yaml.Node]) -> None:
        seen = set[str]()
        for key in keys:
            if not isinstance(key, yaml.ScalarNode):
                raise self.complaint(key, f"a key must be a name, not {_shape(key)}")
            if key.value in seen:
                raise self.complaint(key, f"the key {key.value!r} is here a second time")
            seen.add(key.value)


def _members(dimension: Dimension) -> set[str]:
    return {knob for choice in dimension.choices for knob, _ in choice.values}


def _text(node: yaml.Node) -> str | None:
    """Return a scalar's text, None for null; empty for others, whose aliases could make any number of values."""
    return None if node.tag == _CORE + "null" else str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _shape(node: yaml.Node) -> str:
    kinds: tuple[tuple[type[yaml.Node], str], ...] = ((yaml.MappingNode, "a mapping"), (yaml.SequenceNode, "a list"))
    return next((words for kind, words in kinds if isinstance(node, kind)), "a single value")
