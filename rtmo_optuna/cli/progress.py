"""What a terminal shows while a tune runs: a line for each finished trial, and below it the one that is running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rtmo_optuna.display import visible
from rtmo_optuna.show.words import number
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Event, Note, Origin, TrialEnded, TrialRecord, TrialStarted, WindowDone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from rtmo_optuna.types.request import Dimension
    from rtmo_optuna.verbs.bench import Comparison, Side

_STYLES: Mapping[Outcome, str] = {
    Outcome.MEASURED: "green",
    Outcome.PRUNED: "yellow",
    Outcome.FAILED: "red",
    Outcome.INTERRUPTED: "yellow",
}
_ORIGINS: Mapping[Origin, str] = {
    Origin.CONFIG: " (from config.yaml)",
    Origin.ADVICE: " (the guide's advice)",
    Origin.WON: " (what won elsewhere)",
    Origin.SCREENING: " (screening)",
    Origin.PLAINER: " (the best, without what does nothing by itself)",
    Origin.PLAIN: " (the winner, without what nothing speaks for)",
}
_PLAIN_WIDTH = 160


class Progress:
    """An observer that draws; use it as a context manager.

    On a terminal the last line is redrawn on events only, never by a clock: a redraw while a window is being timed
    would be measured with it. Elsewhere each finished trial is one plain line.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Draw on standard output, or nothing at all where it is to be `quiet`."""
        self._console = Console(highlight=False, quiet=quiet)
        if not self._console.is_terminal:
            self._console.width = _PLAIN_WIDTH
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._running: TrialStarted | None = None
        self._best = ""
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the finished lines standing."""
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        match event:
            case Note():
                self._note(event)
            case TrialStarted():
                self._started(event)
            case WindowDone():
                self._window(event)
            case TrialEnded():
                self._ended(event)

    def _note(self, note: Note) -> None:
        self._console.print(
            Text(visible(f"warning: {note.text}" if note.warning else note.text), "yellow" * note.warning)
        )

    def _started(self, started: TrialStarted) -> None:
        self._running, self._since = started, time.monotonic()
        self._draw("starting")

    def _window(self, window: WindowDone) -> None:
        self._draw(f"{number(window.latency_ms)} ms after {window.windows} windows")

    def _draw(self, state: str) -> None:
        if not self._console.is_terminal or self._running is None:
            return
        left = max(0, int(self._running.seconds_left - (time.monotonic() - self._since)))
        text = Text.assemble(
            (f"{self._running.run:>3}/{self._running.total}  ", "bold"),
            f"{_shown(self._running.settings.items, self._running.origin)}  ",
            (state, "cyan"),
            (f"  {self._best}  {left // 60}:{left % 60:02d} left", "dim"),
        )
        text.truncate(self._console.width, overflow="ellipsis")
        self._live.update(text, refresh=True)

    def _ended(self, ended: TrialEnded) -> None:
        trial = ended.trial
        measurement = trial.measurement
        latency = f"{number(measurement.latency_ms):>8} ms" if measurement.latency_ms is not None else " " * 11
        self._best = _best(ended.best, ended.default)
        line = Text.assemble(
            (f"{ended.run:>3}/{ended.total} ", "bold"),
            latency,
            (f"  {measurement.outcome.value:<8}  ", _STYLES[measurement.outcome]),
            _shown(trial.settings.items, trial.origin),
        )
        if measurement.outcome is Outcome.FAILED:
            line.append(f"  ({visible(measurement.why)})", "red")
        else:
            line.append(f"  {self._best}", "dim")
        self._console.print(line, soft_wrap=True)


def _shown(items: Iterable[tuple[str, object]], origin: Origin) -> str:
    settings = ", ".join(f"{name}={int(v) if isinstance(v, bool) else v}" for name, v in items) or "default"
    return visible(settings) + _ORIGINS.get(origin, "")


def _best(best: TrialRecord | None, default: TrialRecord | None) -> str:
    if best is None or best.measurement.latency_ms is None:
        return ""
    text = f"best run {number(best.measurement.latency_ms)} ms"
    if default and default.measurement.latency_ms and best.number != default.number:
        text += f", unconfirmed (default's run {number(default.measurement.latency_ms)} ms)"
    return text


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print a table on standard output, cut to the terminal's width."""
    table = Table(*columns, title=visible(title) or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(table)


def comparison_rows(found: Comparison) -> list[tuple[str, str, str]]:
    """Return a row for each figure that one of the two sides of a comparison has."""
    names = ("p50", "p90", "p99")
    figures: list[tuple[str, Callable[[Side], object]]] = [
        ("settings", lambda side: side.settings),
        ("processes", lambda side: side.processes),
        ("latency, ms", lambda side: _figure(side.latency_ms)),
        *((f"{name}, ms", lambda side, name=name: _figure(side.quantiles_ms.get(name))) for name in names),
        ("calls missed", lambda side: side.missed or ""),
        ("session build, ms", lambda side: _figure(side.session_build_ms)),
        ("first run, ms", lambda side: _figure(side.first_run_ms)),
        ("GPU memory, MiB", lambda side: _figure(side.gpu_memory_bytes and side.gpu_memory_bytes / 2**20)),
    ]
    rows = ((name, str(tell(found.first)), str(tell(found.second))) for name, tell in figures)
    return [row for row in rows if any(row[1:])]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def space_rows(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Return a row for each dimension: its name and its choices."""
    return [(d.name, ", ".join("none" if c.label is None else str(c.label) for c in d.choices)) for d in dimensions]
