"""What a terminal shows while a run goes on: a line for each trial, and below it one that says where the run is."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Self

from rich.text import Text

from rtmo_optuna.cli.printed import console
from rtmo_optuna.display import visible
from rtmo_optuna.show.words import clock, number
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import (
    Event,
    Note,
    Origin,
    Phase,
    RunStarted,
    Started,
    TrialEnded,
    TrialRecord,
    Waiting,
    WindowDone,
)

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
_REDRAWN_S, _IDLE_S, _TOLD_S = 3.0, 1.0, 10.0
"""The longest silence on a terminal, there while nothing is timed, and elsewhere."""


class Progress:
    """An observer that draws; use it as a context manager.

    The last line of a terminal is redrawn on events, since a redraw while calls are timed would be measured with them;
    by a clock only where nothing came for three seconds. Elsewhere each finished trial is one plain line, and where
    there was none for ten seconds, so is where the run is.
    """

    def __init__(self, *, err: bool = False, quiet: bool = False, silence_s: float | None = None) -> None:
        """Draw on standard output, on standard error with `err`, or nothing at all where it is to be `quiet`.

        `silence_s` is the longest silence; None are three seconds on a terminal (one where nothing is timed), ten
        elsewhere.
        """
        self._console = console(err=err, quiet=quiet)
        self._terminal = self._console.is_terminal and not quiet
        self._given_s = silence_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watched, daemon=True)
        self._begun = self._drawn = time.monotonic()
        self._most_s = math.inf
        self._phase, self._place, self._total = Phase.LOOK, 0, 0
        self._settings = self._state = self._ms = self._best = ""
        self._waiting: tuple[str, float] | None = None
        self._told = set[str]()

    def __enter__(self) -> Self:
        """Start drawing."""
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the finished lines standing."""
        self._over.set()
        self._watch.join()
        with self._lock:
            self._wipe()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begun, self._most_s = time.monotonic(), event.most_s
                self._print(Text(visible(event.text)))
            case Note():
                text = f"warning: {event.text}" if event.warning else event.text
                self._print(Text(visible(text), "yellow" * event.warning))
            case Started():
                self._started(event)
            case Waiting():
                self._wait(event)
            case WindowDone():
                self._waiting = None
                self._ms, self._state = f"{number(event.latency_ms)} ms", f"window {event.windows}"
            case TrialEnded():
                self._ended(event)
        self._draw()

    def _started(self, started: Started) -> None:
        self._place = started.place or (self._place if started.phase is self._phase else 0)
        self._total = started.total or (self._total if started.phase is self._phase else 0)
        self._phase, self._ms, self._waiting = started.phase, "", None
        self._state, self._settings = "", ""
        if started.settings is not None:
            self._state, self._settings = "starting", _shown(started.settings.items, started.origin)

    def _wait(self, waiting: Waiting) -> None:
        until = (
            "" if waiting.until is None else time.strftime(", until %H:%M:%S at most", time.localtime(waiting.until))
        )
        told = f"for {visible(waiting.what)}{until}"
        if not self._waiting or self._waiting[0] != told:
            self._waiting = told, time.monotonic()
        if waiting.what not in self._told:
            self._told.add(waiting.what)
            self._print(Text(f"Waiting {told}."))

    def _ended(self, ended: TrialEnded) -> None:
        trial = ended.trial
        measurement = trial.measurement
        latency = "" if measurement.latency_ms is None else f"{number(measurement.latency_ms)} ms"
        self._best = _best(ended.best)
        self._state, self._ms, self._settings = "choosing", "", ""
        failed = measurement.outcome is Outcome.FAILED
        line = Text.assemble(
            (_place(Phase.SEARCH, ended.run, ended.total), "bold"),
            (f"  {measurement.outcome.value:<8}", _STYLES[measurement.outcome]),
            f"  {latency:>9}  ",
            (f"{self._left}  ", "dim"),
            ("" if self._terminal else f"{self._best}{_unconfirmed(ended.best, ended.default)}  ", "dim"),
            _shown(trial.settings.items, trial.origin),
        )
        self._print(line, cut=True)
        if failed:
            self._print(Text(f"  {visible(measurement.why)}", "red"))

    @property
    def _left(self) -> str:
        left_s = self._begun + self._most_s - time.monotonic()
        return "" if left_s == math.inf else f"{clock(max(0.0, left_s))} left"

    @property
    def _status(self) -> Text:
        """Where the run is, on one line: the settings come last, where a terminal cuts it."""
        waited = self._waiting and f"waiting {clock(time.monotonic() - self._waiting[1])} {self._waiting[0]}"
        parts = (waited or self._state, "" if waited else self._ms, self._left, self._best, self._settings)
        told = "  ".join(filter(None, parts))
        return Text.assemble((_place(self._phase, self._place, self._total), "bold"), f"  {told}")

    def _draw(self) -> None:
        """Draw the last line of a terminal anew."""
        if self._terminal:
            self._drawn = time.monotonic()
            line = self._status
            line.truncate(self._console.width - 1, overflow="ellipsis")
            self._wipe()
            self._console.print(line, end="", soft_wrap=True)

    def _wipe(self) -> None:
        """Remove the last line of a terminal."""
        if self._terminal:
            self._console.file.write(f"\r{' ' * (self._console.width - 1)}\r")
            self._console.file.flush()

    def _print(self, line: Text, *, cut: bool = False) -> None:
        """Leave a line standing: folded between words on a terminal or, where it is to be one line, `cut`."""
        self._wipe()
        self._drawn = time.monotonic()
        if cut and self._terminal:
            line.truncate(self._console.width - 1, overflow="ellipsis")
        self._console.print(line, soft_wrap=not self._terminal, width=self._console.width - 1)

    @property
    def _silence_s(self) -> float:
        busy = self._settings or self._waiting
        return self._given_s or (_TOLD_S if not self._terminal else _REDRAWN_S if busy else _IDLE_S)

    def _watched(self) -> None:
        """Never be silent for long."""
        while not self._over.wait(max(0.1, self._drawn + self._silence_s - time.monotonic())):
            with self._lock:
                if time.monotonic() - self._drawn < self._silence_s:
                    continue  # something came meanwhile
                if self._terminal:
                    self._draw()
                else:
                    self._print(self._status)


def _place(phase: Phase, place: int, total: int) -> str:
    return f"{phase} {place}/{total}" if total else f"{phase} {place or ''}".rstrip()


def _shown(items: Iterable[tuple[str, object]], origin: Origin) -> str:
    settings = ", ".join(f"{name}={int(v) if isinstance(v, bool) else v}" for name, v in items) or "default"
    return visible(settings) + _ORIGINS.get(origin, "")


def _best(best: TrialRecord | None) -> str:
    known = best and best.measurement.latency_ms
    return f"best run {number(known)} ms" if known else ""


def _unconfirmed(best: TrialRecord | None, default: TrialRecord | None) -> str:
    """Return beside which run of the default the best one stands: single runs have no ratio to be proud of."""
    known = default and default.measurement.latency_ms
    return f", unconfirmed (default's run {number(known)} ms)" if best and known and best != default else ""
