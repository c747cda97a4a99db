"""What a terminal shows while a tune runs: a line for each finished trial, and below it the one that is running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.text import Text

from rtmo_optuna.cli.printed import console
from rtmo_optuna.display import visible
from rtmo_optuna.show.words import number
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Event, Note, Origin, TrialEnded, TrialRecord, TrialStarted, WindowDone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

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


class Progress:
    """An observer that draws; use it as a context manager.

    On a terminal the last line is redrawn on events only, never by a clock: a redraw while a window is being timed
    would be measured with it. Elsewhere each finished trial is one plain line.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Draw on standard output, or nothing at all where it is to be `quiet`."""
        self._console = console(quiet=quiet)
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
