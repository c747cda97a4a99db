"""Numbers and settings as people read them."""

import math
from collections.abc import Iterable, Sequence

from rtmo_optuna.types.request import Settings, Value

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NBSP = "\N{NO-BREAK SPACE}"
DOUBLE = 2.0
"""The ratio from which a factor reads better than a percentage."""
ROUND_FROM = 9.95
"""The percentage from which decimals are noise."""
PRECISE_S = 10.0
"""The duration from which decimals are noise."""
_MOST = 3
"""Decimals of a ratio at the most: nobody claims less than 1 %."""


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits, and never an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:.{decimals}f}".replace("-", MINUS)


def _decimals(low: float, high: float) -> int:
    """Return with how many decimals a ratio with the interval `low` to `high` is to be written.

    That is two significant digits of its uncertainty, half the interval's width; more where an end would else be
    written as 1 and is not: whether the interval holds 1 is what it is read for.
    """
    half = (high - low) / 2
    wanted = _MOST if half <= 0 else min(_MOST, max(0, 1 - math.floor(math.log10(half))))
    return next((n for n in range(wanted, _MOST) if all(end == 1 or round(end, n) != 1 for end in (low, high))), _MOST)


def written(ratio: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a ratio and the ends of its interval as text, with the digits that mean something."""
    places = _decimals(low, high)
    return f"{ratio:.{places}f}", f"{low:.{places}f}", f"{high:.{places}f}"


def change(ratio: float) -> str:
    """Return a ratio as a signed percentage, or as a factor from 2 on: `-14 %`, `+3.1 %`, `2.7x`."""
    if ratio >= DOUBLE:
        return f"{number(ratio, 2)}{TIMES}"
    percent = 100 * (ratio - 1)
    decimals = 0 if abs(percent) >= ROUND_FROM else 1
    text = f"{percent:+.{decimals}f}".replace("-", MINUS)
    return f"{text if float(f'{percent:.{decimals}f}') else 0}{NBSP}%"


def share(part: float, whole: float) -> str:
    """Return `part` of `whole` as a percentage, `0 %` of nothing."""
    return f"{100 * part / whole if whole else 0:.0f}{NBSP}%"


def percent(part: float) -> str:
    """Return a share as a percentage with two significant digits, and never an exponent."""
    text = number(float(f"{100 * part:.2g}"), 2)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{NBSP}%"


def seconds(value: float) -> str:
    """Return a duration given in seconds: `0.42 s`, `38 s`, `2 min 31 s`, `1 h 5 min`."""
    if value < PRECISE_S:
        return f"{value:.{2 if value < 1 else 1}f}{NBSP}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((i for i, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount}{NBSP}{unit}" for amount, unit in parts[first : first + 2] if amount)


def clock(value: float) -> str:
    """Return a duration given in seconds as a clock shows it: `0:07`, `9:59`, `75:00`."""
    minutes, rest = divmod(int(value), 60)
    return f"{minutes}:{rest:02d}"


def gib(value: float) -> str:
    """Return a number of bytes in GiB or, below one, in MiB."""
    if value < 2**30:
        return f"{value / 2**20:.0f}{NBSP}MiB"
    return f"{number(value / 2**30)}{NBSP}GiB"


def count(amount: int, what: str, many: str = "") -> str:
    """Return `1 run`, `3 runs`."""
    return f"{amount} {what if amount == 1 else many or what + 's'}"


def pace(rate_hz: float) -> str:
    """Return at which pace a study's calls came: `30 calls a second, with sleep between them`."""
    return f"{rate_hz:g} calls a second, with sleep between them"


def listed(parts: Iterable[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last


def shown(knob: str, value: Value) -> str:
    """Return one setting as `knob=value`, spelt as in every other place."""
    return str(Settings(((knob, value),)))


def choice(value: Value) -> str:
    """Return the value of a setting, spelt as in every other place."""
    return shown("", value).removeprefix("=")


def sentence(text: str) -> str:
    """Return `text` on one line, with a full stop."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?", ":")) or not line else f"{line}."


def one_by_one(settings: Settings) -> tuple[str, ...]:
    """Return settings as `knob=value` each, `default` where there are none."""
    return tuple(str(settings).split(", "))


def beside(settings: Settings, first: Settings) -> tuple[str, ...]:
    """Return `settings` one by one or, where that is shorter, as what is otherwise than in `first`."""
    every = one_by_one(settings)
    other = [shown(knob, value) for knob, value in settings if (knob, value) not in first.items]
    missing = [f"without {knob}" for knob, _ in first if settings.get(knob) is None]
    return ("as the first", *other, *missing) if 0 < len(other) + len(missing) < len(every) - 1 else every


def wrap(parts: Sequence[str], width: int = 44, most: int = 3) -> tuple[str, ...]:
    """Return `parts` in at most `most` lines of about `width` characters, broken between them only."""
    lines: list[str] = []
    for done, part in enumerate(parts):
        fits = bool(lines) and len(lines[-1]) + 2 + len(part) <= width
        if not fits and len(lines) == most:
            return (*lines[:-1], f"{lines[-1]} and {len(parts) - done} more")
        if fits:
            lines[-1] += f", {part}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(part)
    return tuple(lines)
