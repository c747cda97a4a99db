"""config.yaml in and out: what it holds, and what is written into it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import files, values
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.space.yamltext import PROFILES, Document, known_knobs
from rtmo_optuna.types.request import Settings, Value

AUTO = "auto"
"""What stands for the profile of the device at hand."""
_NEW_TARGET = "onnx"
_SOME_INFO: Mapping[str, Any] = {"latency_ms": 1.5, "speedup_interval": [1, 2], "shapes": {"x": "1x3"}, "study": "s"}

check_writable = files.check_writable


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file holds: the dotted path of the settings' mapping, its knobs, and what they amount to.

    `empty` says that the mapping holds no knob of any provider, or is not there; `extras` are ONNX Runtime's options in
    it that are no knobs, `left_out` those that no session here is given. `profile` is the name of the profile that the
    settings are, empty where they are none, `profiles` are those that the file has beside its settings.
    """

    path: Path
    exists: bool
    target: str
    held: Mapping[str, Value]
    settings: Settings
    empty: bool
    extras: Mapping[str, Value] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    profile: str = ""
    profiles: tuple[str, ...] = ()


def read(path: Path, provider: str, config_path: str = "", *, profile: str = "", device: str = "") -> ConfigFile:
    """Return what the file `path` holds for `provider`; a file that is not there holds nothing.

    The target is `config_path` (dots), else the first mapping with a knob of any provider, else `onnx`; mappings that
    others merge are passed over. Of its `profiles` it is the one called `profile`, with "auto" the one of `device` (the
    name of a GPU or processor); where nothing is said, that of `device` if it is there, else none. Raises UsageError,
    with line and column, for what cannot be read or written back, and for a key beside the settings that is nearly a
    knob's name: nobody would have its value.
    """
    data = files.read_bytes(path)
    document = Document(path, files.decode(path, data or b""))
    target, chosen, profiles = _target(document, config_path, profile, device)
    held = document.held(target, knob_table(provider))
    settings, extras = canonical(provider, held), document.extras(target, provider)
    empty, left_out = document.is_empty(target), document.left_out(target)
    return ConfigFile(path, data is not None, target, held, settings, empty, extras, left_out, chosen, profiles)


def _target(document: Document, config_path: str, profile: str, device: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the path of the settings, the name of the profile that they are, and those that the file has."""
    base = config_path or next(document.mappings_with(known_knobs()), _NEW_TARGET)
    document.check_spelling(base)
    inside = f"{base}.{PROFILES}".lstrip(".")
    profiles = document.profiles(base)
    chosen = device if profile == AUTO or (not profile and device in profiles) else profile
    if not chosen:
        return base, "", profiles
    document.check_spelling(f"{inside}.{chosen}")
    return f"{inside}.{chosen}", chosen, profiles


def check_settings(config: ConfigFile, config_path: str = "") -> None:
    """Raise UsageError where `config` holds no settings, since ONNX Runtime's default would run in their place."""
    if config.empty and config.profiles:
        asked = f"no profile {config.profile!r}" if config.profile else "none for this machine, and none beside them"
        raise UsageError(
            f"The configuration {config.path} holds settings for {', '.join(config.profiles)}, {asked}: name one of "
            f"these as the profile, or tune here (rtmo-optuna tune MODEL --config {config.path} --profile auto)."
        )
    if config.empty:
        where, option, what = (
            (f" under {config_path}", f" --config-path {config_path}", "place") if config_path else ("", "", "file")
        )
        raise UsageError(
            f"The configuration {config.path} holds no settings{where}: name another {what}, or tune first "
            f"(rtmo-optuna tune MODEL --config {config.path}{option})."
        )


def read_info(path: Path, config_path: str = "", *, profile: str = "", device: str = "") -> dict[str, Any]:
    """Return `benchmark_info` beside the settings in the file `path`, its values as text; empty where there is none.

    Which settings is said as to `read`, and UsageError raised as by it.
    """
    document = Document(path, files.decode(path, files.read_bytes(path) or b""))
    target, _, _ = _target(document, config_path, profile, device)
    return document.info(target)


def merged(provider: str, held: Settings, fixed: Iterable[tuple[str, Value]]) -> Settings:
    """Return the settings `held`, with the (knob, value) pairs `fixed` in place of their own."""
    return canonical(provider, {**dict(held), **dict(fixed)})


def write(config: ConfigFile, settings: Mapping[str, Value], info: Mapping[str, Any]) -> Path | None:
    """Write `settings` into the target of `config` and `info` into `benchmark_info` beside them; return the backup.

    The file is read anew, changed where values differ, and replaced at once; the old one is kept as
    `config.yaml.bak-<time>`. None comes back where there was none, or nothing to change. Raises UsageError where the
    file cannot be read or written any more.
    """
    data = files.read_bytes(config.path)
    text = files.decode(config.path, data or b"")
    new = Document(config.path, text).written(config.target, settings, info, config.profile)
    _prove(config, new, settings)
    return files.replace(config.path, data, new) if new != text else None


def check_layout(config: ConfigFile, provider: str) -> None:
    """Raise UsageError where settings for `provider` could not be written into `config`, by writing some to nowhere."""
    data = files.read_bytes(config.path)
    text = files.decode(config.path, data or b"")
    for place in (0, -1):
        settings = {name: knob.choices[place] for name, knob in knob_table(provider).items()}
        written = Document(config.path, text).written(config.target, settings, _SOME_INFO, config.profile)
        if not _is_proven(config, written, settings):
            raise UsageError(
                f"{config.path} is laid out too unusually for settings to be written under {config.target}: write it "
                "as a plain mapping (name: value, a line each), or name another file or --config-path."
            )


def _prove(config: ConfigFile, text: str, settings: Mapping[str, Value]) -> None:
    """Read `text` as the next run will: a layout that nobody thought of must not cost the user the file."""
    if not _is_proven(config, text, settings):
        message = f"{config.path} is left alone: its layout is too unusual. Write there: {values.as_yaml(settings)}."
        raise UsageError(message)


def _is_proven(config: ConfigFile, text: str, settings: Mapping[str, Value]) -> bool:
    """Return whether the next run reads `settings` in `text`."""
    try:
        return settings.items() <= Document(config.path, text).held(config.target, known_knobs()).items()
    except UsageError:
        return False
