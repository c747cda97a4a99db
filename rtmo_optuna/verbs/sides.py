"""How the settings that `bench` compares are named: by knobs, by a configuration file, as config or default."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.space.values import advice, parse_value
from rtmo_optuna.types.request import Settings, Value

CONFIG, DEFAULT = "config", "default"
_FILES = {".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class Sides:
    """What the user named: `changes` of what config.yaml holds, `more` settings beside it, changes of the default.

    The first are compared with the last, `against`, in which "config" stands for what config.yaml holds.
    """

    changes: Sequence[str] = ()
    more: Sequence[str] = ()
    against: Sequence[str] = ()

    @property
    def meant(self) -> bool:
        """Whether what config.yaml holds is meant by its name."""
        return CONFIG in {*self.more, *self.against}


def parsed(provider: str, base: Iterable[tuple[str, Value]], changes: Iterable[str]) -> Settings:
    """Return the settings `base` with "knob=value" `changes`.

    Raises UsageError for an unknown knob or value, and for a knob that is set twice.
    """
    table, values = knob_table(provider), dict[str, Value]()
    for change in changes:
        name, equals, value = change.partition("=")
        problem = (
            "Write knob=value." if not equals
            else f"{name!r} is no knob of {provider}. {advice(name, table)}" if name not in table
            else f"{name!r} is given already, so leave out one." if name in values
            else ""
        )  # fmt: skip
        if problem:
            raise UsageError(f"{change!r} cannot be set: {problem}")
        values[name] = parse_value(table[name], value)
    return canonical(provider, {**dict(base), **values})


def named(provider: str, config: configfile.ConfigFile, side: str) -> Settings:
    """Return what `--side` names: "default", "config", a YAML file, or "knob=value,knob=value".

    Raises UsageError as `parsed` does, and for a file that is not there, holds no settings, or holds other options
    beside them than `config`: those are part of every session.
    """
    if side == DEFAULT:
        return canonical(provider, {})
    if side == CONFIG:
        return config.settings
    if Path(side).suffix.lower() not in _FILES:
        return parsed(provider, (), filter(None, map(str.strip, side.split(","))))
    if not Path(side).exists():
        raise UsageError(f"The side {side} does not exist: name another file, or knob=value.")
    held = configfile.read(Path(side), provider)
    configfile.check_settings(held)
    if held.extras != config.extras:
        message = (
            f"{side} and {config.path} hold other options beside their settings, which every session here has: "
            "let both hold the same ones."
        )
        raise UsageError(message)
    return held.settings


def settings_of(wanted: Sides, provider: str, config: configfile.ConfigFile) -> tuple[tuple[Settings, ...], Settings]:
    """Return the settings that are compared, and those that each of them is compared with.

    Raises UsageError as `named` does, and where two of them are equal.
    """
    held, words = config.settings, {CONFIG, DEFAULT}
    base = held if CONFIG in wanted.against else ()
    rival = parsed(provider, base, [one for one in wanted.against if one not in words])
    subjects = [named(provider, config, side) for side in wanted.more]
    if wanted.changes or not wanted.more:
        subjects.insert(0, parsed(provider, held, wanted.changes))
    twice = next((one for i, one in enumerate(subjects) if one in {rival, *subjects[:i]}), None)
    if twice is not None:
        which = "Both" if len(subjects) == 1 else "Two"
        raise UsageError(f"{which} sides are the same settings ({twice}): name others with --set, --side or --against.")
    return tuple(subjects), rival
