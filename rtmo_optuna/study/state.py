"""What is kept with a study beside its trials: processes, and what each part of a tune has found."""

from typing import Any

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.drivers import LEASE_S, Crew
from rtmo_optuna.types.findings import ProcessRecord, Purpose, Screening
from rtmo_optuna.types.request import Settings

_PROCESS = "process "


class Kept:
    """The attributes of a study in the database, of which one driver at a time writes each.

    Attributes:
        crew: The drivers that work on the study.
    """

    def __init__(self, attributes: Attributes, lease_s: float = LEASE_S) -> None:
        """Take over what is there; a driver is gone after `lease_s` of silence."""
        self._attributes = attributes
        self._held: dict[str, Any] = {}
        self._lost = False
        self.crew = Crew(attributes, lease_s)
        self.refresh()

    def refresh(self) -> None:
        """Read what is kept, by other drivers too."""
        kept = {name: held for name, held in self._all().items() if held and name.startswith(_PROCESS)}
        self._processes = {name: decode(ProcessRecord, kept[name]) for name in sorted(kept, key=_place)}

    @property
    def processes(self) -> tuple[ProcessRecord, ...]:
        """What ran beside the trials: baseline, race and confirmation, in order."""
        return tuple(self._processes.values())

    @property
    def baseline(self) -> tuple[ProcessRecord, ...]:
        """The default settings' processes before the search that ran as its trials do: pinned to quiet cores or not."""
        purpose = Purpose.PINNED if self.get("pin") else Purpose.BASELINE
        return tuple(process for process in self.processes if process.purpose is purpose)

    def results(self, purpose: Purpose) -> dict[int, dict[Settings, float | None]]:
        """Return the costs kept for `purpose`, by block or pair and settings; None for a process that failed."""
        results: dict[int, dict[Settings, float | None]] = {}
        for process in self.processes:
            if process.purpose is purpose:
                results.setdefault(process.index, {})[process.settings] = process.cost
        return results

    def keep(self, process: ProcessRecord) -> None:
        """Keep a process that ran beside the trials."""
        self.crew.renew()
        last = max(map(_place, self._processes), default=0)
        name = f"{_PROCESS}{last + 1}"
        self._processes[name] = process
        self._attributes.put(name, process)

    def forget(self, *purposes: Purpose) -> None:
        """Forget the processes that ran for `purposes`."""
        gone = [name for name, process in self._processes.items() if process.purpose in purposes]
        self._processes = {name: process for name, process in self._processes.items() if name not in gone}
        self._attributes.remove(gone)

    def put(self, name: str, value: object) -> None:
        """Keep `value` with the study under `name`."""
        self._held[name] = encode(value)
        self._attributes.put(name, self._held[name])

    def get(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return what was put under `name`, encoded; None where nothing was."""
        return self._all().get(name)

    def _all(self) -> dict[str, Any]:
        if not self._lost:
            self._held = self._attributes.all()
        return self._held

    def let_go(self) -> None:
        """Go on with what was last read and put: the database is lost."""
        self._lost = True

    @property
    def screening(self) -> Screening | None:
        """What the screening found so far; None before it."""
        held = self.get("screening")
        return decode(Screening, held) if held else None


def _place(name: str) -> int:
    return int(name.removeprefix(_PROCESS))
