"""What is kept with a study beside its trials: processes, and what each part of a tune has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.study.drivers import LEASE_S, Crew
from rtmo_optuna.types.findings import ProcessRecord, Purpose, Screening

if TYPE_CHECKING:
    import optuna

    from rtmo_optuna.types.request import Settings


class Kept:
    """The attributes of a study in the database, of which one driver at a time writes each.

    Attributes:
        crew: The drivers that work on the study.
    """

    def __init__(self, study: optuna.Study, lease_s: float = LEASE_S) -> None:
        """Take over what is there; a driver is gone after `lease_s` of silence."""
        self._study = study
        self._held: dict[str, Any] = {}
        self._lost = False
        self.crew = Crew(study, lease_s)
        self.refresh()

    def refresh(self) -> None:
        """Read what is kept, by other drivers too."""
        self._processes = decode(tuple[ProcessRecord, ...], self.get("processes") or [])

    @property
    def processes(self) -> tuple[ProcessRecord, ...]:
        """What ran beside the trials: baseline, race and confirmation, in order."""
        return self._processes

    @property
    def baseline(self) -> tuple[ProcessRecord, ...]:
        """The default settings' processes before the search that ran as its trials do: pinned to quiet cores or not."""
        purpose = Purpose.PINNED if self.get("pin") else Purpose.BASELINE
        return tuple(process for process in self._processes if process.purpose is purpose)

    def results(self, purpose: Purpose) -> dict[int, dict[Settings, float | None]]:
        """Return the costs kept for `purpose`, by block or pair and settings; None for a process that failed."""
        results: dict[int, dict[Settings, float | None]] = {}
        for process in self._processes:
            if process.purpose is purpose:
                results.setdefault(process.index, {})[process.settings] = process.cost
        return results

    def keep(self, process: ProcessRecord) -> None:
        """Keep a process that ran beside the trials."""
        self.crew.renew()
        self._processes = (*self._processes, process)
        self._study.set_user_attr("processes", encode(self._processes))

    def forget(self, *purposes: Purpose) -> None:
        """Forget the processes that ran for `purposes`."""
        self._processes = tuple(process for process in self._processes if process.purpose not in purposes)
        self._study.set_user_attr("processes", encode(self._processes))

    def put(self, name: str, value: object) -> None:
        """Keep `value` with the study under `name`."""
        self._held[name] = encode(value)
        self._study.set_user_attr(name, self._held[name])

    def get(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return what was put under `name`, encoded; None where nothing was."""
        if not self._lost:
            self._held = self._study.user_attrs
        return self._held.get(name)

    def let_go(self) -> None:
        """Go on with what was last read and put: the database is lost."""
        self._lost = True

    @property
    def screening(self) -> Screening | None:
        """What the screening found so far; None before it."""
        held = self.get("screening")
        return decode(Screening, held) if held else None
